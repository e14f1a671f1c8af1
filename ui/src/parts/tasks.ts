// Tasks as they are looked at: by document, what is wrong first, and which of them have another owner than before.

import type { Task, TaskChange } from '../api/types'

export const statuses = ['parked', 'failed', 'unplaced', 'refused', 'rolled_back', 'waiting', 'running', 'cancelled', 'done']

const rank = (t: Task) => statuses.indexOf(t.status) // what is not known comes first

// ownerOf is what a task's owner is called; '' if it has none, or one that is not to be seen.
export const ownerOf = (t: Task) => t.name || t.agent || ''

// changed are the tasks that were known, with what has changed.
export function changed(known: Task[], c: TaskChange): Task[] {
  const gone = new Set(c.documents)
  return [...(c.all ? [] : known.filter((t) => !gone.has(t.document))), ...(c.tasks ?? [])]
}

// A Group is the tasks of one document.
export interface Group {
  document: string
  tasks: Task[]
  running: number
}

// groups are the documents: what is worst first, of those the highest priority, then by name; or the highest priority before all.
// Their tasks are sorted likewise.
export function groups(list: Task[], byPriority = false): Group[] {
  const found = new Map<string, Task[]>()
  for (const t of list) {
    const some = found.get(t.document)
    if (some) some.push(t)
    else found.set(t.document, [t])
  }
  const sorted = [...found].map(([document, tasks]) => ({
    document,
    tasks: tasks.sort((a, b) => rank(a) - rank(b) || (a.epoch ?? 0) - (b.epoch ?? 0)),
    running: tasks.filter((t) => t.status === 'running').length,
  }))
  const first = (g: Group) => g.tasks[0] as Task
  const worse = (a: Group, b: Group) => rank(first(a)) - rank(first(b))
  const higher = (a: Group, b: Group) => first(b).priority - first(a).priority
  return sorted.sort((a, b) => (byPriority ? higher(a, b) || worse(a, b) : worse(a, b) || higher(a, b)) || (a.document < b.document ? -1 : 1))
}

export interface Row {
  key: string
  task: Task
  count: number // of tasks that are the same: those without an owner are one row
}

export function rows(tasks: Task[]): Row[] {
  const list: Row[] = []
  for (const t of tasks) {
    const key = keyOf(t)
    const same = t.epoch ? undefined : list.find((r) => r.key === key)
    if (same) same.count++
    else list.push({ key, task: t, count: 1 })
  }
  return list
}

// Of a document no two tasks have the same epoch: each placing has its own.
const keyOf = (t: Pick<Task, 'document' | 'epoch'>) => `${t.document} ${t.epoch ?? 0}`

// matches reports whether a task is looked for, by any of its words.
export function matches(t: Task, search: string, status: string): boolean {
  const words = [t.document, t.name, t.agent, t.status.replace('_', ' '), t.error].join('\n').toLowerCase()
  return (!status || t.status === status) && search.toLowerCase().split(/\s+/).every((w) => words.includes(w))
}

// A Move is that a task was placed on another owner, or lost its owner.
export interface Move {
  from: Task[] // as they were; several of a row that is of several tasks, none if it had no owner
  at: number // when it was seen, milliseconds
}

// Seen is what was there at the last look.
export interface Seen {
  documents: Map<string, Owners>
  moves: Map<string, Move> // by the key of the row
}

interface Owners {
  place: number
  owners: Map<number, Task> // by epoch
  left: Task[] // without somebody in their place yet, the oldest first
}

export const unseen: Seen = { documents: new Map(), moves: new Map() }

// look returns what is there now, and what has moved since. The tasks of a document are alike, so that whoever has come is in the
// place of whoever has left first. Who takes over may come before the other leaves: then there are more owners than places.
export function look(before: Seen, list: Task[], now: number): Seen {
  const next: Seen = { documents: new Map(), moves: new Map() }
  for (const g of groups(list)) {
    const owned = g.tasks.filter((t) => t.epoch)
    const owners = new Map(owned.map((t) => [t.epoch ?? 0, t]))
    const was = before.documents.get(g.document)
    const epochs = [...owners.keys()].sort((a, b) => a - b)
    const moveOf = (epoch: number) => before.moves.get(keyOf({ document: g.document, epoch }))
    const early = was && was.owners.size > was.place ? epochs.filter((e) => was.owners.has(e) && moveOf(e)?.from.length === 0) : []
    const come = was ? epochs.filter((e) => !was.owners.has(e)) : []
    const gone = was ? [...was.owners].filter(([e]) => !owners.has(e)).sort(([a], [b]) => a - b) : []
    let left = [...(was?.left ?? []), ...gone.map(([, t]) => t)]
    for (const epoch of epochs) {
      const key = keyOf({ document: g.document, epoch })
      const from = early.includes(epoch) || come.includes(epoch) ? left.shift() : undefined
      const old = moveOf(epoch)
      if (from !== undefined) next.moves.set(key, { from: [from], at: now })
      else if (come.includes(epoch)) next.moves.set(key, { from: [], at: now })
      else if (old) next.moves.set(key, old)
    }
    const open = g.tasks.length - owned.length
    left = open ? left.slice(-open) : []
    const old = before.moves.get(keyOf({ document: g.document }))
    if (left.length) next.moves.set(keyOf({ document: g.document }), { from: left, at: gone.length || !old ? now : old.at })
    next.documents.set(g.document, { place: g.tasks[0]?.place ?? 0, owners, left })
  }
  return next
}
