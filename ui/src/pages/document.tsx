import { type ReactNode, useCallback, useEffect, useState } from 'react'
import { get, send } from '../api/client'
import type { DocumentApplied, DocumentDetail, DocumentHistory, Placed } from '../api/types'
import { type Answer, useAgain, useGet, useNow } from '../api/use'
import { ago, since, stamp, whole } from '../format'
import { Compare, Differences } from '../parts/compare'
import { Dialog } from '../parts/dialog'
import { Draft } from '../parts/draft'
import { NotForYou, useRefusal } from '../parts/me'
import { AgentLink, Counted, documentPath, failed, PlacedStatus, Within } from '../parts/placed'
import { Known, Trouble } from '../parts/state'
import { change, Link, navigate, type Place, useGuard } from '../router'
import { text } from '../text'

const t = text.documents
const soon = 500 // milliseconds between questions while agents are on their way to a new version
const later = 3000
const patience = 60_000 // milliseconds after a change in which agents are expected to follow

const views = ['text', 'agents', 'history'] as const

export function DocumentPage({ name, place }: { name: string; place: Place }) {
  const document = useGet<DocumentDetail>(documentPath(name))
  const { again } = document
  const [changed, setChanged] = useState(0)
  const [mine, setMine] = useState<string>() // what is not applied yet
  const [asked, ask] = useState<'delete' | { version: number }>()
  const fixed = useRefusal('applyDocument')
  const mayDelete = !useRefusal('deleteDocument')
  const mayRollBack = !useRefusal('rollBackDocument')
  const d = document.value
  const deleted = document.failure?.code === 'not_found'
  const young = Date.now() - Math.max(changed, d ? Date.parse(d.time) : 0) < patience
  useAgain(document, young && (d?.agents.waiting ?? 1) > 0 ? soon : later)
  useGuard(mine !== undefined, t.leave)
  const view = deleted && mine === undefined ? 'history' : (views.find((v) => v === place.params.get('view')) ?? 'text')
  const hasChanged = useCallback(() => {
    setChanged(Date.now())
    again()
  }, [again])
  const to = (v: string) => change({ ...place, params: new URLSearchParams() }, { view: v === 'text' ? undefined : v })
  return (
    <div className="page document">
      <Link to="/documents" className="back">
        ← {t.title}
      </Link>
      <div className="head">
        <h1>{name}</h1>
        {d && !deleted && <Facts d={d} />}
        <span className="space" />
        {d && !deleted && mayDelete && (
          <button type="button" onClick={() => ask('delete')}>
            {t.delete}
          </button>
        )}
      </div>
      <nav className="views" aria-label={t.views.label}>
        {views.map((v) => (
          <Link key={v} to={to(v)} aria-current={v === view ? 'page' : undefined}>
            {t.views[v]}
          </Link>
        ))}
      </nav>
      {deleted && <p className="faint">{t.gone}</p>}
      <Known answer={document}>
        {(d) => (
          <>
            {/* What is being written stays while one looks at something else. */}
            <div hidden={view !== 'text'}>
              <Draft
                name={name}
                now={{ text: d.text ?? '', version: deleted ? 0 : d.version }}
                changed={hasChanged}
                draft={setMine}
                stale={again}
                fixed={fixed}
                notice={deleted ? t.deletedMeanwhile : t.conflict(String(d.version), d.by, since(d.time))}
              >
                <Progress d={d} to={to('agents')} />
              </Draft>
            </div>
            {view === 'agents' && <Agents d={d} place={place} />}
          </>
        )}
      </Known>
      {view === 'history' && <History name={name} newest={deleted ? 0 : (d?.version ?? 0)} place={place} rollback={mayRollBack ? (version) => ask({ version }) : undefined} />}
      {asked === 'delete' && (
        <Dialog title={t.sure.delete(name)} button={t.sure.deleteButton} danger close={() => ask(undefined)} act={() => send('DELETE', documentPath(name)).then(() => navigate('/documents', false, true))}>
          <p>{t.sure.deleteHelp(t.selectedCount(d?.agents.selected ?? 0))}</p>
        </Dialog>
      )}
      {typeof asked === 'object' && (
        <Rollback
          name={name}
          version={asked.version}
          close={() => ask(undefined)}
          done={() => {
            hasChanged()
            navigate(to('text'))
          }}
        />
      )}
    </div>
  )
}

export function NewDocumentPage() {
  const [mine, setMine] = useState<string>()
  useGuard(mine !== undefined, t.leave)
  const no = useRefusal('applyDocument')
  if (no) return <NotForYou why={no} />
  return (
    <div className="page document">
      <Link to="/documents" className="back">
        ← {t.title}
      </Link>
      <div className="head">
        <h1>{t.create}</h1>
      </div>
      <Draft now={start} changed={(a) => navigate(documentPath(a.document.name), true, true)} draft={setMine} />
    </div>
  )
}

const start = { text: t.template, version: 0 }

function Facts({ d }: { d: DocumentDetail }) {
  const now = useNow(1000)
  return (
    <>
      <span className="faint">
        {t.progressHelp(String(d.version))}, <span title={stamp(d.time)}>{ago(d.time, now)}</span> {t.by(d.by)}
      </span>
      <Counted of={d.agents} />
      <Within of={d} />
    </>
  )
}

// Progress is how far the newest version has come.
function Progress({ d, to }: { d: DocumentDetail; to: string }) {
  const bad = (d.placed ?? []).filter(failed)
  return (
    <section className="progress" aria-live="polite">
      <h2>
        <Link to={to}>{t.progress}</Link> <span className="faint small">{t.progressHelp(String(d.version))}</span>
      </h2>
      <Counted of={d.agents} />
      <ul className="failures">
        {bad.slice(0, 5).map((p) => (
          <li key={p.agent}>
            <AgentLink of={p} /> <PlacedStatus status={p.status} />
            <div className="bad">{p.error}</div>
          </li>
        ))}
        {bad.length > 5 && <li>{t.moreFailed(whole(bad.length - 5))}</li>}
      </ul>
    </section>
  )
}

const mostAgents = 500
const rank: Record<string, number> = { refused: 0, rolled_back: 0, waiting: 1, running: 2 }

// Agents are those that a document selects, the worst first.
function Agents({ d, place }: { d: DocumentDetail; place: Place }) {
  const all = d.placed ?? []
  const status = place.params.get('status')
  const list = all.filter((p) => !status || p.status === status).sort((a, b) => (rank[a.status] ?? 3) - (rank[b.status] ?? 3))
  if (all.length === 0) return <p className="empty">{t.noAgents}</p>
  const choices = ['refused', 'rolled_back', 'waiting', 'running'].filter((s) => s === status || all.some((p) => p.status === s))
  return (
    <>
      <div className="chips">
        <Link to={change(place, { status: undefined })} className="count" aria-current={status ? undefined : 'true'}>
          {t.anyStatus} <b>{whole(all.length)}</b>
        </Link>
        {choices.map((s) => (
          <Link key={s} to={change(place, { status: s })} className="count" aria-current={s === status ? 'true' : undefined}>
            <PlacedStatus status={s} /> <b>{whole(all.filter((p) => p.status === s).length)}</b>
          </Link>
        ))}
      </div>
      <div className="scroll">
        <table className="rows placed">
          <thead>
            <tr>
              <th>{t.agent}</th>
              <th>{t.itsStatus}</th>
              <th className="number">{t.itsVersion}</th>
              <th className="why">{t.error}</th>
            </tr>
          </thead>
          <tbody>
            {list.slice(0, mostAgents).map((p: Placed) => (
              <tr key={p.agent}>
                <td>
                  <AgentLink of={p} />
                </td>
                <td>
                  <PlacedStatus status={p.status} />
                </td>
                <td className="number">{p.version}</td>
                <td className={failed(p) ? 'why bad' : 'why'}>{p.error}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {list.length > mostAgents && <p className="empty">{t.leftOut(whole(list.length - mostAgents))}</p>}
    </>
  )
}

// History is the versions of a document, two of which are compared.
function History({ name, newest, place, rollback }: { name: string; newest: number; place: Place; rollback: ((version: number) => void) | undefined }) {
  const history = useGet<DocumentHistory>(`${documentPath(name)}/history`)
  const { again } = history
  useEffect(again, [newest, again])
  return (
    <Known answer={history}>
      {({ versions }) => {
        const chosen = (key: string, usual: number | undefined) => Number(place.params.get(key)) || (usual ?? 0)
        const to = chosen('to', versions[0]?.version)
        const from = chosen('from', (versions.find((v) => v.version < to) ?? versions[0])?.version)
        const textOf = (version: number) => versions.find((v) => v.version === version)?.text
        const before = textOf(from)
        const after = textOf(to)
        const radio = (key: 'from' | 'to', version: number) => (
          <td className="choice">
            <input
              type="radio"
              name={key}
              aria-label={`${t[key]} ${version}`}
              checked={version === (key === 'from' ? from : to)}
              onChange={() => navigate(change(place, { view: 'history', from, to, [key]: version }), true)}
            />
          </td>
        )
        return (
          <>
            <div className="scroll versions">
              <table className="rows history">
                <thead>
                  <tr>
                    <th className="choice">{t.from}</th>
                    <th className="choice">{t.to}</th>
                    <th className="number">{t.version}</th>
                    <th>{t.when}</th>
                    <th>{t.who}</th>
                    <th className="why">{t.note}</th>
                    <th />
                  </tr>
                </thead>
                <tbody>
                  {versions.map((v) => (
                    <tr key={v.version}>
                      {radio('from', v.version)}
                      {radio('to', v.version)}
                      <td className="number">{v.version}</td>
                      <td className="nowrap">{stamp(v.time)}</td>
                      <td>{v.by}</td>
                      <td className="why">
                        {v.deleted && <span className="status refused">{t.deleted}</span>} {v.note}
                      </td>
                      <td className="nowrap">
                        {v.version === newest ? (
                          <span className="faint">{t.newest}</span>
                        ) : (
                          !v.deleted &&
                          rollback && (
                            <button type="button" onClick={() => rollback(v.version)}>
                              {t.rollback}
                            </button>
                          )
                        )}
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
            {from !== to && before !== undefined && after !== undefined && (
              <section className="compared">
                <h2>{t.compared(String(from), String(to))}</h2>
                <Compare before={before} after={after} label={t.compared(String(from), String(to))} />
              </section>
            )}
          </>
        )
      }}
    </Known>
  )
}

// Rollback asks before an earlier version is made the newest, and tells what that changes.
function Rollback({ name, version, done, close }: { name: string; version: number; done: () => void; close: () => void }) {
  const [would, setWould] = useState<Answer<DocumentApplied>>({ loading: true })
  useEffect(() => {
    const abort = new AbortController()
    get<DocumentDetail>(documentPath(name), { version }, abort.signal)
      .then((old) => send<DocumentApplied>('PUT', '/documents', { text: old.text, dry_run: true }, abort.signal))
      .then((value) => setWould({ value, loading: false }))
      .catch((failure) => !abort.signal.aborted && setWould({ failure, loading: false }))
    return () => abort.abort()
  }, [name, version])
  return (
    <Dialog title={t.sure.rollback(name, String(version))} button={t.sure.rollbackButton} close={close} act={() => send('POST', `${documentPath(name)}/rollback`, { to: version }).then(done)}>
      <p>{t.sure.rollbackHelp}</p>
      <Trouble failure={would.failure} />
      {would.loading && <p className="faint">{t.checking}</p>}
      {would.value && <Would applied={would.value} />}
    </Dialog>
  )
}

// Would is what a change would do.
function Would({ applied }: { applied: DocumentApplied }): ReactNode {
  return (
    <>
      <p>{t.selected(t.selectedCount(applied.selected?.length ?? 0))}</p>
      <div className="would">
        <Differences list={applied.differences ?? []} />
      </div>
    </>
  )
}
