import { useEffect, useRef } from 'react'

// fieldOf is where a key was pressed, in the editor's shadow as well.
const fieldOf = (e: KeyboardEvent) => (e.composedPath()[0] ?? e.target) as HTMLElement

// typing reports whether keys belong to a field.
function typing(e: KeyboardEvent): boolean {
  const t = fieldOf(e)
  return t.isContentEditable || ['INPUT', 'TEXTAREA', 'SELECT'].includes(t.tagName)
}

// useKeys calls the function of a key, or of two in a row such as "g f". Fields keep their keys, but for Escape.
export function useKeys(keys: Record<string, () => void>): void {
  const last = useRef({ key: '', at: 0 }) // it outlives what is drawn between two keys
  useEffect(() => {
    const down = (e: KeyboardEvent) => {
      if (e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented) return
      if (typing(e)) {
        if (e.key === 'Escape') fieldOf(e).blur()
        return
      }
      const two = e.timeStamp - last.current.at < 1000 ? `${last.current.key} ${e.key}` : e.key
      const f = keys[two] ?? keys[e.key]
      last.current = { key: e.key, at: e.timeStamp }
      if (f) {
        e.preventDefault()
        f()
      }
    }
    document.addEventListener('keydown', down)
    return () => document.removeEventListener('keydown', down)
  })
}

// useRows moves the focus among the rows of a list with j and k.
export function useRows(selector: string): void {
  const move = (by: number) => {
    const rows = [...document.querySelectorAll<HTMLElement>(selector)]
    const at = rows.indexOf(document.activeElement as HTMLElement)
    const next = rows[at < 0 ? 0 : Math.max(0, Math.min(rows.length - 1, at + by))]
    next?.focus()
    next?.scrollIntoView({ block: 'nearest' })
  }
  useKeys({ j: () => move(1), k: () => move(-1) })
}
