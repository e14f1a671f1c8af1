// A field for a PromQL expression that knows the names of metrics and labels.

import { useEffect, useRef, useState } from 'react'
import { flushSync } from 'react-dom'
import { promGet } from '../api/client'
import { useAsked } from '../api/use'
import { text } from '../text'
import { complete, type Proposal } from './promql'

export function Expression({ value, run }: { value: string; run: (expression: string) => void }) {
  const [typed, setTyped] = useState(value)
  const [caret, setCaret] = useState(-1) // -1: no list is shown
  const [chosen, setChosen] = useState(0)
  const field = useRef<HTMLInputElement>(null)
  const names = useAsked<string[]>('names', (signal) => promGet('/label/__name__/values', {}, signal))
  const labels = useAsked<string[]>('labels', (signal) => promGet('/labels', {}, signal))
  useEffect(() => setTyped(value), [value])
  const { from, list } = caret < 0 ? { from: 0, list: [] } : complete(typed, caret, names.value ?? [], labels.value ?? [])
  const accept = (p: Proposal) => {
    const insert = p.text + (p.kind === 'function' ? '(' : '')
    const next = typed.slice(0, from) + insert + typed.slice(caret)
    // At once, not with the next frame: by then the next key may have come.
    flushSync(() => {
      setTyped(next)
      setCaret(-1)
    })
    field.current?.focus()
    field.current?.setSelectionRange(from + insert.length, from + insert.length)
  }
  const key = (e: React.KeyboardEvent) => {
    if (list.length === 0) {
      if (e.key === 'ArrowDown') setCaret(field.current?.selectionStart ?? -1)
      return
    }
    const moves: Record<string, number> = { ArrowDown: 1, ArrowUp: -1 }
    const by = moves[e.key]
    const proposal = list[chosen]
    if (by) setChosen((chosen + by + list.length) % list.length)
    else if (e.key === 'Tab' && proposal) accept(proposal)
    else if (e.key === 'Escape') setCaret(-1)
    else return
    e.preventDefault()
    e.stopPropagation()
  }
  return (
    <form
      className="expression"
      onSubmit={(e) => {
        e.preventDefault()
        setCaret(-1)
        run(typed.trim())
      }}
    >
      <input
        ref={field}
        data-search
        className="mono"
        spellCheck={false}
        autoComplete="off"
        placeholder={text.metrics.query}
        aria-label={text.metrics.query}
        role="combobox"
        aria-expanded={list.length > 0}
        aria-controls="proposals"
        aria-activedescendant={list.length ? `proposal-${chosen}` : undefined}
        value={typed}
        onChange={(e) => {
          setTyped(e.target.value)
          setCaret(e.target.selectionStart ?? -1)
          setChosen(0)
        }}
        onKeyDown={key}
        onBlur={() => setTimeout(() => setCaret(-1), 150)}
      />
      {list.length > 0 && (
        <ul className="proposals" id="proposals" role="listbox">
          {list.map((p, i) => (
            <li key={p.kind + p.text} id={`proposal-${i}`} role="option" aria-selected={i === chosen} onMouseDown={(e) => {
                e.preventDefault() // the field keeps the focus
                accept(p)
              }}>
              <span className="mono">{p.text}</span> <span className="faint">{p.kind}</span>
            </li>
          ))}
        </ul>
      )}
      <button type="submit" className="main">
        {text.metrics.run}
      </button>
    </form>
  )
}
