// The spans of a trace as a tree.

import type { Span } from '../api/types'

export interface Row {
  span: Span
  depth: number
  descendants: number
  orphan: boolean // its parent is not here
  start: number // milliseconds after the first span
}

// tree puts each span behind its parent, siblings by start. Spans whose parent is not here stand at the top, and so does
// one of each ring of spans that are their own ancestors.
export function tree(spans: Span[]): Row[] {
  const here = new Set(spans.map((s) => s.span_id))
  const children = new Map<string, Span[]>()
  for (const s of spans) {
    const parent = s.parent_id && here.has(s.parent_id) && s.parent_id !== s.span_id ? s.parent_id : ''
    children.set(parent, [...(children.get(parent) ?? []), s])
  }
  const first = Math.min(...spans.map((s) => new Date(s.start).getTime()))
  const rows: Row[] = []
  const seen = new Set<Span>()
  const add = (root: Span) => {
    // By hand, not by recursion: a trace may be deeper than a stack.
    const todo: { span: Span; depth: number; row?: number }[] = [{ span: root, depth: 0 }]
    while (todo.length > 0) {
      const next = todo.pop()
      if (!next) break
      if (next.row !== undefined) {
        const row = rows[next.row]
        if (row) row.descendants = rows.length - next.row - 1
        continue
      }
      if (seen.has(next.span)) continue
      seen.add(next.span)
      todo.push({ ...next, row: rows.length })
      rows.push({ span: next.span, depth: next.depth, descendants: 0, orphan: !!next.span.parent_id && !here.has(next.span.parent_id), start: precise(next.span.start) - precise(new Date(first).toISOString()) })
      for (const c of [...(children.get(next.span.span_id) ?? [])].sort((a, b) => b.start.localeCompare(a.start))) todo.push({ span: c, depth: next.depth + 1 })
    }
  }
  for (const s of children.get('') ?? []) add(s)
  for (const s of spans) if (!seen.has(s)) add(s)
  return rows
}

// precise reads a time with its nanoseconds, as milliseconds.
export function precise(time: string): number {
  const fraction = /\.(\d+)/.exec(time)?.[1] ?? ''
  return Math.floor(new Date(time).getTime() / 1000) * 1000 + Number('0.' + (fraction || '0')) * 1000
}

// shown leaves out what is below a collapsed span.
export function shown(rows: Row[], collapsed: Set<string>): Row[] {
  const list: Row[] = []
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]
    if (!row) break
    list.push(row)
    if (collapsed.has(row.span.span_id)) i += row.descendants
  }
  return list
}
