// The built pages with an API that answers what a test says: for states that a real hub is hard to bring about. Streams send
// what is set, at once and whenever it is set anew.

import fs from 'node:fs'
import http from 'node:http'
import path from 'node:path'

const dist = path.resolve(import.meta.dirname, '../dist')
const kinds = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' }

// serve begins to. The answers are set by path, below /api/creel/v1, without what follows a question mark.
export async function serve() {
  const answers = new Map()
  const streams = new Set()
  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://here')
    const at = pathname.startsWith('/api/creel/v1') ? pathname.slice('/api/creel/v1'.length) : undefined
    if (at === undefined) return page(pathname, response)
    if (!answers.has(at)) return response.writeHead(404, { 'Content-Type': 'application/json' }).end(JSON.stringify({ code: 'not_found', message: `the test has set no ${at}` }))
    const { event, value } = answers.get(at)
    if (!event) return response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(value))
    response.writeHead(200, { 'Content-Type': 'text/event-stream' })
    const stream = { at, send: (v) => response.write(`event: ${event}\ndata: ${JSON.stringify(v)}\n\n`) }
    streams.add(stream)
    response.on('close', () => streams.delete(stream))
    stream.send(value)
  })
  await new Promise((done) => server.listen(0, '127.0.0.1', done))
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    // set is what a path answers from now on, as an event of a stream if it has a name.
    set(at, value, event) {
      answers.set(at, { event, value })
      for (const s of streams) if (s.at === at) s.send(value)
    },
    close() {
      server.closeAllConnections()
      return new Promise((done) => server.close(done))
    },
  }
}

function page(pathname, response) {
  const file = path.join(dist, pathname)
  const found = file.startsWith(dist + path.sep) && fs.existsSync(file) && fs.statSync(file).isFile() ? file : path.join(dist, 'index.html')
  response.writeHead(200, { 'Content-Type': kinds[path.extname(found)] ?? 'application/octet-stream' }).end(fs.readFileSync(found))
}
