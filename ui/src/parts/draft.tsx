// A document that is being written: the editor, what the hub says to the text, and what applying it would change.

import { lazy, type ReactNode, Suspense, useEffect, useMemo, useRef, useState } from 'react'
import { Failure, send } from '../api/client'
import type { DocumentApplied, Problem } from '../api/types'
import { useGet } from '../api/use'
import { Link } from '../router'
import { text } from '../text'
import { Compare, Differences } from './compare'
import { Dialog } from './dialog'
import type { EditorHandle } from './editor'
import { documentPath } from './placed'
import type { Schema } from './schema'
import { scan, valueOf } from './yaml'

const Editor = lazy(() => import('./editor'))
const t = text.documents
const pause = 400 // milliseconds without a key before the hub is asked

// A Version is a text, and which one it is; 0: there is no such document, or no more.
export interface Version {
  text: string
  version: number
}

interface DraftProps {
  name?: string // none: a document that is not there yet
  now: Version // at the hub
  changed: (applied: DocumentApplied) => void
  draft: (mine: string | undefined) => void // is told what is not applied yet
  stale?: () => void // is told that what is at the hub is not now any more
  fixed?: string | undefined // why it may be read, and not changed
  notice?: string // what is to be said when what is at the hub is not what was changed
  children?: ReactNode
}

export function Draft({ name, now, changed, draft, stale, fixed, notice, children }: DraftProps) {
  const [base, setBase] = useState(now) // what was changed
  const [mine, setMine] = useState(now.text)
  const [dialog, setDialog] = useState(false)
  const [waiting, setWaiting] = useState(false) // to apply, for what the hub says
  const [theirs, setTheirs] = useState(false)
  const schema = useGet<Schema>('/schema')
  const editor = useRef<EditorHandle>(null)
  const dirty = mine !== base.text
  const behind = now.version > base.version || (now.version === 0 && base.version > 0) ? now : undefined
  const check = useCheck(mine, base.version, name, !fixed && (dirty || !name))
  useEffect(() => draft(dirty ? mine : undefined), [dirty, mine]) // eslint-disable-line -- draft is told, not asked
  useEffect(() => {
    if (dirty || !behind) return
    setBase(behind)
    setMine(behind.text)
  }, [dirty, behind])
  const others = dirty ? behind : undefined
  const ready = (dirty || !name) && check.applied !== undefined && !others && check.text === mine
  const save = () => (ready ? setDialog(true) : setWaiting(check.asking))
  useEffect(() => {
    if (!waiting || check.asking) return
    setWaiting(false)
    setDialog(ready)
  }, [waiting, check.asking, ready])
  const conflict = check.failure?.code === 'conflict'
  useEffect(() => {
    if (conflict) stale?.()
  }, [conflict, stale])
  const apply = async (note: string) => {
    const applied = await send<DocumentApplied>('PUT', '/documents', { text: mine, version: base.version, note }).catch((e: unknown) => {
      stale?.()
      throw e
    })
    setBase({ text: mine, version: applied.document.version })
    changed(applied)
  }
  const take = (v: Version) => {
    setBase(v)
    setMine(v.text)
    setTheirs(false)
  }
  return (
    <>
      {others && (
        <div className="notice" role="alert">
          <p>{notice}</p>
          <div className="acts">
            <button type="button" aria-expanded={theirs} onClick={() => setTheirs(!theirs)}>
              {t.theirs}
            </button>
            <button type="button" onClick={() => take(others)}>
              {t.takeTheirs}
            </button>
            <button type="button" onClick={() => setBase(others)}>
              {t.keepMine}
            </button>
          </div>
          {theirs && <Compare before={base.text} after={others.text} label={t.theirs} />}
        </div>
      )}
      <div className="editing">
        <div className="writing">
          <Suspense fallback={<p className="empty">{text.state.loading}</p>}>
            <Editor text={mine} schema={schema.value} problems={check.problems} label={t.editor} fixed={fixed !== undefined} change={setMine} save={save} handle={editor} />
          </Suspense>
          {fixed ? (
            <p className="faint">{t.readOnly(fixed)}</p>
          ) : (
            <div className="acts">
              <button type="button" className="main" disabled={!ready} title={t.applyHelp} onClick={save}>
                {t.apply}
              </button>
              <button type="button" disabled={!dirty} onClick={() => setMine(base.text)}>
                {t.discard}
              </button>
              <span className="faint" role="status">
                {check.asking ? t.checking : dirty ? t.unsaved : name ? t.saved : ''}
              </span>
            </div>
          )}
        </div>
        <aside>
          <Said check={check} fresh={!name} go={(p) => editor.current?.go(p.line ?? 1, p.column ?? 1)} />
          {children}
        </aside>
      </div>
      {dialog && check.applied && (
        <Dialog title={t.sure.apply(check.applied.document.name, t.selectedCount(check.applied.selected?.length ?? 0))} field={t.sure.note} button={t.sure.applyButton} act={apply} close={() => setDialog(false)}>
          <div className="would">
            <Differences list={check.applied.differences ?? []} />
          </div>
        </Dialog>
      )}
    </>
  )
}

// A Check is what the hub says to a text.
interface Check {
  text?: string // that it is about
  asking: boolean
  applied?: DocumentApplied | undefined // what it would do
  problems: Problem[]
  failure?: Failure | undefined // why it is refused, if not for its problems
}

const nothing: Problem[] = []

// useCheck has the hub look at a text once nobody has changed it for a moment.
function useCheck(mine: string, version: number, name: string | undefined, wanted: boolean): Check {
  const [check, set] = useState<Check>({ asking: false, problems: nothing })
  useEffect(() => {
    if (!wanted) return set({ asking: false, problems: nothing })
    const abort = new AbortController()
    set((c) => ({ ...c, asking: true }))
    const timer = setTimeout(() => {
      const renamed = rename(mine, name)
      if (renamed) return set({ text: mine, asking: false, problems: [renamed] })
      send<DocumentApplied>('PUT', '/documents', { text: mine, version, dry_run: true }, abort.signal).then(
        (applied) => set({ text: mine, asking: false, applied, problems: nothing }),
        (failure: Failure) => {
          if (!abort.signal.aborted) set({ text: mine, asking: false, problems: failure.problems ?? nothing, failure: failure.problems?.length ? undefined : failure })
        },
      )
    }, pause)
    return () => {
      clearTimeout(timer)
      abort.abort()
    }
  }, [mine, version, name, wanted])
  return check
}

// rename is the problem of a text that says that it is another document.
export function rename(mine: string, name: string | undefined): Problem | undefined {
  if (!name) return undefined
  const key = scan(mine).entries.find((e) => e.path.length === 1 && e.path[0] === 'document')
  const said = key && valueOf(mine, key)
  if (!key || !said || said === name) return undefined
  const before = mine.slice(0, key.from)
  return { line: before.split('\n').length, column: key.from - before.lastIndexOf('\n'), message: t.renamed(said) }
}

// Said is what the hub says: what is to be corrected, else what the change does.
function Said({ check, fresh, go }: { check: Check; fresh: boolean; go: (p: Problem) => void }) {
  const { applied, problems, failure } = check
  const selected = useMemo(() => applied?.selected ?? [], [applied])
  const taken = fresh && failure?.code === 'conflict' ? /^document (\S+) is at version/.exec(failure.message)?.[1] : undefined
  return (
    <>
      {failure && (
        <p className="warn" role="alert">
          {failure.code === 'unreachable' ? text.state.offline : failure.message} {taken && <Link to={documentPath(taken)}>{t.openIt(taken)}</Link>}
        </p>
      )}
      {problems.length > 0 && (
        <section className="problems" aria-live="polite">
          <h2>
            {t.problems} <span className="faint">{problems.length}</span>
          </h2>
          <ul>
            {problems.map((p, i) => (
              <li key={i}>
                {p.line ? (
                  <button type="button" className="plain" onClick={() => go(p)}>
                    {t.where(p.line, p.column ?? 1)}
                  </button>
                ) : null}
                {p.path && <div className="mono small">{p.path}</div>}
                <div className="bad">{p.message}</div>
                {p.hint && <div className="faint">{p.hint}</div>}
              </li>
            ))}
          </ul>
        </section>
      )}
      {applied && (
        <section className={check.asking ? 'would old' : 'would'} aria-live="polite">
          <h2>{t.differences}</h2>
          <Differences list={applied.differences ?? []} />
          <h3>{t.selected(t.selectedCount(selected.length))}</h3>
          <p className="selected" title={selected.join(', ')}>
            {selected.join(', ')}
          </p>
          {(applied.warnings ?? []).map((w) => (
            <p key={w} className="ill">
              {w}
            </p>
          ))}
        </section>
      )}
    </>
  )
}
