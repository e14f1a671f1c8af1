// The disk queue of an exporter, and whether its far side is there: in words, and as a bar. What is shown keeps its size
// while its numbers change.

import type { ReportComponent, ReportSpool } from '../api/types'
import { bytes, short, since, span, stamp, whole } from '../format'
import { text } from '../text'

const t = text.spool

// Fill is what is known of how full a disk queue is and where it goes: of one exporter, or of the worst of an agent.
export type Fill = Pick<ReportSpool, 'full' | 'full_in' | 'replaying' | 'empty_in' | 'waiting'> & Partial<Pick<ReportSpool, 'error' | 'out_rate'>>

export type Mood = 'bad' | 'ill' | 'plain'

// moodOf is how bad it is: there is no room or the disk fails, there will be no room, or neither.
export function moodOf(s: Fill): Mood {
  return s.full || s.error ? 'bad' : fills(s) ? 'ill' : 'plain'
}

// fills is in how many seconds there is no room; 0 if nothing waits: what fills the disk then is thrown away on its own.
const fills = (s: Fill) => (s.waiting && s.full_in) || 0

const left = (seconds: number) => span(Math.max(1, seconds) * 1000)

// told says what a disk queue does, such as "fills in 12 min" or "full, replaying 5.00k/s, 3 min left".
export function told(s: Fill): string {
  const room = s.full ? t.full : fills(s) ? t.fills(left(fills(s))) : ''
  const replay = s.replaying ? t.replaying(s.out_rate ? text.agent.perSecond(short(s.out_rate)) : '') : ''
  const rest = s.replaying && s.empty_in ? t.left(left(s.empty_in)) : ''
  return [room, replay, rest].filter(Boolean).join(', ') || (s.waiting ? t.waits : t.nothing)
}

// waiting says how many records wait, and since when.
export function waiting(s: ReportSpool, count: (n: number) => string): string {
  if (!s.waiting) return ''
  return s.oldest ? t.waitingSince(count(s.waiting), since(s.oldest)) : t.waiting(count(s.waiting))
}

export type FarSide = 'up' | 'trying' | 'failing' | 'down'

// farSideOf is whether what an exporter sends to is there, as its breaker and its health say; none of what is no exporter.
export function farSideOf(c: ReportComponent | undefined): FarSide | undefined {
  if (!c?.component.startsWith('exporters.')) return undefined
  if (c.breaker === 'open') return 'down'
  if (c.breaker === 'half-open') return 'trying'
  return c.healthy ? 'up' : 'failing'
}

// Meter is a bar of how full a disk queue is.
export function Meter({ bytes: value, limit, mood }: { bytes: number; limit: number; mood: Mood }) {
  const said = text.fleet.queueOf(bytes(value), bytes(limit))
  return (
    <span className={'fill ' + mood} role="meter" aria-label={t.meter} aria-valuemin={0} aria-valuemax={limit} aria-valuenow={value} aria-valuetext={said}>
      <i style={{ width: `${share(value, limit) * 100}%` }} />
    </span>
  )
}

// share is the part that is full, 0 to 1.
export function share(value: number, limit: number): number {
  return limit > 0 ? Math.min(1, Math.max(0, value / limit)) : 0
}

// SpoolCell is the disk queue of a component in a table.
export function SpoolCell({ spool: s }: { spool: ReportSpool | undefined }) {
  if (!s) return null
  const mood = moodOf(s)
  return (
    <div className="spool">
      <Meter bytes={s.bytes} limit={s.limit_bytes} mood={mood} /> <span className="amount">{text.fleet.queueOf(bytes(s.bytes), bytes(s.limit_bytes))}</span>
      <div className={'told ' + mood}>{told(s)}</div>
      <div className="told" title={s.oldest && stamp(s.oldest)}>
        {waiting(s, whole)}
      </div>
      {s.error && <div className="error">{s.error}</div>}
    </div>
  )
}

// SpoolMark is the disk queue of an exporter in a picture: a bar and two lines of the height given.
export function SpoolMark({ spool: s, x, y, width, line }: { spool: ReportSpool; x: number; y: number; width: number; line: number }) {
  const mood = moodOf(s)
  const bar = Math.round(width * 0.45)
  return (
    <g className={'spooled ' + mood}>
      <title>{[told(s), waiting(s, whole), s.error].filter(Boolean).join('\n')}</title>
      <rect className="room" x={x} y={y - 9} width={bar} height="9" rx="2" />
      <rect className="used" x={x} y={y - 9} width={bar * share(s.bytes, s.limit_bytes)} height="9" rx="2" />
      <text x={x + width} y={y} className="amount">
        {text.fleet.queueOf(bytes(s.bytes), bytes(s.limit_bytes))}
      </text>
      <text x={x} y={y + line} className="told">
        {told(s)}
      </text>
      <text x={x} y={y + 2 * line} className="waiting">
        {waiting(s, short)}
      </text>
    </g>
  )
}
