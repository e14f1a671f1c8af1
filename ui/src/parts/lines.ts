// What is other in a text than in one before, by lines.

export interface Line {
  kind: 'same' | 'added' | 'removed'
  text: string
  old?: number // its number, from 1
  now?: number
}

const most = 4_000_000 // pairs of lines that are compared; where there are more, all between the first and the last difference counts

// lines returns the lines of both, those that are gone before those that have come.
export function lines(before: string, after: string): Line[] {
  const a = split(before)
  const b = split(after)
  let head = 0
  while (head < a.length && head < b.length && a[head] === b[head]) head++
  let tail = 0
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++
  const out: Line[] = []
  const same = (i: number, j: number) => out.push({ kind: 'same', text: a[i] ?? '', old: i + 1, now: j + 1 })
  for (let i = 0; i < head; i++) same(i, i)
  const n = a.length - head - tail
  const m = b.length - head - tail
  // keep[i][j] is how many lines can stay of those from i and j on.
  const keep = n * m <= most ? Array.from({ length: n + 1 }, () => new Uint32Array(m + 1)) : undefined
  const kept = (i: number, j: number) => keep?.[i]?.[j] ?? 0
  if (keep)
    for (let i = n - 1; i >= 0; i--)
      for (let j = m - 1; j >= 0; j--) (keep[i] as Uint32Array)[j] = a[head + i] === b[head + j] ? kept(i + 1, j + 1) + 1 : Math.max(kept(i + 1, j), kept(i, j + 1))
  for (let i = 0, j = 0; i < n || j < m; ) {
    if (keep && i < n && j < m && a[head + i] === b[head + j]) same(head + i++, head + j++)
    else if (i < n && (j === m || kept(i + 1, j) >= kept(i, j + 1))) out.push({ kind: 'removed', text: a[head + i] ?? '', old: head + ++i })
    else out.push({ kind: 'added', text: b[head + j] ?? '', now: head + ++j })
  }
  for (let k = tail; k > 0; k--) same(a.length - k, b.length - k)
  return out
}

function split(text: string): string[] {
  const list = text.split('\n')
  if (list.at(-1) === '') list.pop()
  return list
}

// folded replaces what is far from a difference with the number of lines that it has.
export function folded(list: Line[], around = 3): (Line | number)[] {
  const near = list.map((_, i) => list.slice(Math.max(0, i - around), i + around + 1).some((l) => l.kind !== 'same'))
  const out: (Line | number)[] = []
  list.forEach((l, i) => {
    const last = out.at(-1)
    if (near[i]) out.push(l)
    else if (typeof last === 'number') out[out.length - 1] = last + 1
    else out.push(1)
  })
  return out
}
