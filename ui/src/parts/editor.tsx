// The editor of documents. It is large, and loaded when it is needed.

import { autocompletion, acceptCompletion, type Completion, type CompletionContext, completionKeymap, completionStatus, startCompletion } from '@codemirror/autocomplete'
import { defaultKeymap, history, historyKeymap, indentLess, indentMore } from '@codemirror/commands'
import { yaml } from '@codemirror/lang-yaml'
import { bracketMatching, indentOnInput, indentUnit, syntaxHighlighting } from '@codemirror/language'
import { type Diagnostic, lintGutter, lintKeymap, setDiagnostics } from '@codemirror/lint'
import { highlightSelectionMatches, searchKeymap } from '@codemirror/search'
import { EditorState, type Text } from '@codemirror/state'
import { drawSelection, EditorView, highlightActiveLine, hoverTooltip, keymap, lineNumbers } from '@codemirror/view'
import { classHighlighter } from '@lezer/highlight'
import { type RefObject, useEffect, useImperativeHandle, useRef } from 'react'
import type { Problem } from '../api/types'
import styles from './editor.css?inline'
import { explain, type Help, propose, type Proposal, type Schema } from './schema'

export interface EditorHandle {
  go: (line: number, column: number) => void // moves the cursor
}

interface EditorProps {
  text: string
  schema: Schema | undefined
  problems: Problem[]
  label: string
  fixed: boolean // it may be read, and not changed
  change: (text: string) => void
  save: () => void
  handle: RefObject<EditorHandle | null>
}

export default function Editor({ text, schema, problems, label, fixed, change, save, handle }: EditorProps) {
  const parent = useRef<HTMLDivElement>(null)
  const view = useRef<EditorView>(undefined)
  const latest = useRef({ schema, change, save })
  latest.current = { schema, change, save }
  useEffect(() => {
    const v = new EditorView({
      parent: shadowOf(parent.current as HTMLElement),
      state: EditorState.create({
        doc: text,
        extensions: [
          lineNumbers(),
          lintGutter(),
          history(),
          drawSelection(),
          highlightActiveLine(),
          highlightSelectionMatches(),
          bracketMatching(),
          indentOnInput(),
          indentUnit.of('  '),
          yaml(),
          syntaxHighlighting(classHighlighter),
          autocompletion({ override: [(c) => complete(c, latest.current.schema)], icons: false }),
          hoverTooltip((v, place) => hover(v, place, latest.current.schema)),
          keymap.of([
            { key: 'Mod-s', preventDefault: true, run: () => (latest.current.save(), true) },
            // A proposal that has come just now is not taken yet, lest it was not meant; but that is no reason to indent.
            { key: 'Tab', run: (v) => acceptCompletion(v) || completionStatus(v.state) === 'active' },
            { key: 'Tab', run: indentMore, shift: indentLess },
            ...completionKeymap,
            ...lintKeymap,
            ...searchKeymap,
            ...historyKeymap,
            ...defaultKeymap,
          ]),
          EditorState.readOnly.of(fixed),
          EditorView.contentAttributes.of({ 'aria-label': label, 'aria-readonly': String(fixed) }),
          EditorView.updateListener.of((u) => u.docChanged && latest.current.change(u.state.doc.toString())),
          EditorView.theme({ '.cm-scroller': { fontFamily: 'var(--mono)', lineHeight: '1.5' } }),
        ],
      }),
    })
    view.current = v
    return () => v.destroy()
  }, []) // eslint-disable-line -- what changes comes below
  useEffect(() => {
    const v = view.current
    if (v && v.state.doc.toString() !== text) v.dispatch({ changes: { from: 0, to: v.state.doc.length, insert: text } })
  }, [text])
  useEffect(() => {
    const v = view.current
    if (v) v.dispatch(setDiagnostics(v.state, problems.flatMap((p) => mark(v.state.doc, p))))
  }, [problems])
  useImperativeHandle(handle, () => ({
    go: (line, column) => {
      const v = view.current
      if (!v) return
      v.dispatch({ selection: { anchor: placeOf(v.state.doc, line, column) }, scrollIntoView: true })
      v.focus()
    },
  }))
  return <div className="editor" ref={parent} />
}

// shadowOf returns where the editor's elements are: in a shadow it adopts its styles, as a page may whose policy forbids style
// elements.
function shadowOf(host: HTMLElement): ShadowRoot {
  if (host.shadowRoot) return host.shadowRoot
  const shadow = host.attachShadow({ mode: 'open' })
  const sheet = new CSSStyleSheet()
  sheet.replaceSync(styles)
  shadow.adoptedStyleSheets = [sheet]
  return shadow
}

function placeOf(doc: Text, line: number, column: number): number {
  if (line > doc.lines) return doc.length
  const l = doc.line(Math.max(1, line))
  return Math.min(l.to, l.from + Math.max(0, column - 1))
}

// mark is where a problem shows: the word at its place.
function mark(doc: Text, p: Problem): Diagnostic[] {
  if (!p.line) return []
  const from = placeOf(doc, p.line, p.column ?? 1)
  const line = doc.lineAt(from)
  const word = /^("[^"]*"|'[^']*'|[^\s:,[\]{}]+)/.exec(line.text.slice(from - line.from))?.[0].length ?? 0
  return [{ from, to: Math.min(line.to, from + Math.max(1, word)), severity: 'error', message: p.message + (p.hint ? `; ${p.hint}` : '') }]
}

function complete(context: CompletionContext, schema: Schema | undefined) {
  if (!schema) return null
  const document = context.state.doc.toString()
  const found = propose(schema, document, context.pos)
  if (!found || found.list.length === 0) return null
  const { spot, list } = found
  if (!context.explicit && spot.from === context.pos && spot.what === 'value' && context.state.sliceDoc(context.pos - 1, context.pos) === ':') return null // no space yet
  const line = context.state.doc.lineAt(context.pos)
  if (!context.explicit && spot.what === 'key' && spot.from === context.pos && line.text.trim() === '') return null // a new line asks for nothing
  return {
    from: spot.from,
    validFor: /^[\w./-]*$/,
    options: list.map((p, i): Completion => ({ label: p.text, detail: p.facts.join(', '), boost: -i / 100, info: () => (p.doc ? told(p) : null), apply: (v, _, from, to) => insert(v, p, from, to, spot.flow, spot.indent) })),
  }
}

// insert writes a proposal, and goes on to what comes after it.
function insert(v: EditorView, p: Proposal, from: number, to: number, flow: boolean, indent: number): void {
  const written = v.state.sliceDoc(to, v.state.doc.lineAt(to).to).startsWith(':')
  const after = written || p.then === '' || p.then === 'id' ? '' : p.then === 'below' && !flow ? ':\n' + ' '.repeat(indent + 2) : ': '
  v.dispatch({ changes: { from, to, insert: p.text + after }, selection: { anchor: from + p.text.length + after.length }, userEvent: 'input.complete' })
  if (after) startCompletion(v)
}

function hover(v: EditorView, place: number, schema: Schema | undefined) {
  const found = schema && explain(schema, v.state.doc.toString(), place)
  return found ? { pos: found.from, end: found.to, above: true, create: () => ({ dom: told(found.help, found.path.join('.')) }) } : null
}

// told is help as it is shown.
function told(h: Help, title?: string): HTMLElement {
  const dom = document.createElement('div')
  dom.className = 'told-help'
  for (const [kind, words] of [['title', title], ['doc', h.doc], ['facts', h.facts.join(', ')]] as const) {
    if (!words) continue
    const part = dom.appendChild(document.createElement('div'))
    part.className = kind
    part.textContent = words
  }
  return dom
}
