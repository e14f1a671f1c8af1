// What a PromQL expression is completed with, and what its answers look like.

export interface Series {
  metric: Record<string, string>
  values: [number, string][] // seconds, value
}

export interface RangeAnswer {
  resultType: string
  result: Series[]
}

const functions = [
  'abs', 'absent', 'avg_over_time', 'ceil', 'changes', 'clamp_min', 'count_over_time', 'delta', 'deriv', 'histogram_quantile', 'idelta', 'increase', 'irate', 'label_replace',
  'last_over_time', 'max_over_time', 'min_over_time', 'predict_linear', 'quantile_over_time', 'rate', 'round', 'scalar', 'sort', 'sort_desc', 'sum_over_time', 'time',
]
const aggregations = ['avg', 'bottomk', 'count', 'max', 'min', 'quantile', 'stddev', 'sum', 'topk']
const keywords = ['by', 'without', 'offset', 'and', 'or', 'unless', 'on', 'ignoring', 'group_left', 'group_right']

export interface Proposal {
  text: string
  kind: 'metric' | 'function' | 'label' | 'keyword'
}

export interface Completion {
  from: number // where the word begins that is replaced
  list: Proposal[]
}

const most = 12

// complete proposes how the word at the caret may go on. Words that begin so come first, then those that contain it.
export function complete(expression: string, caret: number, metrics: string[], labels: string[]): Completion {
  const word = /[a-zA-Z_:][a-zA-Z0-9_:.]*$/.exec(expression.slice(0, caret))?.[0] ?? ''
  const from = caret - word.length
  const inLabels = labelsAt(expression.slice(0, from))
  if (inLabels === 'value' || (word === '' && !inLabels)) return { from, list: [] }
  const pool: Proposal[] = inLabels
    ? labels.map((text) => ({ text, kind: 'label' }))
    : [
        ...metrics.map((text): Proposal => ({ text, kind: 'metric' })),
        ...[...functions, ...aggregations].map((text): Proposal => ({ text, kind: 'function' })),
        ...keywords.map((text): Proposal => ({ text, kind: 'keyword' })),
      ]
  const low = word.toLowerCase()
  const begins = pool.filter((p) => p.text.toLowerCase().startsWith(low) && p.text !== word)
  const contains = pool.filter((p) => p.text.toLowerCase().includes(low) && !p.text.toLowerCase().startsWith(low))
  return { from, list: [...begins, ...contains].slice(0, most) }
}

// labelsAt reports whether what follows is the name of a label, or the value of one.
function labelsAt(before: string): 'name' | 'value' | undefined {
  let quote = ''
  let inside: string[] = []
  for (let i = 0; i < before.length; i++) {
    const c = before[i] ?? ''
    if (quote) {
      if (c === '\\') i++
      else if (c === quote) quote = ''
    } else if (c === '"' || c === "'" || c === '`') quote = c
    else if (c === '{') inside.push('{')
    else if (c === '(') inside.push(/\b(by|without|on|ignoring|group_left|group_right)\s*$/.test(before.slice(0, i)) ? 'labels' : '(')
    else if (c === '}' || c === ')') inside = inside.slice(0, -1)
  }
  const last = inside.at(-1)
  if (quote) return 'value'
  return last === '{' || last === 'labels' ? 'name' : undefined
}

// nameOf writes a series as PromQL does.
export function nameOf(metric: Record<string, string>, without: string[] = []): string {
  const { __name__: name = '', ...labels } = metric
  const list = Object.entries(labels)
    .filter(([k]) => !without.includes(k))
    .map(([k, v]) => `${k}="${v}"`)
  return name + (list.length || !name ? `{${list.join(', ')}}` : '')
}

// common returns the labels that all series have with the same value: they need not be told again and again.
export function common(series: Series[]): string[] {
  const first = series[0]
  if (!first || series.length < 2) return []
  return Object.keys(first.metric).filter((k) => k !== '__name__' && series.every((s) => s.metric[k] === first.metric[k]))
}

// stepFor returns seconds between points, for about so many of them.
export function stepFor(milliseconds: number, points = 300): number {
  const least = milliseconds / 1000 / points
  return [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200].find((s) => s >= least) ?? Math.ceil(least / 3600) * 3600
}

// align makes columns of series for a chart: times, then values by series, null where there is none.
export function align(series: Series[], from: number, to: number, step: number): (number | null)[][] {
  const n = Math.floor((to - from) / step) + 1
  const times = Array.from({ length: n }, (_, i) => from + i * step)
  return [
    times,
    ...series.map((s) => {
      const column = new Array<number | null>(n).fill(null)
      for (const [t, v] of s.values) {
        const i = Math.round((t - from) / step)
        const x = Number(v)
        if (i >= 0 && i < n && Number.isFinite(x)) column[i] = x
      }
      return column
    }),
  ]
}

// stack adds each column to those before it.
export function stack(columns: (number | null)[][]): (number | null)[][] {
  let below: (number | null)[] | undefined
  return columns.map((column, i) => {
    if (i === 0) return column
    const sum: (number | null)[] = column.map((v, j) => (v === null ? (below?.[j] ?? null) : v + (below?.[j] ?? 0)))
    below = sum
    return sum
  })
}

// unitOf guesses how a metric's values are written, from its name.
export function unitOf(expression: string): 'bytes' | 'percent' | 'seconds' | 'number' {
  if (/_ratio\b/.test(expression)) return 'percent'
  const perSecond = /\b(i?rate|increase|deriv)\s*\(/.test(expression)
  if (/_bytes(_total)?\b/.test(expression)) return 'bytes'
  if (/_seconds(_total)?\b/.test(expression) && !perSecond) return 'seconds'
  return 'number'
}
