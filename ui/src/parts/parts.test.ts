import { expect, test } from 'vitest'
import type { Flow, Span } from '../api/types'
import { bytes, milliseconds, short, span as length } from '../format'
import { layout } from './graph'
import { align, common, complete, nameOf, stack, stepFor, unitOf } from './promql'
import { precise, shown, tree } from './waterfall'

test('numbers are short', () => {
  const cases: [number, string][] = [[0, '0'], [7, '7'], [0.1, '0.1'], [0.004, '0.0040'], [12.34, '12.3'], [999, '999'], [1000, '1.00k'], [999_600, '1.00M'], [-2500, '-2.50k'], [3.2e9, '3.20G']]
  for (const [n, want] of cases) expect(short(n)).toBe(want)
  expect(bytes(0)).toBe('0 B')
  expect(bytes(1536)).toBe('1.5 KiB')
  expect(milliseconds(0)).toBe('0')
  expect(milliseconds(0.25)).toBe('250 µs')
  expect(milliseconds(1500)).toBe('1.50 s')
  expect(length(3 * 86400_000)).toBe('3 d')
  expect(length(3473 * 86400_000)).toBe('9 y')
})

test('names are completed where the caret is', () => {
  const metrics = ['system_cpu_time', 'process_cpu', 'go_memory']
  const names = (expression: string, caret = expression.length) => complete(expression, caret, metrics, ['cpu_mode', 'host_name']).list.map((p) => p.text)
  expect(names('cpu')).toEqual(['system_cpu_time', 'process_cpu'])
  expect(names('ra')[0]).toBe('rate')
  expect(names('sum by (ho')).toEqual(['host_name'])
  expect(names('x{cpu')).toEqual(['cpu_mode'])
  expect(names('x{cpu_mode="cpu')).toEqual([])
  expect(names('x{a="{", ho')).toEqual(['host_name'])
  expect(names('go + 1', 2)).toEqual(['go_memory'])
  expect(names('')).toEqual([])
  expect(complete('sum(go', 6, metrics, []).from).toBe(4)
})

test('series become columns with gaps', () => {
  const s = { metric: { __name__: 'x', a: '1' }, values: [[10, '1'], [30, 'NaN'], [40, '4']] as [number, string][] }
  expect(align([s], 10, 40, 10)).toEqual([[10, 20, 30, 40], [1, null, null, 4]])
  expect(stack([[1, 2], [1, null], [2, 3]])).toEqual([[1, 2], [1, null], [3, 3]])
  expect(nameOf(s.metric)).toBe('x{a="1"}')
  expect(common([s, { ...s, metric: { __name__: 'y', a: '1', b: '2' } }])).toEqual(['a'])
  expect(stepFor(300_000)).toBe(1)
  expect(stepFor(3600_000)).toBe(15)
  expect(unitOf('rate(system_disk_io_bytes_total[1m])')).toBe('bytes')
  expect(unitOf('rate(system_cpu_time_seconds_total[1m])')).toBe('number')
})

const spanOf = (id: string, parent: string, start: string): Span => ({ span_id: id, parent_id: parent, start, service: 's', name: id, kind: 'server', duration_ms: 1, status: 'ok', attributes: {}, resource: {} })

test('spans become a tree, whatever their parents say', () => {
  const rows = tree([
    spanOf('a', '', '2026-01-01T00:00:00Z'),
    spanOf('c', 'a', '2026-01-01T00:00:00.002Z'),
    spanOf('b', 'a', '2026-01-01T00:00:00.001000500Z'),
    spanOf('d', 'b', '2026-01-01T00:00:00.003Z'),
    spanOf('lost', 'nobody', '2026-01-01T00:00:00.004Z'),
    spanOf('ring1', 'ring2', '2026-01-01T00:00:00.005Z'),
    spanOf('ring2', 'ring1', '2026-01-01T00:00:00.006Z'),
    spanOf('self', 'self', '2026-01-01T00:00:00.007Z'),
  ])
  expect(rows.map((r) => `${r.depth}${r.span.span_id}`)).toEqual(['0a', '1b', '2d', '1c', '0lost', '0self', '0ring1', '1ring2'])
  expect(rows.map((r) => r.descendants)).toEqual([3, 1, 0, 0, 0, 0, 1, 0])
  expect(rows[1]?.start).toBeCloseTo(1.0005, 3)
  expect(rows[4]?.orphan).toBe(true)
  expect(shown(rows, new Set(['b'])).map((r) => r.span.span_id)).not.toContain('d')
  expect(precise('2026-01-01T00:00:01.000000500Z') - precise('2026-01-01T00:00:01Z')).toBeCloseTo(0.0005, 3)
})

test('a trace may be deeper than a stack', () => {
  const spans = Array.from({ length: 20_000 }, (_, i) => spanOf(`s${i}`, i ? `s${i - 1}` : '', '2026-01-01T00:00:00Z'))
  expect(tree(spans).at(-1)?.depth).toBe(19_999)
})

test('the graph joins what is there', () => {
  const route = { pipeline: 'p', from: ['file', 'otlp'], through: ['sample'], to: ['otlp'], in: 3, from_rates: { file: 2 }, to_rates: { otlp: 3 } } as unknown as Flow
  const g = layout([route, { ...route, pipeline: 'q', outputs: ['p', 'nowhere'] }], [])
  expect(g.nodes.map((n) => n.id)).toEqual(['collectors.file', 'collectors.otlp', 'pipelines.p', 'pipelines.q', 'exporters.otlp'])
  expect(g.edges.length).toBe(7)
  for (const n of g.nodes) expect(n.y >= 0 && n.y + n.height <= g.height).toBe(true)
})

test('an edge to an exporter has what waited on disk as well, if it is known whose that was', () => {
  const route = (pipeline: string, to: string[]) => ({ pipeline, from: ['file'], through: [], to, in: 7, from_rates: {}, to_rates: { a: 1, b: 2 } })
  const exporter = (id: string) => ({
    component: 'exporters.' + id, plugin: 'otlp', healthy: true,
    spool: { bytes: 1, limit_bytes: 2, waiting: 3, replaying: true, in_rate: 0, out_rate: 500, full: false },
  })
  const rates = (routes: ReturnType<typeof route>[]) =>
    Object.fromEntries(layout(routes, [exporter('a'), exporter('b')]).edges.filter((e) => e.to.id.startsWith('exporters.')).map((e) => [e.from.title + e.to.title, e.rate]))
  expect(rates([route('p', ['a', 'b']), route('q', ['b'])])).toEqual({ pa: 501, pb: 2, qb: 2 })
  expect(rates([{ ...route('p', ['a']), to_rates: {} as never }])).toEqual({ pa: undefined })
})
