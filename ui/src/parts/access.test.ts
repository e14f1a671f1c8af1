import { expect, test } from 'vitest'
import source from '../../../api/operations.go?raw'
import { reader } from '../api/events'
import { lack, operations } from '../api/operations'
import type { Knock } from '../api/types'
import { admittable } from './knocking'
import { labelsOf, request } from './newtoken'

test('events are read whole, however they come in pieces', () => {
  const sent = ': still there\n\nevent: agent\ndata: {"a":1}\n\ndata: x\ndata: y\n\nevent: none\n\nevent: agent\r\ndata:2\r\n\r\ndata: cut'
  for (let size = 1; size < sent.length; size++) {
    const got: string[] = []
    const read = reader((event, data) => got.push(`${event} ${data}`))
    for (let i = 0; i < sent.length; i += size) read(sent.slice(i, i + size))
    expect(got).toEqual(['agent {"a":1}', 'message x\ny', 'agent 2'])
  }
})

test('what pages offer is what the hub lets one do', () => {
  for (const [id, needs] of Object.entries(operations) as [string, { role: string; all?: boolean }][]) {
    const [, before, kind] = new RegExp(`\\t([a-z(]*)\\b(get|change)\\("${id}"`).exec(source) ?? []
    expect(kind, `the API has ${id}`).toBeDefined()
    const role = before?.includes('admin(') ? 'admin' : kind === 'change' ? 'operator' : 'viewer'
    expect({ id, ...needs, all: needs.all ?? false }).toEqual({ id, role, all: !before?.includes('within(') })
  }
  expect(lack({ name: 'ann', role: 'viewer' }, 'orderAgent')).toEqual({ role: 'operator' })
  expect(lack({ name: 'ann', role: 'admin' }, 'orderAgent')).toBeUndefined()
  expect(lack({ name: 'ann', role: 'admin', within: 'site == "north"' }, 'listTokens')).toEqual({ within: 'site == "north"' })
  expect(lack({ name: 'ann', role: 'operator', within: 'site == "north"' }, 'orderAgent')).toBeUndefined()
  expect(lack({ name: 'ann', role: 'of the future' }, 'listAgents')).toEqual({ role: 'viewer' })
})

test('a token is asked for with what its role has', () => {
  const wanted = { name: ' ann ', role: 'viewer', within: ' site == "north" ', signals: ['logs'], records: '500', labels: { site: 'north' }, uses: '3', seconds: 3600 }
  expect(request(wanted)).toEqual({ name: 'ann', role: 'viewer', within: 'site == "north"', seconds: 3600 })
  expect(request({ ...wanted, role: 'agent' })).toEqual({ name: 'ann', role: 'agent', uses: 3, labels: { site: 'north' }, seconds: 3600 })
  expect(request({ ...wanted, role: 'hub' })).toEqual({ name: 'ann', role: 'hub', seconds: 3600 })
  expect(request({ ...wanted, role: 'ingest', seconds: 0 })).toEqual({ name: 'ann', role: 'ingest', signals: ['logs'], records: 500 })
  expect(request({ ...wanted, role: 'ingest', signals: ['logs', 'metrics', 'traces'], records: '' })).toEqual({ name: 'ann', role: 'ingest', seconds: 3600 })
  expect(labelsOf(' site = north ,tier=a=b,\nempty=')).toEqual({ site: 'north', tier: 'a=b', empty: '' })
  expect(labelsOf('')).toEqual({})
  for (const wrong of ['north', '=north', 'site=north, x']) expect(labelsOf(wrong)).toMatch(/is no label/)
})

test('who has an identity is admitted, the others are told what to do', () => {
  const knock = (more: Partial<Knock>): Knock => ({ agent: 'a', address: '192.0.2.7', reason: 'revoked', text: '', remedy: '', first: '', last: '', count: 1, ...more })
  expect(admittable(knock({}))).toBe(true)
  expect(admittable(knock({ reason: 'cloned' }))).toBe(true)
  expect(admittable(knock({ reason: 'token_spent' }))).toBe(false)
  expect(admittable(knock({ agent: undefined }))).toBe(false)
})
