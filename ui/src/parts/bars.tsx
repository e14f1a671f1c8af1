// Log records over time, by severity. Dragging looks at a part of the time.

import { useRef, useState } from 'react'
import type { Histogram } from '../api/types'
import { clock, date, whole } from '../format'
import { text } from '../text'

export const severities = ['FATAL', 'ERROR', 'WARN', 'INFO', 'DEBUG', 'TRACE', 'unknown']

const height = 90

export function Bars({ histogram, zoom }: { histogram: Histogram; zoom: (from: number, to: number) => void }) {
  const [drag, setDrag] = useState<[number, number]>()
  const [over, setOver] = useState<number>()
  const box = useRef<SVGSVGElement>(null)
  const buckets = histogram.buckets ?? []
  const n = buckets.length
  const sums = buckets.map((b) => Object.values(b.counts).reduce((x, y) => x + y, 0))
  const top = Math.max(1, ...sums)
  const bucketAt = (clientX: number) => {
    const r = box.current?.getBoundingClientRect()
    return r ? Math.max(0, Math.min(n - 1, Math.floor(((clientX - r.left) / r.width) * n))) : 0
  }
  const timeOf = (i: number) => new Date(buckets[0]?.time ?? 0).getTime() + i * histogram.interval * 1000
  const end = () => {
    if (drag) zoom(timeOf(Math.min(...drag)), timeOf(Math.max(...drag) + 1))
    setDrag(undefined)
  }
  const b = over === undefined ? undefined : buckets[over]
  return (
    <div className="bars">
      <svg
        ref={box}
        viewBox={`0 0 ${n} ${height}`}
        preserveAspectRatio="none"
        height={height}
        role="img"
        aria-label={text.logs.histogram}
        onPointerDown={(e) => {
          e.currentTarget.setPointerCapture(e.pointerId)
          setDrag([bucketAt(e.clientX), bucketAt(e.clientX)])
        }}
        onPointerMove={(e) => {
          setOver(bucketAt(e.clientX))
          if (drag) setDrag([drag[0], bucketAt(e.clientX)])
        }}
        onPointerLeave={() => setOver(undefined)}
        onPointerUp={end}
      >
        <title>{text.logs.histogram}</title>
        {buckets.map((bucket, i) => {
          let y = height
          return severities.map((s) => {
            const count = bucket.counts[s] ?? 0
            if (!count) return null
            const h = Math.max(1, (count / top) * (height - 4))
            y -= h
            return <rect key={i + s} className={'severity ' + s} x={i + 0.08} width={0.84} y={y} height={h} />
          })
        })}
        {drag && <rect className="chosen" x={Math.min(...drag)} width={Math.abs(drag[1] - drag[0]) + 1} y={0} height={height} />}
      </svg>
      <div className="bars-axis faint small">
        <span>{n > 0 && moment(timeOf(0))}</span>
        <span>
          {b && over !== undefined
            ? `${clock(new Date(timeOf(over)))} · ${severities
                .filter((s) => b.counts[s])
                .map((s) => `${s} ${whole(b.counts[s] ?? 0)}`)
                .join(', ')}`
            : text.logs.total(whole(histogram.total))}
        </span>
        <span>{n > 0 && moment(timeOf(n))}</span>
      </div>
    </div>
  )
}

function moment(t: number): string {
  const d = new Date(t)
  return date(d) === date(new Date()) ? clock(d) : `${date(d)} ${clock(d)}`
}
