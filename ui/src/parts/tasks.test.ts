import { expect, test } from 'vitest'
import type { Task } from '../api/types'
import { changed, groups, look, matches, ownerOf, rows, type Seen, unseen } from './tasks'

const task = (document: string, status: string, more: Partial<Task> = {}): Task => ({ document, status, version: 1, place: 1, priority: 5, ...more })
const on = (document: string, name: string, epoch: number, more: Partial<Task> = {}) => task(document, 'running', { name, agent: 'id-' + name, epoch, ...more })

test('what is wrong comes first, then the highest priority', () => {
  const list = [
    on('b', 'x', 1), on('a', 'x', 1), on('high', 'x', 1, { priority: 9 }), task('w', 'waiting', { priority: 9 }), task('back', 'rolled_back'), task('no', 'refused'),
    on('many', 'y', 7), on('many', 'z', 3), task('many', 'unplaced'), task('new', 'of the future'),
  ]
  const all = groups(list)
  expect(all.map((g) => g.document)).toEqual(['new', 'many', 'no', 'back', 'w', 'high', 'a', 'b'])
  expect(groups([...list, task('stuck', 'parked')]).map((g) => g.document)).toEqual(['new', 'stuck', 'many', 'no', 'back', 'w', 'high', 'a', 'b'])
  expect(groups(list, true).map((g) => g.document)).toEqual(['w', 'high', 'new', 'many', 'no', 'back', 'a', 'b'])
  expect(all[1]).toMatchObject({ running: 2, tasks: [{ status: 'unplaced' }, { epoch: 3 }, { epoch: 7 }] })
})

test('tasks without an owner are one row', () => {
  const list = [task('a', 'unplaced'), task('a', 'unplaced'), on('a', 'x', 1), on('a', 'y', 2)]
  expect(rows(list).map((r) => [r.key, r.count])).toEqual([['a 0', 2], ['a 1', 1], ['a 2', 1]])
})

test('tasks are found by any of their words', () => {
  const t = on('shop', 'Edge-7', 1, { status: 'rolled_back', error: 'cannot bind' })
  for (const words of ['', 'edge', 'shop bind', 'rolled back', 'id-Edge']) expect(matches(t, words, '')).toBe(true)
  expect(matches(t, 'shop other', '')).toBe(false)
  expect(matches(t, '', 'refused')).toBe(false)
  expect(matches(t, 'shop', 'rolled_back')).toBe(true)
})

// looks takes one look after another, a second apart.
const looks = (...lists: Task[][]) => lists.reduce<Seen>((seen, list, i) => look(seen, list, i * 1000), unseen)
const moves = (...lists: Task[][]) => Object.fromEntries([...looks(...lists).moves].map(([key, m]) => [key, { ...m, from: m.from.map(ownerOf) }]))
const none = task('a', 'unplaced')

test('what has another owner has moved from the one before', () => {
  const x = on('a', 'x', 1)
  const y = on('a', 'y', 2)
  expect(moves([x])).toEqual({}) // the first look tells nothing
  expect(moves([x], [x])).toEqual({})
  expect(moves([x], [y])).toEqual({ 'a 2': { from: ['x'], at: 1000 } })
  expect(moves([x], [y], [y])).toEqual({ 'a 2': { from: ['x'], at: 1000 } })
  expect(moves([x], [none])).toEqual({ 'a 0': { from: ['x'], at: 1000 } })
  expect(moves([x], [none], [none], [y])).toEqual({ 'a 2': { from: ['x'], at: 3000 } })
  expect(moves([none], [y])).toEqual({ 'a 2': { from: [], at: 1000 } })
  expect(moves([x], [on('a', 'x', 3)])).toEqual({ 'a 3': { from: ['x'], at: 1000 } })
  expect(moves([x], [on('a', 'x', 1, { status: 'waiting' })])).toEqual({})
  expect(moves([x], [], [y])).toEqual({}) // deleted, and another of its name
})

test('who takes over may come before the other leaves', () => {
  const [x, y] = [on('a', 'x', 1), on('a', 'y', 2)]
  expect(moves([x], [x, y])).toEqual({ 'a 2': { from: [], at: 1000 } })
  expect(moves([x], [x, y], [y])).toEqual({ 'a 2': { from: ['x'], at: 2000 } })
})

test('of several tasks as many have moved as owners have changed', () => {
  const place = (n: number, ...list: Task[]) => list.map((t) => ({ ...t, place: n }))
  const [x, y, z, v] = [on('a', 'x', 1), on('a', 'y', 2), on('a', 'z', 3), on('a', 'v', 4)] as const
  expect(moves(place(2, x, y), place(2, z, v))).toEqual({ 'a 3': { from: ['x'], at: 1000 }, 'a 4': { from: ['y'], at: 1000 } })
  expect(moves(place(2, x, y), place(2, none, none), place(2, none, z))).toEqual({ 'a 0': { from: ['y'], at: 1000 }, 'a 3': { from: ['x'], at: 2000 } })
  // Fewer or more places are no move.
  expect(moves(place(2, x, y), place(1, x), place(2, x, v))).toEqual({ 'a 4': { from: [], at: 2000 } })
  expect(moves(place(1, x), place(2, x, y), place(1, y))).toEqual({ 'a 2': { from: [], at: 1000 } })
})

test('what has changed of some documents leaves the others as they were', () => {
  const list = [task('a', 'running', { epoch: 1 }), task('b', 'running', { epoch: 2 }), task('b', 'waiting', { epoch: 3 })]
  const names = (tasks: Task[]) => tasks.map((t) => `${t.document}${t.epoch ?? ''}`).join(' ')
  expect(names(changed(list, { all: false, documents: ['b', 'c'], tasks: [task('c', 'running', { epoch: 4 })] }))).toBe('a1 c4')
  expect(names(changed(list, { all: true, documents: [], tasks: [task('c', 'running', { epoch: 4 })] }))).toBe('c4')
})
