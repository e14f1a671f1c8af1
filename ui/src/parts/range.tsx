// The time that a page looks at: the last so many minutes, or from here to there.

import { useEffect, useState } from 'react'
import { change, navigate, type Place } from '../router'
import { date, clock } from '../format'
import { text } from '../text'

const lengths: Record<string, number> = { '5m': 300, '15m': 900, '1h': 3600, '6h': 21600, '24h': 86400, '7d': 604800 }

// A Range is in milliseconds since 1970. key changes when something else is looked at, with time if it moves along.
export interface Range {
  from: number
  to: number
  live: boolean
  key: string
}

const refreshEvery = 5000

// useRange reads the range from the address. A live one moves on by itself.
export function useRange(place: Place, normal = '1h'): Range & { refresh: () => void } {
  const [now, setNow] = useState(Date.now)
  const from = place.params.get('from')
  const to = place.params.get('to')
  const live = !from || !to
  const last = place.params.get('last') ?? normal
  useEffect(() => {
    if (!live) return
    setNow(Date.now())
    const timer = setInterval(() => document.visibilityState === 'visible' && setNow(Date.now()), refreshEvery)
    return () => clearInterval(timer)
  }, [live, last])
  const refresh = () => setNow(Date.now())
  if (!live) return { from: Number(from), to: Number(to), live, key: `${from}-${to}-${now}`, refresh }
  const length = (lengths[last] ?? 3600) * 1000
  return { from: now - length, to: now, live, key: `${last}-${now}`, refresh }
}

// setRange goes to another range, of the same page.
export function setRange(place: Place, from: number, to: number): void {
  navigate(change(place, { from: Math.floor(from), to: Math.ceil(to), last: undefined }))
}

const local = (ms: number) => `${date(new Date(ms))}T${clock(new Date(ms))}`

export function RangePicker({ place, range, normal = '1h' }: { place: Place; range: Range & { refresh: () => void }; normal?: string }) {
  const choose = (value: string) => {
    if (value === 'custom') setRange(place, range.from, range.to)
    else navigate(change(place, { last: value, from: undefined, to: undefined }))
  }
  const edit = (from: string, to: string) => {
    const a = new Date(from).getTime()
    const b = new Date(to).getTime()
    if (a < b) setRange(place, a, b)
  }
  return (
    <div className="range">
      <select aria-label={text.range.label} value={range.live ? (place.params.get('last') ?? normal) : 'custom'} onChange={(e) => choose(e.target.value)}>
        {Object.entries(text.range.last).map(([k, v]) => (
          <option key={k} value={k}>
            {v}
          </option>
        ))}
        <option value="custom">{text.range.custom}</option>
      </select>
      {!range.live && (
        <>
          <input type="datetime-local" step="1" aria-label={text.range.from} value={local(range.from)} onChange={(e) => edit(e.target.value, local(range.to))} />
          <input type="datetime-local" step="1" aria-label={text.range.to} value={local(range.to)} onChange={(e) => edit(local(range.from), e.target.value)} />
        </>
      )}
      <button type="button" onClick={range.refresh} title={text.range.refresh} aria-label={text.range.refresh}>
        ⟳
      </button>
    </div>
  )
}
