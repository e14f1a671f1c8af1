// Light, dark, or as the system has it.

import { useSyncExternalStore } from 'react'

export type Theme = 'auto' | 'light' | 'dark'

const key = 'creel-theme'
const changed = new EventTarget()
const system = window.matchMedia('(prefers-color-scheme: dark)')

function chosen(): Theme {
  const t = localStorage.getItem(key)
  return t === 'light' || t === 'dark' ? t : 'auto'
}

function apply(): void {
  const t = chosen()
  document.documentElement.dataset.theme = t === 'auto' ? (system.matches ? 'dark' : 'light') : t
  changed.dispatchEvent(new Event('changed'))
}

export function startTheme(): void {
  system.addEventListener('change', apply)
  apply()
}

export function nextTheme(): void {
  const next = { auto: 'light', light: 'dark', dark: 'auto' }[chosen()]
  localStorage.setItem(key, next)
  apply()
}

function subscribe(f: () => void): () => void {
  changed.addEventListener('changed', f)
  return () => changed.removeEventListener('changed', f)
}

export function useTheme(): { theme: Theme; dark: boolean } {
  const theme = useSyncExternalStore(subscribe, chosen)
  const dark = useSyncExternalStore(subscribe, () => document.documentElement.dataset.theme === 'dark')
  return { theme, dark }
}
