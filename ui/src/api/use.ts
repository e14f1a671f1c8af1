import { useCallback, useEffect, useRef, useState } from 'react'
import { type Failure, get, type Params, watch } from './client'
import { useSession } from './session'
import type { Absent } from './types'

// Answer is what is known: the last value, and why there is no newer one.
export interface Answer<T> {
  value?: T
  failure?: Failure | undefined
  loading: boolean
}

// Asked is an answer that can be asked for again.
export type Asked<T> = Answer<T> & { again: () => void }

// useAsked asks when the key changes, when somebody has signed in, and again when asked to; the last value stays until the
// next is there.
export function useAsked<T>(key: string | null, ask: (signal: AbortSignal) => Promise<T>): Asked<T> {
  const [state, set] = useState<Answer<T>>({ loading: true })
  const [round, setRound] = useState(0)
  const latest = useRef(ask)
  latest.current = ask
  const { out, round: signedIn } = useSession()
  useEffect(() => {
    if (key === null || out) return
    const abort = new AbortController()
    set((s) => ({ ...s, loading: true }))
    latest.current(abort.signal).then(
      (value) => !abort.signal.aborted && set({ value, loading: false }),
      (failure: Failure) => !abort.signal.aborted && set((s) => ({ ...s, failure, loading: false })),
    )
    return () => abort.abort()
  }, [key, round, out, signedIn])
  return { ...state, again: useCallback(() => setRound((n) => n + 1), []) }
}

// useGet asks one of the hub's operations.
export function useGet<T>(path: string | null, params: Params = {}): Asked<T> {
  return useAsked<T>(path === null ? null : path + JSON.stringify(params), (signal) => get<T>(path ?? '', params, signal))
}

// useWatch watches one of the hub's streams while somebody is signed in.
export function useWatch<T>(path: string, params: Params, event: string, on: (value: T) => void, failed: (why?: Failure) => void, lacks?: (list: Absent[]) => void): void {
  const latest = useRef({ on, failed, lacks })
  latest.current = { on, failed, lacks }
  const { out, round } = useSession()
  const key = path + JSON.stringify(params)
  useEffect(() => {
    if (out) return
    return watch<T>(path, params, event, (value) => latest.current.on(value), (why) => latest.current.failed(why), (list) => latest.current.lacks?.(list))
  }, [key, out, round]) // eslint-disable-line -- path and params are in key
}

// useWatched has the newest event of one of the hub's streams.
export function useWatched<T>(path: string, params: Params, event: string): Answer<T> {
  const [state, set] = useState<Answer<T>>({ loading: true })
  useWatch<T>(path, params, event, (value) => set({ value, loading: false }), (failure) => set((s) => ({ ...s, failure, loading: s.loading && !failure })))
  return state
}

// useAgain asks again so many milliseconds after each answer, however long that takes to come.
export function useAgain<T>({ loading, again }: Asked<T>, every: number): void {
  useEffect(() => {
    if (loading) return
    const timer = setTimeout(again, every)
    return () => clearTimeout(timer)
  }, [loading, again, every])
}

// useNow is the time, renewed each so many milliseconds.
export function useNow(every: number): number {
  const [now, set] = useState(Date.now())
  useEffect(() => {
    const timer = setInterval(() => set(Date.now()), every)
    return () => clearInterval(timer)
  }, [every])
  return now
}
