// A line chart of series over time, with its legend. Dragging looks at a part of the time.

import { useEffect, useMemo, useRef, useState } from 'react'
import uPlot from 'uplot'
import { bytes, clock, milliseconds, short, stamp } from '../format'
import { text } from '../text'
import { useTheme } from '../theme'
import { align, common, nameOf, type Series, stack, type unitOf } from './promql'

const palette = ['#1f9e91', '#d98324', '#5d7fe0', '#c7518d', '#7aa63c', '#8f6bd1', '#d1584c', '#3aa6cf', '#b59a2b', '#7d8894']
export const mostSeries = 40

export type Unit = ReturnType<typeof unitOf>

export function write(unit: Unit, v: number): string {
  switch (unit) {
    case 'bytes':
      return bytes(v)
    case 'percent':
      return (v * 100).toFixed(Math.abs(v) < 0.1 ? 1 : 0) + ' %'
    case 'seconds':
      return Math.abs(v) > 300 ? short(v) + ' s' : milliseconds(v * 1000)
  }
  return short(v)
}

interface Props {
  series: Series[]
  from: number // seconds
  to: number
  step: number
  unit: Unit
  height: number
  stacked?: boolean
  legend?: 'table' | 'line'
  label: string
  zoom: (from: number, to: number) => void // milliseconds
}

export function Chart({ series: all, from, to, step, unit, height, stacked, legend = 'table', label, zoom }: Props) {
  const box = useRef<HTMLDivElement>(null)
  const [at, setAt] = useState<number | null>(null) // the index under the cursor
  const [strong, setStrong] = useState<number | null>(null)
  const { dark } = useTheme()
  const series = useMemo(() => all.slice(0, mostSeries), [all])
  const columns = useMemo(() => align(series, from, to, step), [series, from, to, step])
  const plot = useRef<uPlot>(undefined)
  const zooming = useRef(zoom)
  zooming.current = zoom
  const shape = `${series.map((s) => nameOf(s.metric)).join('\n')} ${unit} ${height} ${stacked} ${dark}`
  useEffect(() => {
    if (!box.current) return
    const options = optionsFor({ names: series.map((s) => nameOf(s.metric)), unit, height, stacked: !!stacked, dark, width: box.current.clientWidth, setAt, zoom: (a, b) => zooming.current(a, b) })
    const u = new uPlot(options, (stacked ? stack(columns) : columns) as uPlot.AlignedData, box.current)
    plot.current = u
    const resized = new ResizeObserver(() => box.current && u.setSize({ width: box.current.clientWidth, height }))
    resized.observe(box.current)
    return () => {
      resized.disconnect()
      u.destroy()
      plot.current = undefined
    }
  }, [shape]) // eslint-disable-line -- data is set below
  useEffect(() => {
    plot.current?.setData((stacked ? stack(columns) : columns) as uPlot.AlignedData)
  }, [columns, stacked])
  useEffect(() => {
    plot.current?.setSeries(strong === null ? null : strong + 1, { focus: true })
  }, [strong])
  return (
    <figure className="chart" aria-label={label}>
      <div ref={box} style={{ height }} />
      <Legend series={series} columns={columns} at={at} unit={unit} kind={legend} strong={setStrong} />
      {all.length > mostSeries && <p className="faint small">{text.metrics.shown(mostSeries, all.length)}</p>}
    </figure>
  )
}

// binarySteps are what bytes are written in.
const binarySteps = Array.from({ length: 44 }, (_, i) => 2 ** i)

interface Shape {
  names: string[]
  unit: Unit
  height: number
  width: number
  stacked: boolean
  dark: boolean
  setAt: (i: number | null) => void
  zoom: (from: number, to: number) => void
}

function optionsFor(s: Shape): uPlot.Options {
  const ink = s.dark ? '#8b97a3' : '#66717c'
  const grid = { stroke: s.dark ? '#2a3138' : '#e6e9ec', width: 1 }
  const axis = { stroke: ink, grid, ticks: { ...grid, size: 4 }, font: '11px system-ui, sans-serif' }
  return {
    width: s.width,
    height: s.height,
    legend: { show: false },
    cursor: { drag: { x: true, y: false, setScale: false }, focus: { prox: 24 }, points: { size: 6 } },
    focus: { alpha: 0.25 },
    scales: { x: { time: true }, y: { range: (_, min, max) => range(min, max) } },
    axes: [
      { ...axis, space: 80, values: (_, ticks, __, ___, step) => ticks.map((t) => (step >= 86400 ? stamp(t * 1000).slice(5, 10) : clock(new Date(t * 1000)).slice(0, step < 60 ? 8 : 5))) },
      { ...axis, size: 66, ...(s.unit === 'bytes' ? { incrs: binarySteps } : {}), values: (_, ticks) => distinct(ticks.map((t) => write(s.unit, t))) },
    ],
    series: [
      {},
      ...s.names.map((_, i): uPlot.Series => {
        const color = palette[i % palette.length] ?? '#888'
        return { stroke: color, width: 1.5, points: { show: false }, spanGaps: false, ...(s.stacked ? { fill: color + '40' } : {}) }
      }),
    ],
    // The area between a series and the one below it: later ones are drawn first.
    ...(s.stacked ? { bands: s.names.slice(1).map((_, i) => ({ series: [i + 2, i + 1] as [number, number] })) } : {}),
    hooks: {
      setCursor: [(u) => s.setAt(u.cursor.idx ?? null)],
      setSelect: [
        (u) => {
          if (u.select.width < 8) return
          s.zoom(u.posToVal(u.select.left, 'x') * 1000, u.posToVal(u.select.left + u.select.width, 'x') * 1000)
          u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false)
        },
      ],
    },
  }
}

// distinct leaves out what would say the same twice: where little changes, rounded numbers do.
const distinct = (labels: string[]) => labels.map((l, i) => (l === labels[i - 1] ? '' : l))

// range of the axis: from zero as a rule, with room above.
function range(min: number | null, max: number | null): [number, number] {
  if (min === null || max === null) return [0, 1]
  const low = min >= 0 && min < max * 0.8 ? 0 : min
  if (low === max) return max === 0 ? [0, 1] : [Math.min(0, max * 1.1), Math.max(0, max * 1.1)]
  return [low < 0 ? low - (max - low) * 0.05 : low, max + (max - low) * 0.05]
}

function Legend({ series, columns, at, unit, kind, strong }: { series: Series[]; columns: (number | null)[][]; at: number | null; unit: Unit; kind: 'table' | 'line'; strong: (i: number | null) => void }) {
  const hidden = common(series)
  const last = (c: (number | null)[]) => c.findLast((v) => v !== null) ?? null
  const shown = (i: number) => {
    const column = columns[i + 1] ?? []
    const v = at === null ? last(column) : (column[at] ?? null)
    return v === null ? '–' : write(unit, v)
  }
  const name = (s: Series) => nameOf(s.metric, kind === 'line' ? [...hidden, '__name__', 'creel_agent_id'] : hidden).replace(/^\{(?:\w+=)?"?([^"=]*)"?\}$/, '$1')
  const time = at === null ? undefined : columns[0]?.[at]
  if (kind === 'line')
    return (
      <figcaption className="legend">
        {series.slice(0, 12).map((s, i) => (
          <span key={nameOf(s.metric)} onMouseEnter={() => strong(i)} onMouseLeave={() => strong(null)}>
            <i style={{ background: palette[i % palette.length] }} />
            {name(s) || text.metrics.series} <b>{shown(i)}</b>
          </span>
        ))}
      </figcaption>
    )
  return (
    <div className="scroll legend-table">
      <table className="rows">
        <thead>
          <tr>
            <th>
              {text.metrics.series} {hidden.length > 0 && <span className="faint">{nameOf(pick(series[0]?.metric ?? {}, hidden))}</span>}
            </th>
            <th className="number">{time ? clock(new Date(time * 1000)) : text.metrics.last}</th>
            <th className="number">{text.metrics.max}</th>
          </tr>
        </thead>
        <tbody>
          {series.map((s, i) => (
            <tr key={nameOf(s.metric)} onMouseEnter={() => strong(i)} onMouseLeave={() => strong(null)}>
              <td className="mono">
                <i style={{ background: palette[i % palette.length] }} /> {nameOf(s.metric, hidden)}
              </td>
              <td className="number">{shown(i)}</td>
              <td className="number">{write(unit, (columns[i + 1] ?? []).reduce<number>((m, v) => Math.max(m, v ?? -Infinity), -Infinity))}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

function pick(metric: Record<string, string>, keys: string[]): Record<string, string> {
  return Object.fromEntries(Object.entries(metric).filter(([k]) => keys.includes(k)))
}
