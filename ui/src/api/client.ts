// How the pages ask the hub. Who is signed in has a cookie; nothing is kept here.

import { reader } from './events'
import { session } from './session'
import type { Absent, ErrorBody, Problem } from './types'

const prefix = '/api/creel/v1'
const silence = 45_000 // milliseconds, in which the hub has sent something three times if the stream is alive

// A Failure is an answer that is no success. Its code is the API's; "unreachable" if there was no answer. Its problems are
// those of a text that was refused.
export class Failure extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly problems: Problem[] = [],
  ) {
    super(message)
  }
}

export type Params = Record<string, string | number | boolean | string[] | undefined>

export function query(params: Params): string {
  const q = new URLSearchParams()
  for (const [k, v] of Object.entries(params)) {
    if (Array.isArray(v)) v.forEach((x) => q.append(k, x))
    else if (v !== undefined && v !== '' && v !== false) q.set(k, String(v))
  }
  const s = q.toString()
  return s ? '?' + s : ''
}

// ask returns an answer that is a success. That the hub does not know who asks ends the session, unless it was asked for that.
async function ask(url: string, init: RequestInit): Promise<Response> {
  let response: Response
  try {
    response = await fetch(url, init)
  } catch (e) {
    if (init.signal?.aborted) throw e
    throw new Failure('unreachable', String(e))
  }
  if (response.ok) return response
  if (response.status === 401 && url !== prefix + '/login') session.ended()
  if (response.status === 403 && url !== prefix + '/login' && url !== prefix + '/me') session.doubted()
  const e = (await response.json().catch(() => null)) as (Partial<ErrorBody> & { error?: string; errorType?: string }) | null
  throw new Failure(e?.code ?? e?.errorType ?? String(response.status), e?.message ?? e?.error ?? response.statusText, e?.problems)
}

async function answer(url: string, init: RequestInit): Promise<unknown> {
  const response = await ask(url, init)
  return response.status === 204 ? null : response.json().catch(() => null)
}

// get asks one of the hub's operations.
export async function get<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<T> {
  return (await answer(prefix + path + query(params), { signal: signal ?? null })) as T
}

// send asks the hub to change something.
export async function send<T>(method: 'PUT' | 'POST' | 'DELETE', path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const json = body === undefined ? {} : { headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }
  return (await answer(prefix + path, { method, ...json, signal: signal ?? null })) as T
}

// prom asks Prometheus' query API. Warnings say why the data may not be all of it.
export async function prom<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<{ data: T; warnings?: string[] }> {
  return (await answer('/prom/api/v1' + path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
    body: query(params).slice(1),
    signal: signal ?? null,
  })) as { data: T; warnings?: string[] }
}

// promGet asks those of its paths that take no POST.
export async function promGet<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<T> {
  return ((await answer('/prom/api/v1' + path + query(params), { signal: signal ?? null })) as { data: T }).data
}

// signIn changes a token for a cookie, which no script can read. The answer's token for programs is not looked at.
export async function signIn(token: string): Promise<void> {
  await ask(prefix + '/login', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ token }) })
  session.begun()
}

export async function signOut(): Promise<void> {
  await ask(prefix + '/logout', { method: 'POST' })
}

// watch calls on with each event, until the returned function is called. failed is told why there are none, and
// undefined when there are again; lacks, which hubs do not answer, of a stream that is of several. It tries for ever. An EventSource would not say why it ends, nor notice that nothing comes.
export function watch<T>(path: string, params: Params, event: string, on: (value: T) => void, failed: (why?: Failure) => void, lacks?: (list: Absent[]) => void): () => void {
  let ended = false
  let timer: ReturnType<typeof setTimeout> | undefined
  let abort = new AbortController()
  const open = async () => {
    abort = new AbortController()
    const dead = () => abort.abort(new Failure('unreachable', 'nothing comes from the hub'))
    let watchdog = setTimeout(dead, silence)
    try {
      const response = await ask(prefix + path + query(params), { headers: { Accept: 'text/event-stream' }, signal: abort.signal })
      if (!response.body) throw new Failure('unreachable', 'the answer has no body')
      failed(undefined)
      const read = reader((name, data) => {
        if (name === event) on(JSON.parse(data) as T)
        else if (name === 'absent') lacks?.((JSON.parse(data) as { absent?: Absent[] }).absent ?? [])
      })
      const stream = response.body.pipeThrough(new TextDecoderStream()).getReader()
      for (;;) {
        const { done, value } = await stream.read()
        if (done || ended) break
        clearTimeout(watchdog)
        watchdog = setTimeout(dead, silence)
        read(value)
      }
    } catch (e) {
      if (!ended) failed(e instanceof Failure ? e : new Failure('unreachable', String(e)))
    }
    clearTimeout(watchdog)
    if (!ended) timer = setTimeout(() => void open(), 1000 + Math.random() * 1000)
  }
  void open()
  return () => {
    ended = true
    clearTimeout(timer)
    abort.abort()
  }
}
