// The pipelines of an agent as a picture: collectors on the left, pipelines with their processors in the middle, exporters
// on the right. Edges carry rates, and move while records do. An exporter tells whether its far side is there, and how its
// disk queue fills and empties.

import type { Flow, ReportComponent } from '../api/types'
import { short } from '../format'
import { text } from '../text'
import { farSideOf, SpoolMark } from './spool'

interface Node {
  id: string
  title: string
  lines: string[]
  x: number
  y: number
  width: number
  height: number
  healthy: boolean
  cause?: string | undefined
  exporter?: ReportComponent | undefined
}

interface Edge {
  from: Node
  to: Node
  rate: number | undefined
}

const width = 200
const wide = 280 // of an exporter
const gap = 22
const between = 170
const head = 34
const line = 18

function height(lines: number): number {
  return head + lines * line + (lines ? 6 : 0)
}

// column stacks nodes around the middle.
function column(x: number, nodes: Omit<Node, 'x' | 'y'>[], middle: number): Node[] {
  const total = nodes.reduce((n, v) => n + v.height, 0) + gap * (nodes.length - 1)
  let y = middle - total / 2
  return nodes.map((n) => {
    const placed = { ...n, x, y }
    y += n.height + gap
    return placed
  })
}

const tall = (nodes: { height: number }[]) => nodes.reduce((n, v) => n + v.height + gap, -gap)

// layout places nodes and edges. The order of nodes follows that of the pipelines, so that few edges cross.
export function layout(routes: Flow[], components: ReportComponent[]): { nodes: Node[]; edges: Edge[]; width: number; height: number } {
  const by = new Map(components.map((c) => [c.component, c]))
  const node = (id: string, title: string, lines: string[]): Omit<Node, 'x' | 'y'> => {
    const c = by.get(id)
    return { id, title, lines, width, height: height(lines.length), healthy: c?.healthy ?? true, cause: c?.error }
  }
  const exporter = (id: string): Omit<Node, 'x' | 'y'> => {
    const n = node('exporters.' + id, id, [])
    const c = by.get(n.id)
    return { ...n, width: wide, height: height((farSideOf(c) ? 1 : 0) + (c?.spool ? 3 : 0)), exporter: c }
  }
  const unique = (ids: string[]) => [...new Set(ids)]
  const left = unique(routes.flatMap((r) => r.from ?? [])).map((id) => node('collectors.' + id, id, []))
  const right = unique(routes.flatMap((r) => r.to ?? [])).map(exporter)
  const mid = routes.map((r) => {
    const n = node('pipelines.' + r.pipeline, r.pipeline, r.through ?? [])
    const ill = (r.through ?? []).map((p) => by.get(`pipelines.${r.pipeline}.${p}`)).find((c) => c && !c.healthy)
    return ill ? { ...n, healthy: false, cause: ill.error } : n
  })
  const h = Math.max(tall(left), tall(mid), tall(right), 60) + 24
  const nodes = [...column(0, left, h / 2), ...column(width + between, mid, h / 2), ...column(2 * (width + between), right, h / 2)]
  const at = new Map(nodes.map((n) => [n.id, n]))
  const edges: Edge[] = []
  const join = (from: string, to: string, rate: number | undefined) => {
    const a = at.get(from)
    const b = at.get(to)
    if (a && b) edges.push({ from: a, to: b, rate })
  }
  for (const r of routes) {
    const p = 'pipelines.' + r.pipeline
    for (const c of r.from ?? []) join('collectors.' + c, p, r.from_rates?.[c])
    for (const x of r.to ?? []) join(p, 'exporters.' + x, outRate(r, x, routes, by.get('exporters.' + x)))
    for (const o of r.outputs ?? []) join(p, 'pipelines.' + o, undefined)
  }
  return { nodes, edges, width: 2 * width + wide + 2 * between, height: h }
}

// outRate is what an exporter delivers of a pipeline, in records per second, what had waited on disk included. Of whose that
// was nothing is known if several pipelines share the exporter: its node tells it then.
function outRate(r: Flow, exporter: string, routes: Flow[], c: ReportComponent | undefined): number | undefined {
  const rate = r.to_rates?.[exporter]
  const alone = routes.every((o) => o === r || !(o.to ?? []).includes(exporter))
  return rate === undefined ? undefined : rate + (alone ? (c?.spool?.out_rate ?? 0) : 0)
}

function path(e: Edge): string {
  const y1 = e.from.y + e.from.height / 2
  const y2 = e.to.y + e.to.height / 2
  const x1 = e.from.x + e.from.width
  if (e.to.x <= e.from.x) return `M${x1} ${y1} C${x1 + 90} ${y1} ${x1 + 90} ${y2} ${e.to.x + e.to.width} ${y2}` // to a pipeline beside
  const half = (e.to.x - x1) / 2
  return `M${x1} ${y1} C${x1 + half} ${y1} ${e.to.x - half} ${y2} ${e.to.x} ${y2}`
}

// pace is the seconds in which an edge's dashes move on by one: faster with each power of ten.
function pace(rate: number): string {
  return `${(1.6 / (1 + Math.log10(1 + rate))).toFixed(2)}s`
}

function clip(s: string, n: number): string {
  return s.length > n ? s.slice(0, n - 1) + '…' : s
}

// ending is the end of a cause's first line, where the root of it is, without the advice behind it.
function ending(cause: string, n: number): string {
  const first = cause.split(/\n|"?; /)[0] ?? ''
  return first.length > n ? '…' + first.slice(1 - n).trimStart() : first
}

export function Graph({ routes, components }: { routes: Flow[]; components: ReportComponent[] }) {
  const g = layout(routes, components)
  return (
    <div className="scroll">
      <svg className="graph" viewBox={`-12 0 ${g.width + 24} ${g.height}`} width={g.width + 24} height={g.height} role="img" aria-label={text.agent.graph}>
        {g.edges.map((e) => (
          <g key={e.from.id + e.to.id} className="edge">
            <path d={path(e)} className="lane" strokeWidth={1.5 + Math.min(5, Math.log10(1 + (e.rate ?? 0)))} />
            {(e.rate ?? 0) > 0 && <path d={path(e)} className="moving" style={{ animationDuration: pace(e.rate ?? 0) }} />}
            {e.rate !== undefined && (
              <text x={(e.from.x + e.from.width + e.to.x) / 2} y={(e.from.y + e.from.height / 2 + e.to.y + e.to.height / 2) / 2 - 7}>
                {text.agent.perSecond(short(e.rate))}
              </text>
            )}
          </g>
        ))}
        {g.nodes.map((n) => (
          <g key={n.id} data-node={n.id} transform={`translate(${n.x} ${n.y})`} className={`node ${n.healthy ? '' : 'ill'} ${farSideOf(n.exporter) ?? ''}`}>
            <title>{n.cause ? `${n.id}: ${n.cause}` : n.id}</title>
            <rect width={n.width} height={n.height} rx="7" />
            <circle cx="15" cy={head / 2} r="4" />
            <text x="28" y={head / 2 + 4.5} className="title">
              {clip(n.title, 22)}
            </text>
            {n.lines.map((l, i) => (
              <text key={l + i} x="28" y={head + i * line + 8} className="through">
                {clip(l, 24)}
              </text>
            ))}
            {n.exporter && <Delivery of={n.exporter} />}
          </g>
        ))}
      </svg>
    </div>
  )
}

// Delivery is what an exporter's node says beside its name.
function Delivery({ of: c }: { of: ReportComponent }) {
  const far = farSideOf(c)
  return (
    <>
      {far && (
        <text x="28" y={head + 8} className="far">
          {c.error && far !== 'up' ? text.spool.because(text.spool.farSide[far], ending(c.error, 22)) : text.spool.farSide[far]}
        </text>
      )}
      {c.spool && <SpoolMark spool={c.spool} x={28} y={head + 8 + (far ? line : 0)} width={wide - 28 - 12} line={line} />}
    </>
  )
}
