// Help while a document is written, out of the JSON Schema that the hub has for it.

import { text } from '../text'
import { scan, type Spot, type Step } from './yaml'

const t = text.documents.words

export interface Schema {
  description?: string
  default?: unknown
  enum?: unknown[]
  type?: string | string[]
  pattern?: string
  minimum?: number
  maximum?: number
  properties?: Record<string, Schema>
  patternProperties?: Record<string, Schema>
  additionalProperties?: Schema | boolean
  required?: string[]
  items?: Schema
  anyOf?: Schema[]
}

// types are those of a schema that it names.
const types = (s: Schema) => (Array.isArray(s.type) ? s.type : s.type ? [s.type] : [])

// ways are the alternatives of a schema, with what is said of them all. A reference such as ${env:PORT} and nothing at all
// may stand nearly everywhere, and are left out.
function ways(s: Schema): Schema[] {
  if (!s.anyOf) return s.type === 'null' || s.pattern === '^\\$\\{' ? [] : [s]
  return s.anyOf.flatMap(ways).map((w) => ({ ...w, description: w.description ?? s.description, default: w.default ?? s.default }))
}

function child(s: Schema, step: Step): Schema | undefined {
  if (typeof step === 'number') return s.items
  if (s.properties && Object.hasOwn(s.properties, step)) return s.properties[step]
  for (const [pattern, c] of Object.entries(s.patternProperties ?? {})) if (new RegExp(pattern).test(step)) return c
  return typeof s.additionalProperties === 'object' ? s.additionalProperties : undefined
}

// at returns the alternatives of what may stand at a path; none if nothing may, or nothing is known.
export function at(root: Schema, path: Step[]): Schema[] {
  return path.reduce<Schema[]>((list, step) => list.flatMap((s) => child(s, step) ?? []).flatMap(ways), ways(root))
}

const isMap = (s: Schema) => Boolean(s.properties ?? s.patternProperties ?? s.additionalProperties)

// kindOf is a word for what a value is.
function kindOf(s: Schema): string {
  if (s.enum) return s.enum.map(String).join(', ')
  if (s.items) return t.list
  if (isMap(s)) return t.map
  if (s.pattern?.includes('ns|us')) return t.duration
  if (s.pattern?.includes('i?B')) return t.size
  if (s.pattern?.includes('[smh]')) return t.rate
  const all = types(s)
  if (all.includes('string')) return t.string
  if (all.includes('boolean')) return t.boolean
  return all[0] ?? ''
}

const shown = (v: unknown) => (typeof v === 'string' ? v : JSON.stringify(v))

// A Help is what one should know of a key.
export interface Help {
  doc: string
  facts: string[] // such as: integer, default 7, at least 1
}

function helpOf(list: Schema[], required: boolean): Help {
  const kinds = [...new Set(list.map(kindOf).filter(Boolean))]
  const one = <T>(of: (s: Schema) => T | undefined) => list.map(of).find((v) => v !== undefined)
  const usual = one((s) => s.default)
  const min = one((s) => s.minimum)
  const max = one((s) => s.maximum)
  return {
    doc: one((s) => s.description) ?? '',
    facts: [
      kinds.join(` ${t.or} `),
      required ? t.required : '',
      usual !== undefined && usual !== '' && usual !== null && !(typeof usual === 'object') ? t.usual(shown(usual)) : '',
      min !== undefined ? t.least(shown(min)) : '',
      max !== undefined ? t.most(shown(max)) : '',
    ].filter(Boolean),
  }
}

// help returns what is known of the value at a path.
export function help(root: Schema, path: Step[]): Help | undefined {
  const list = at(root, path)
  const last = path.at(-1)
  if (list.length === 0 || last === undefined) return undefined
  const required = at(root, path.slice(0, -1)).some((s) => typeof last === 'string' && s.required?.includes(last))
  const h = helpOf(list, required)
  return h.doc || h.facts.length ? h : undefined
}

// A Proposal is a key or a value that could stand somewhere.
export interface Proposal extends Help {
  text: string
  // What follows a key: a value on its line, or a map or list below it. An id is a key that goes on, such as otlp/.
  then: 'value' | 'below' | 'id' | ''
}

// An id is a plugin's name, or that with a name of one's own behind it.
const idPattern = /^\^([\w.-]+)\(\/\.\+\)\?\$$/

function keys(root: Schema, path: Step[], taken: Set<string>): Proposal[] {
  const list: Proposal[] = []
  for (const s of at(root, path)) {
    for (const [key, c] of Object.entries(s.properties ?? {})) {
      const all = ways(c)
      if (!taken.has(key)) list.push({ text: key, ...helpOf(all, s.required?.includes(key) ?? false), then: all.length > 0 && all.every((w) => isMap(w)) ? 'below' : 'value' })
    }
    for (const [pattern, c] of Object.entries(s.patternProperties ?? {})) {
      const name = idPattern.exec(pattern)?.[1]
      if (!name) continue
      const again = taken.has(name)
      list.push({ text: again ? name + '/' : name, ...helpOf(ways(c), false), facts: again ? [t.another] : [], then: again ? 'id' : 'below' })
    }
  }
  const first = (p: Proposal) => (p.facts.includes(t.required) ? 0 : 1)
  return list.sort((a, b) => first(a) - first(b) || (a.text < b.text ? -1 : 1))
}

// Which ids of the document's own sections may stand in a pipeline.
const named: Record<string, string[]> = { from: ['collectors'], through: ['processors'], to: ['exporters', 'pipelines'] }

function values(root: Schema, path: Step[], document: string): Proposal[] {
  const list = at(root, path)
  const proposal = (value: unknown, doc = ''): Proposal => ({ text: shown(value), doc, facts: [], then: '' })
  const found = list.flatMap((s) => (s.enum ?? (types(s).join() === 'boolean' ? [true, false] : [])).map((v) => proposal(v)))
  const usual = list.map((s) => s.default).find((v) => v !== undefined)
  if (found.length === 0 && ['string', 'number'].includes(typeof usual) && usual !== '') found.push({ ...proposal(usual), facts: [t.itsDefault] })
  const [section, , key] = path
  if (section === 'pipelines' && typeof key === 'string')
    for (const of of named[key] ?? [])
      for (const e of scan(document).entries) if (e.path.length === 2 && e.path[0] === of && e.path[1] !== path[1]) found.push({ ...proposal(quoted(String(e.path[1]))), facts: [of] })
  return found
}

// quoted keeps null, true, 7 and the like strings.
const quoted = (s: string) => (/^(null|true|false|yes|no|on|off|~|[\d.+-].*)$/i.test(s) ? JSON.stringify(s) : s)

// propose returns what could be written at a place of a text, and where that begins.
export function propose(root: Schema, document: string, place: number): { spot: Spot; list: Proposal[] } | undefined {
  const { spot } = scan(document, place)
  if (!spot) return undefined
  const depth = spot.path.length
  const siblings = scan(document).entries.filter((e) => e.path.length === depth + 1 && e.from !== spot.from && spot.path.every((s, i) => e.path[i] === s))
  const own = keys(root, spot.path, new Set(siblings.map((e) => String(e.path[depth]))))
  const item = spot.what === 'value' && typeof spot.path.at(-1) === 'number' && !spot.flow
  const list = [...(spot.what === 'value' ? values(root, spot.path, document) : []), ...(spot.what === 'key' || item ? own : [])]
  return { spot, list }
}

// explain returns the key at a place, where it stands, and what is known of it.
export function explain(root: Schema, document: string, place: number): { from: number; to: number; path: Step[]; help: Help } | undefined {
  const e = scan(document).entries.find((e) => e.from <= place && place <= e.to)
  const known = e && help(root, e.path)
  return known && { from: e.from, to: e.to, path: e.path, help: known }
}
