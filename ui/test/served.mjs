// The built pages with an API that answers what a test says: for states that a real hub is hard to bring about. Streams send
// what is set, at once and whenever it is set anew. Pages may load nothing but what is served here, and no style but a file's.

import fs from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { text } from 'node:stream/consumers'

const dist = path.resolve(import.meta.dirname, '../dist')
const prefix = '/api/creel/v1'
const kinds = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' }
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

// serve begins to. The answers are set by path, below /api/creel/v1 or from /prom/ on, without what follows a question mark.
export async function serve() {
  const answers = new Map([['GET /me', { value: { name: 'root', role: 'admin' } }]])
  const streams = new Set()
  const asked = []
  const server = http.createServer(async (request, response) => {
    const { pathname, search } = new URL(request.url, 'http://here')
    if (!pathname.startsWith(prefix) && !pathname.startsWith('/prom/')) return page(pathname, response)
    const at = pathname.replace(prefix, '')
    const body = await text(request)
    asked.push({ method: request.method, at, search, body: body && at !== pathname ? JSON.parse(body) : undefined })
    const { event, value, status = 200 } = answers.get(`${request.method} ${at}`) ?? { status: 404, value: { code: 'not_found', message: `the test has set no ${request.method} ${at}` } }
    if (status === 204) return response.writeHead(204).end()
    if (!event) return response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(value))
    response.writeHead(200, { 'Content-Type': 'text/event-stream' })
    const stream = { at, end: () => response.end(), send: (v) => response.write(`event: ${event}\ndata: ${JSON.stringify(v)}\n\n`) }
    streams.add(stream)
    response.on('close', () => streams.delete(stream))
    stream.send(value)
  })
  await new Promise((done) => server.listen(0, '127.0.0.1', done))
  const put = (method, at, a) => answers.set(`${method} ${at}`, a)
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    asked, // with method, at, search, body
    // set is what a path answers from now on, as an event of a stream if it has a name.
    set(at, value, event) {
      put('GET', at, { event, value })
      for (const s of streams) if (s.at === at) s.send(value)
    },
    // on is what another method than GET answers.
    on: (method, at, value, status) => put(method, at, { value, status }),
    // refuse is an error that a path answers from now on; its streams end.
    refuse(at, status, code, message) {
      put('GET', at, { status, value: { code, message } })
      for (const s of streams) if (s.at === at) s.end()
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
  response.writeHead(200, { 'Content-Type': kinds[path.extname(found)] ?? 'application/octet-stream', 'Content-Security-Policy': policy }).end(fs.readFileSync(found))
}
