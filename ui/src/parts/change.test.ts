import { expect, test } from 'vitest'
import type { AgentDetail } from '../api/types'
import { rename } from './draft'
import { happenings, ordersFor } from './life'
import { folded, lines } from './lines'

test('lines that have gone come before those that have come', () => {
  const short = (a: string, b: string) => lines(a, b).map((l) => ({ same: ' ', added: '+', removed: '-' })[l.kind] + l.text).join('|')
  expect(short('a\nb\nc\n', 'a\nb\nc\n')).toBe(' a| b| c')
  expect(short('a\nb\nc\n', 'a\nx\nc\n')).toBe(' a|-b|+x| c')
  expect(short('a\nb\nc\nd', 'b\nd\ne')).toBe('-a| b|-c| d|+e')
  expect(short('', 'a\n')).toBe('+a')
  expect(short('a\na\na', 'a')).toBe(' a|-a|-a')
  expect(lines('a\nb', 'b')).toEqual([{ kind: 'removed', text: 'a', old: 1 }, { kind: 'same', text: 'b', old: 2, now: 1 }])
  const long = Array.from({ length: 20 }, (_, i) => String(i))
  expect(folded(lines(long.join('\n'), [...long, 'x'].join('\n'))).map((l) => (typeof l === 'number' ? l : l.text))).toEqual([17, '17', '18', '19', 'x'])
})

test('lines of any two texts make them both again', () => {
  let seed = 7
  const random = (n: number) => (seed = (seed * 48271) % 2147483647) % n
  for (let round = 0; round < 200; round++) {
    const [a, b] = [0, 1].map(() => Array.from({ length: random(12) }, () => 'xyz'[random(3)]).join('\n')) as [string, string]
    const all = lines(a, b)
    const made = (kind: string) => all.filter((l) => l.kind !== kind).map((l) => l.text).join('\n')
    expect([made('added'), made('removed')]).toEqual([a, b])
  }
})

test('a text that names another document is told so, at its place', () => {
  expect(rename('document: web\n', 'web')).toBeUndefined()
  expect(rename('document: "web" # x\n', 'web')).toBeUndefined()
  expect(rename('document:\n', 'web')).toBeUndefined()
  expect(rename('document: other\n', undefined)).toBeUndefined()
  expect(rename('# x\ndocument: other\n', 'web')).toMatchObject({ line: 2, column: 1, message: expect.stringContaining('other') })
})

test('what the agent tells of its life stands among what the hub saw', () => {
  const at = (s: number) => new Date(s * 1000).toISOString()
  const events = [{ time: at(40), kind: 'resumed' }, { time: at(35), kind: 'configured' }, { time: at(30), kind: 'paused' }, { time: at(2), kind: 'paused' }]
  const history = [{ time: at(10), from: 'initializing', to: 'running', event: 'ready' }, { time: at(29), from: 'running', to: 'paused', event: 'hold', cause: 'operator: ticket' }]
  expect(happenings(events, history).map((h) => `${h.kind} ${h.cause ?? ''}`.trim())).toEqual(['configured', 'paused hold: operator: ticket', 'running ready', 'paused'])
  expect(happenings(events, []).length).toBe(4)
})

test('orders that make sense', () => {
  const agent = (more: object) => ({ type: 'creel', labels: {}, intended: { life: { state: 'running' } }, ...more }) as unknown as AgentDetail
  const names = (more: object) => ordersFor(agent(more)).map((o) => o.name + (o.refused ? '!' : ''))
  expect(names({})).toEqual(['pause', 'drain', 'restart', 'stop'])
  expect(names({ intended: { life: { state: 'paused', holds: [{ by: 'operator' }] } } })[0]).toBe('resume')
  expect(names({ intended: { life: { state: 'paused', holds: [{ by: 'requires.disk' }] } } })[0]).toBe('pause')
  expect(names({ labels: { 'creel.role': 'hub' } })).toEqual(['pause', 'drain', 'restart!', 'stop!'])
  expect(names({ type: 'otelcol' })).toEqual([])
})
