import { expect, test } from 'vitest'
import schema from '../../../docs/reference/creel.schema.json'
import { explain, help, propose, type Schema } from './schema'
import { scan, valueOf } from './yaml'

const root = { ...(schema as unknown as Schema) }
root.properties = { ...root.properties, document: { type: 'string', description: 'Its name.' }, place: { enum: ['all'], default: 'all' } }
root.required = ['document']

// The place in a text is at its ‸.
const cut = (text: string): [string, number] => [text.replace('‸', ''), text.indexOf('‸')]
const where = (text: string) => {
  const [whole, place] = cut(text)
  const { spot } = scan(whole, place)
  return spot && `${spot.what} ${spot.path.join('.')} ${whole.slice(spot.from, place)}`.trim()
}
const proposed = (text: string) => propose(root, ...cut(text))?.list.map((p) => p.text) ?? []

test('a place in a text has a path, however little of the text is there', () => {
  const cases: [string, string | undefined][] = [
    ['‸', 'key'],
    ['sel‸', 'key  sel'],
    ['selector: ‸', 'value selector'],
    ['selector: site == "n‸', 'value selector site == "n'],
    ['selector: "a ‸\n', 'value selector "a'],
    ['exporters:\n  ‸', 'key exporters'],
    ['exporters:\n  otlp/hub:\n    ‸', 'key exporters.otlp/hub'],
    ['exporters:\n  otlp/hub:\n  ‸', 'key exporters'],
    ['exporters:\n  otlp/hub:\n    endpoint: x\n    co‸\n    tls:\n      insecure: true', 'key exporters.otlp/hub co'],
    ['exporters:\n  otlp/hub:\n    endpoint: x\n‸', 'key'],
    ['exporters:\n  otlp/hub: {endpoint: x, ‸}', 'key exporters.otlp/hub'],
    ['exporters:\n  otlp/hub: {endpoint: x, tls: {‸', 'key exporters.otlp/hub.tls'],
    ['exporters:\n  otlp/hub: {endpoint: x,\n    tls: {insecure: ‸', 'value exporters.otlp/hub.tls.insecure'],
    ['exporters: {"a": {x: "}, {"}, b: {‸', 'key exporters.b'],
    ['{"exporters": {"a": {"x": 1}, "b": {"y":‸', 'value exporters.b.y'],
    ['pipelines:\n  logs: {from: [a, b‸], to: [c]}', 'value pipelines.logs.from.1 b'],
    ['pipelines:\n  logs:\n    from:\n    - a\n    - b‸', 'value pipelines.logs.from.1 b'],
    ['pipelines:\n  logs:\n    from:\n    - a\n    to‸', 'key pipelines.logs to'],
    ['a:\n  - x: 1\n    ‸', 'key a.0'],
    ['a:\n  - x: 1\n  - y: ‸', 'value a.1.y'],
    ['a: |\n  b: 1\n  c: 2\nd: ‸', 'value d'],
    ['a: |\n  b: ‸', undefined],
    ['a: "x\n  y: z"\nb: ‸', 'value b'],
    ['# a: ‸', undefined],
    ['a: 1 # b: ‸', undefined],
    ['a: {b: 1} # c\nd: {‸', 'key d'],
    ['a: [x, # ]\n  y‸', 'value a.1 y'],
  ]
  for (const [text, want] of cases) expect(where(text), text).toBe(want)
})

test('a text has its keys, each where it stands', () => {
  const text = 'document: web # here\na:\n  - b: {c: 1, "d": [{e: 2}]}\n    f: |\n      g: 3\n"h i": 4\n'
  const { entries } = scan(text)
  expect(entries.map((e) => e.path.join('.'))).toEqual(['document', 'a', 'a.0.b', 'a.0.b.c', 'a.0.b.d', 'a.0.b.d.0.e', 'a.0.f', 'h i'])
  expect(entries.map((e) => text.slice(e.from, e.to))).toEqual(['document', 'a', 'b', 'c', '"d"', 'e', 'f', '"h i"'])
  expect(entries.slice(0, 1).map((e) => valueOf(text, e))).toEqual(['web'])
  for (let i = 0; i <= text.length; i++) scan(text, i) // ends anywhere
})

test('keys are proposed where they may stand, but for those that are there', () => {
  expect(proposed('‸')[0]).toBe('document')
  expect(proposed('document: a\n‸')).not.toContain('document')
  expect(proposed('exporters:\n  ‸')).toContain('otlp')
  expect(proposed('exporters:\n  otlp: {}\n  ‸')).toContain('otlp/')
  expect(proposed('exporters:\n  otlp/hub:\n    ‸')).toContain('endpoint')
  expect(proposed('exporters:\n  otlp/hub:\n    endpoint: x\n    ‸\n    tls: {}')).not.toContain('tls')
  expect(proposed('exporters:\n  otlp/hub: {endpoint: x, delivery: {retry: {‸')).toContain('initial')
  expect(proposed('exporters:\n  nothing:\n    ‸')).toEqual([])
  expect(proposed('selector: ‸')).toEqual([])
})

test('values are proposed: of a set, true and false, the default, what a pipeline can name', () => {
  expect(proposed('place: ‸')).toEqual(['all'])
  expect(proposed('pipelines:\n  a: {ack: ‸')).toEqual(['delivered', 'process', 'disk', 'memory'])
  expect(proposed('exporters:\n  otlp: {tls: {insecure: ‸')).toEqual(['true', 'false'])
  expect(proposed('agent: {drain: ‸')).toEqual(['10s'])
  const own = 'collectors: {file/a: {}}\nexporters:\n  "null": {}\n  otlp/b: {}\npipelines:\n  a:\n    '
  expect(proposed(own + 'from: [‸')).toEqual(['file/a'])
  expect(proposed(own + 'to:\n    - ‸')).toEqual(['"null"', 'otlp/b'])
})

test('help says what the schema knows', () => {
  const of = (...path: string[]) => help(root, path)?.facts.join(', ')
  expect(of('agent', 'drain')).toBe('duration, such as 10s, default 10s')
  expect(of('exporters', 'otlp', 'endpoint')).toMatch(/^text/)
  expect(of('exporters', 'otlp', 'delivery', 'adaptive', 'max')).toBe('integer, default 64, at least 1, at most 256')
  expect(help(root, ['exporters', 'nothing'])).toBeUndefined()
  const found = explain(root, ...cut('exporters:\n  otlp/hub: {end‸point: x}'))
  expect(found?.path.join('.')).toBe('exporters.otlp/hub.endpoint')
  expect(found?.help.doc).not.toBe('')
  expect(explain(root, ...cut('exporters:\n  otlp/hub: {endpoint: x‸x}'))).toBeUndefined()
})
