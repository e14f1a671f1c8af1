// How the pages ask the hub. Who is signed in has a cookie; nothing is kept here.

import type { ErrorBody, Problem } from './types'

const prefix = '/api/creel/v1'

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

async function answer(url: string, init: RequestInit): Promise<unknown> {
  let response: Response
  try {
    response = await fetch(url, init)
  } catch (e) {
    if (init.signal?.aborted) throw e
    throw new Failure('unreachable', String(e))
  }
  if (response.status === 204) return null
  const body: unknown = await response.json().catch(() => null)
  if (!response.ok) {
    const e = body as (Partial<ErrorBody> & { error?: string; errorType?: string }) | null
    throw new Failure(e?.code ?? e?.errorType ?? String(response.status), e?.message ?? e?.error ?? response.statusText, e?.problems)
  }
  return body
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

// prom asks Prometheus' query API.
export async function prom<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<T> {
  const body = (await answer('/prom/api/v1' + path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
    body: query(params).slice(1),
    signal: signal ?? null,
  })) as { data: T }
  return body.data
}

// promGet asks those of its paths that take no POST.
export async function promGet<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<T> {
  return ((await answer('/prom/api/v1' + path + query(params), { signal: signal ?? null })) as { data: T }).data
}

export async function signIn(token: string): Promise<void> {
  await answer(prefix + '/login', { method: 'POST', body: JSON.stringify({ token }) })
}

export async function signOut(): Promise<void> {
  await answer(prefix + '/logout', { method: 'POST' })
}

// watch calls on with each event, until the returned function is called. failed is told why there are none, and
// undefined when there are again. It tries for ever.
export function watch<T>(path: string, params: Params, event: string, on: (value: T) => void, failed: (why?: Failure) => void): () => void {
  let source: EventSource | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  const abort = new AbortController()
  const open = () => {
    source = new EventSource(prefix + path + query(params))
    source.addEventListener(event, (e) => {
      failed(undefined)
      on(JSON.parse((e as MessageEvent<string>).data) as T)
    })
    source.onerror = () => {
      source?.close()
      // An EventSource does not say what went wrong: the hub itself does.
      get('/hub', {}, abort.signal).then(
        () => failed(undefined),
        (e: unknown) => !abort.signal.aborted && failed(e as Failure),
      )
      timer = setTimeout(open, 1000 + Math.random() * 1000)
    }
  }
  open()
  return () => {
    abort.abort()
    clearTimeout(timer)
    source?.close()
  }
}
