// Numbers and times as people read them.

import { text } from './text'

const steps = ['', 'k', 'M', 'G', 'T', 'P']

// short writes a number with three digits and a unit of thousands.
export function short(n: number): string {
  const sign = n < 0 ? '-' : ''
  let x = Math.abs(n)
  if (x < 1000) return sign + (x >= 100 || Number.isInteger(x) ? String(Math.round(x)) : x >= 10 ? x.toFixed(1) : x >= 0.095 ? x.toFixed(1) : x === 0 ? '0' : x.toPrecision(2))
  let i = 0
  while (x >= 999.5 && i < steps.length - 1) {
    x /= 1000
    i++
  }
  return sign + (x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x.toFixed(2)) + steps[i]
}

const binary = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

export function bytes(n: number): string {
  let x = Math.abs(n)
  let i = 0
  while (x >= 1023.5 && i < binary.length - 1) {
    x /= 1024
    i++
  }
  return (n < 0 ? '-' : '') + (x >= 100 || Number.isInteger(x) ? x.toFixed(0) : x.toFixed(1)) + ' ' + binary[i]
}

export function whole(n: number): string {
  return Math.round(n).toLocaleString('en-US')
}

// milliseconds writes a duration.
export function milliseconds(ms: number): string {
  if (ms === 0) return '0'
  if (ms < 1) return `${(ms * 1000).toFixed(ms < 0.01 ? 1 : 0)} µs`
  if (ms < 1000) return `${ms.toFixed(ms < 10 ? 2 : ms < 100 ? 1 : 0)} ms`
  if (ms < 60_000) return `${(ms / 1000).toFixed(2)} s`
  return span(ms)
}

// span writes a length of time roughly.
export function span(ms: number): string {
  const s = Math.round(ms / 1000)
  if (s < 60) return `${s} s`
  if (s < 3600) return `${Math.floor(s / 60)} min`
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h`
  if (s < 2 * 365 * 86400) return `${Math.floor(s / 86400)} d`
  return `${Math.floor(s / (365 * 86400))} y`
}

export function ago(then: string | number, now: number): string {
  const ms = now - new Date(then).getTime()
  return ms < 2500 ? text.time.now : text.time.ago(span(ms))
}

const two = (n: number) => String(n).padStart(2, '0')

export function date(t: Date): string {
  return `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())}`
}

export function clock(t: Date, withMs = false): string {
  return `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}` + (withMs ? '.' + String(t.getMilliseconds()).padStart(3, '0') : '')
}

export function stamp(t: string | number | Date, withMs = false): string {
  const d = new Date(t)
  return `${date(d)} ${clock(d, withMs)}`
}

// since writes a time of today without its date.
export function since(then: string, now = new Date()): string {
  const d = new Date(then)
  return date(d) === date(now) ? clock(d) : stamp(d)
}
