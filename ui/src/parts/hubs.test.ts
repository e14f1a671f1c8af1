import { expect, test } from 'vitest'
import type { ClusterHub } from '../api/types'
import { hubName, type Roll, roll } from './hubs'

const hub = (id: string): ClusterHub => ({ id, name: 'host-' + id, agents: 1, started: '', version: '' })
const [a, b] = [hub('a'), hub('b')] as const

// seen takes one look after another, ten seconds apart.
const seen = (...looks: ClusterHub[][]) => looks.reduce<Roll>((was, there, i) => roll(was, there, i * 10_000), { there: [], gone: [] })

test('a hub that goes is remembered for a minute, or until it is back', () => {
  expect(seen([a, b]).gone).toEqual([])
  expect(seen([a, b], [a]).gone).toEqual([{ hub: b, at: 10_000 }])
  expect(seen([a, b], [a], [a]).gone).toEqual([{ hub: b, at: 10_000 }])
  expect(seen([a, b], [a], [a, b])).toEqual({ there: [a, b], gone: [] })
  expect(seen([a, b], [a], [a], [a], [a], [a], [a], [a]).gone).toEqual([])
})

test('a hub is called by its name while that is known', () => {
  expect(hubName([a, b], 'b')).toBe('host-b')
  expect(hubName([a], 'b')).toBe('b')
  expect(hubName([a, b, { ...hub('of-the-same-host'), name: 'host-a' }], 'a')).toBe('host-a …a')
  expect(hubName([a, { ...hub('of-the-same-host'), name: 'host-a' }], 'of-the-same-host')).toBe('host-a …host')
})
