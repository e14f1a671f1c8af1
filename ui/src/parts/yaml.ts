// Where one is in a YAML text, for help while it is written: half of it may be missing, so this is no parser. It knows
// block and flow maps and lists, quotes, comments and block scalars.

export type Step = string | number

// An Entry is a key in the text, with its path and where it stands.
export interface Entry {
  path: Step[]
  from: number
  to: number
}

// A Spot is what is being written at a place: a key of the map at path, or the value at path.
export interface Spot {
  what: 'key' | 'value'
  path: Step[]
  from: number // where its first letter is
  flow: boolean // within { } or [ ]
  indent: number // of the line, in a block
}

interface Frame {
  indent: number
  key?: string | undefined // of a map
  index?: number // of a list
}

export interface Scan {
  entries: Entry[]
  spot?: Spot | undefined
}

const plain = /^("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|(?:[^\s#{}[\],"'&*!|>%@`-]|-(?=\S))[^#]*?)\s*:(?=\s|$)/

// scan reads the text up to end, and tells where that is.
export function scan(text: string, end = text.length): Scan {
  return new Scanner(text, end).run()
}

// valueOf is the scalar of an entry in a block, as far as it is on the entry's line.
export function valueOf(text: string, e: Entry): string {
  const line = text.slice(e.to, text.indexOf('\n', e.to) < 0 ? text.length : text.indexOf('\n', e.to))
  return unquoted(line.replace(/^\s*:\s*/, '').replace(/(^|\s)#.*$/, '').trim())
}

function unquoted(word: string): string {
  const q = word[0]
  if ((q !== '"' && q !== "'") || word.length < 2 || word.at(-1) !== q) return word
  return q === "'" ? word.slice(1, -1).replaceAll("''", "'") : word.slice(1, -1).replace(/\\(.)/g, '$1')
}

class Scanner {
  private entries: Entry[] = []
  private frames: Frame[] = [{ indent: 0 }]
  private spot: Spot | undefined
  private at = 0

  constructor(
    private text: string,
    private end: number,
  ) {}

  run(): Scan {
    while (this.at <= this.end) {
      const newline = this.text.indexOf('\n', this.at)
      const line = newline < 0 ? this.text.length : newline
      this.line(line)
      if (this.end <= line) break
      this.at = Math.max(this.at, line + 1)
    }
    return { entries: this.entries, spot: this.spot }
  }

  private get top(): Frame {
    return this.frames.at(-1) as Frame
  }

  private path(): Step[] {
    return this.frames.flatMap((f) => f.index ?? f.key ?? [])
  }

  // parent is the path of the map on top.
  private parent(): Step[] {
    const { key } = this.top
    return key === undefined ? this.path() : this.path().slice(0, -1)
  }

  private here(what: Spot['what'], path: Step[], from: number, indent: number, flow = false): void {
    this.spot = { what, path, from, flow, indent }
  }

  private leave(indent: number, dash: boolean): void {
    while (this.frames.length > 1 && (this.top.indent > indent || (this.top.index !== undefined && this.top.indent === indent && !dash))) this.frames.pop()
  }

  // line reads what begins at this.at, and ends at the end of that line or later.
  private line(lineEnd: number): void {
    const stop = Math.min(lineEnd, this.end)
    let p = this.at
    while (p < stop && this.text[p] === ' ') p++
    let indent = p - this.at
    const last = this.end <= lineEnd
    const rest = this.text.slice(p, stop)
    if (rest === '' || /^(#|---|\.\.\.)/.test(rest)) {
      if (!last || rest !== '') return
      this.leave(indent, false)
      return this.here('key', this.top.indent < indent ? this.path() : this.parent(), p, indent)
    }
    this.leave(indent, /^-(\s|$)/.test(rest))
    let item = false
    while (this.text[p] === '-' && p < stop && (p + 1 >= stop || this.text[p + 1] === ' ')) {
      if (this.top.index !== undefined && this.top.indent === indent) this.top.index++
      else this.frames.push({ indent, index: 0 })
      const from = p++
      while (p < stop && this.text[p] === ' ') p++
      indent += p - from
      item = true
    }
    const m = plain.exec(this.text.slice(p, stop))
    if (m?.[1]) {
      if (this.top.index !== undefined || this.top.indent < indent) this.frames.push({ indent })
      this.top.key = unquoted(m[1])
      this.entries.push({ path: this.path(), from: p, to: p + m[1].length })
      p += m[0].length
    } else if (last && !item && !/^[{["']/.test(this.text.slice(p, stop))) {
      return this.here('key', this.top.indent < indent ? this.path() : this.parent(), p, indent)
    }
    this.value(p, lineEnd, indent)
  }

  private value(p: number, lineEnd: number, indent: number): void {
    const stop = Math.min(lineEnd, this.end)
    while (p < stop && this.text[p] === ' ') p++
    const c = p < stop ? this.text[p] : undefined
    if (c === '{' || c === '[') return this.flow(p)
    if (c === '"' || c === "'") {
      const close = this.quoted(p)
      if (close < this.end) return this.past(close)
    } else if (c === '|' || c === '>') return this.scalar(lineEnd)
    if (this.end <= lineEnd && !/(^|\s)#/.test(this.text.slice(p, stop))) this.here('value', this.path(), p, indent)
    else if (p > lineEnd) this.past(p)
  }

  // past leaves the rest of the line that has the place p.
  private past(p: number): void {
    const newline = this.text.indexOf('\n', p)
    this.at = newline < 0 ? this.text.length + 1 : newline + 1
  }

  // scalar leaves out the lines of a block scalar.
  private scalar(lineEnd: number): void {
    const own = this.top.indent
    this.at = lineEnd + 1
    while (this.at <= this.end && this.at < this.text.length) {
      const newline = this.text.indexOf('\n', this.at)
      const line = this.text.slice(this.at, newline < 0 ? this.text.length : newline)
      if (line.trim() !== '' && line.length - line.trimStart().length <= own) return
      if (newline < 0) {
        this.at = this.text.length + 1
        return
      }
      this.at = newline + 1
    }
  }

  // quoted returns where the quotes that open at p close.
  private quoted(p: number): number {
    const q = this.text[p]
    for (p++; p < this.text.length; p++) {
      if (q === '"' && this.text[p] === '\\') p++
      else if (this.text[p] === q) {
        if (q !== "'" || this.text[p + 1] !== q) return p
        p++
      }
    }
    return p
  }

  // flow reads from a bracket to the one that closes it.
  private flow(p: number): void {
    const base = this.frames.length
    let from = p
    let word = '' // what was quoted just now
    for (; p < this.end; p++) {
      const c = this.text[p] ?? ''
      const top = this.top
      if (c === '{' || c === '[') {
        this.frames.push(c === '{' ? { indent: Infinity } : { indent: Infinity, index: 0 })
        from = p + 1
      } else if (c === '}' || c === ']') {
        this.frames.pop()
        if (this.frames.length <= base) return this.past(p)
        from = p + 1
      } else if (c === ',') {
        if (top.index !== undefined) top.index++
        else top.key = undefined
        from = p + 1
      } else if (c === '"' || c === "'") {
        p = this.quoted(p)
        word = '"'
        continue
      } else if (c === '#' && /\s/.test(this.text[p - 1] ?? '')) {
        const bare = this.text.slice(from, p).trim() === ''
        const newline = this.text.indexOf('\n', p)
        p = newline < 0 || newline > this.end ? this.end : newline
        if (bare) from = p
      } else if (c === ':' && top.index === undefined && top.key === undefined && (word !== '' || /^[\s,[\]{}]?$/.test(this.text[p + 1] ?? ''))) {
        while (from < p && /\s/.test(this.text[from] ?? '')) from++
        const key = this.text.slice(from, p).trimEnd()
        top.key = unquoted(key)
        this.entries.push({ path: this.path(), from, to: from + key.length })
        from = p + 1
      }
      word = ''
    }
    while (from < this.end && /\s/.test(this.text[from] ?? '')) from++
    this.here(this.top.index !== undefined || this.top.key !== undefined ? 'value' : 'key', this.path(), from, 0, true)
    this.at = this.end + 1
  }
}
