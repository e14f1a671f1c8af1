// Pages are addresses: what one looks at is in the address bar, can be sent to somebody, and the back button works.

import { type AnchorHTMLAttributes, type MouseEvent, useEffect, useMemo, useSyncExternalStore } from 'react'
import { type Params, query } from './api/client'

const moved = new EventTarget()
const href = () => location.pathname + location.search
let here: string | undefined // the address that is shown
const shown = () => (here ??= href())
let mayLeave: (to: string) => boolean = () => true

function subscribe(f: () => void): () => void {
  const back = () => {
    if (!mayLeave(href())) return history.pushState(null, '', shown())
    here = href()
    f()
  }
  window.addEventListener('popstate', back)
  moved.addEventListener('moved', f)
  return () => {
    window.removeEventListener('popstate', back)
    moved.removeEventListener('moved', f)
  }
}

// navigate goes to an address of these pages. With sure, nobody is asked whether the present page may be left.
export function navigate(to: string, replace = false, sure = false): void {
  if (to === href() || (!sure && !mayLeave(to))) return
  if (replace) history.replaceState(null, '', to)
  else history.pushState(null, '', to)
  here = href()
  moved.dispatchEvent(new Event('moved'))
}

// useGuard asks the question before the present path is left, while there is something to lose.
export function useGuard(something: boolean, question: string): void {
  useEffect(() => {
    if (!something) return
    const path = location.pathname
    const unload = (e: BeforeUnloadEvent) => e.preventDefault()
    mayLeave = (to) => to.split(/[?#]/)[0] === path || confirm(question)
    window.addEventListener('beforeunload', unload)
    return () => {
      mayLeave = () => true
      window.removeEventListener('beforeunload', unload)
    }
  }, [something, question])
}

export interface Place {
  path: string
  params: URLSearchParams
}

export function usePlace(): Place {
  const address = useSyncExternalStore(subscribe, shown)
  return useMemo(() => {
    const [path = '/', search = ''] = address.split('?')
    return { path, params: new URLSearchParams(search) }
  }, [address])
}

// change returns the present address with some parameters changed; undefined removes one.
export function change(place: Place, params: Params): string {
  const all: Record<string, string | string[]> = {}
  for (const k of new Set(place.params.keys())) all[k] = place.params.getAll(k)
  return place.path + query({ ...all, ...params })
}

export function Link({ to, onClick, ...rest }: AnchorHTMLAttributes<HTMLAnchorElement> & { to: string }) {
  const go = (e: MouseEvent<HTMLAnchorElement>) => {
    onClick?.(e)
    if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey) return
    e.preventDefault()
    navigate(to)
  }
  return <a href={to} onClick={go} {...rest} />
}
