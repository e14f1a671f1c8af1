// Pages are addresses: what one looks at is in the address bar, can be sent to somebody, and the back button works.

import { type AnchorHTMLAttributes, type MouseEvent, useMemo, useSyncExternalStore } from 'react'
import { type Params, query } from './api/client'

const moved = new EventTarget()

function subscribe(f: () => void): () => void {
  window.addEventListener('popstate', f)
  moved.addEventListener('moved', f)
  return () => {
    window.removeEventListener('popstate', f)
    moved.removeEventListener('moved', f)
  }
}

// navigate goes to an address of these pages.
export function navigate(to: string, replace = false): void {
  if (to === location.pathname + location.search) return
  if (replace) history.replaceState(null, '', to)
  else history.pushState(null, '', to)
  moved.dispatchEvent(new Event('moved'))
}

export interface Place {
  path: string
  params: URLSearchParams
}

export function usePlace(): Place {
  const href = useSyncExternalStore(subscribe, () => location.pathname + location.search)
  return useMemo(() => {
    const [path = '/', search = ''] = href.split('?')
    return { path, params: new URLSearchParams(search) }
  }, [href])
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
