import react from '@vitejs/plugin-react'
import { defineConfig } from 'vite'

// `npm run dev` serves the sources with a hub's data: start the hub first.
const hub = 'http://127.0.0.1:4380'

export default defineConfig({
  plugins: [react()],
  build: { target: 'es2023', assetsInlineLimit: 0, chunkSizeWarningLimit: 1000 },
  server: { proxy: { '/api': hub, '/prom': hub, '/signin': hub } },
})
