// What an agent was asked to run, beside what it runs, and how it came to that.

import type { ReactNode } from 'react'
import type { AgentDetail, ReportChange, ReportConfiguration, ReportReceipt } from '../api/types'
import { milliseconds, since, span, stamp, whole } from '../format'
import { Link } from '../router'
import { text } from '../text'
import { documentPath, PlacedStatus } from './placed'

const t = text.agent

export function Intended({ d, now }: { d: AgentDetail; now: number }) {
  const { intended } = d
  if (!intended || d.type !== 'creel') return null
  const c = intended.configuration
  return (
    <section id="intended">
      <h2>{t.intended}</h2>
      {intended.conflict && (
        <p className="warn" role="alert">
          {t.conflict} {intended.conflict}. {t.conflictHelp}
        </p>
      )}
      {c?.hash && <Compared c={c} now={now} />}
      <Sources d={d} />
      {(c?.failed ?? []).length > 0 && (
        <>
          <h3>{t.failedBefore}</h3>
          <ul className="failures">
            {c.failed?.map((f) => (
              <li key={f.hash}>
                <span className="mono">{f.hash}</span> <span className="faint">{stamp(f.time)}</span> <span className="bad">{f.reason}</span>
              </li>
            ))}
          </ul>
          <p className="faint small">{t.failedHelp}</p>
        </>
      )}
      <h3>
        {t.receipts} <span>{t.receiptsHelp}</span>
      </h3>
      {(c?.receipts ?? []).length > 0 ? <Receipts list={c.receipts ?? []} /> : <p className="faint">{t.noReceipts}</p>}
    </section>
  )
}

// Compared is what runs against what was wanted. What was refused before has its words in the list below it.
function Compared({ c, now }: { c: ReportConfiguration; now: number }) {
  const left = c.probation_until ? Date.parse(c.probation_until) - now : 0
  return (
    <dl className="facts">
      <div>
        <dt>{t.runs}</dt>
        <dd>
          <span className="mono">{c.hash}</span> {!c.wanted && <span className="faint">{t.same}</span>}
        </dd>
      </div>
      {c.wanted && (
        <div className="wanted">
          <dt>{t.wanted}</dt>
          <dd>
            <span className="mono bad">{c.wanted}</span> {c.since && <span className="faint">{t.wantedSince(since(c.since))}</span>}
            <div className="bad">{c.error}</div>
          </dd>
        </div>
      )}
      {left > 0 && (
        <div>
          <dt>{t.probation}</dt>
          <dd>
            <span className="ill">{t.probationFor(span(left))}</span> {c.good && <span className="faint">{t.probationBack(c.good)}</span>}
          </dd>
        </div>
      )}
    </dl>
  )
}

interface Source {
  name: ReactNode
  source: string
  version?: string | undefined
  status: string
  error?: string | undefined
}

// Sources are the hub's documents as they are placed, and the files and the like that the agent has besides.
function Sources({ d }: { d: AgentDetail }) {
  const list: Source[] = [
    ...(d.intended.documents ?? []).map((p) => ({ ...p, source: 'hub', name: <Link to={documentPath(p.name)}>{p.name}</Link> })),
    ...(d.intended.configuration?.documents ?? []).filter((x) => x.source !== 'hub'),
  ]
  if (list.length === 0) return <p className="faint">{t.noSources}</p>
  return (
    <div className="scroll">
      <table className="rows sources" aria-label={t.sources}>
        <thead>
          <tr>
            <th>{t.sourceName}</th>
            <th>{t.source}</th>
            <th className="number">{t.version}</th>
            <th>{text.documents.itsStatus}</th>
            <th className="why">{text.documents.error}</th>
          </tr>
        </thead>
        <tbody>
          {list.map((s, i) => (
            <tr key={i}>
              <td>{s.name}</td>
              <td>{s.source}</td>
              <td className="number">{s.version}</td>
              <td>
                <PlacedStatus status={s.status} />
              </td>
              <td className="why bad">{s.error}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

const nanoseconds = 1e6 // in a millisecond

function Receipts({ list }: { list: ReportReceipt[] }) {
  const r = t.receipt
  return (
    <div className="scroll">
      <table className="rows receipts" aria-label={t.receipts}>
        <thead>
          <tr>
            <th>{r.when}</th>
            <th>{r.by}</th>
            <th>{r.outcome}</th>
            <th>{r.hash}</th>
            <th className="why">{r.what}</th>
            <th className="number">{r.took}</th>
            <th className="number" title={r.stillHelp}>
              {r.still}
            </th>
            <th className="number" title={r.inHandHelp}>
              {r.inHand}
            </th>
          </tr>
        </thead>
        <tbody>
          {[...list].reverse().map((x, i) => (
            <tr key={x.time + i}>
              <td className="nowrap">{stamp(x.time)}</td>
              <td>{x.source}</td>
              <td>
                <span className={'status ' + x.outcome}>{t.outcomes[x.outcome] ?? x.outcome}</span>
              </td>
              <td className="mono">
                {x.hash}
                {x.trace && (
                  <div>
                    <Link to={`/explore/traces/${x.trace}`}>{r.trace}</Link>
                  </div>
                )}
              </td>
              <td className="why">
                <Touched change={x.change} />
                {x.error && <div className="bad">{x.error}</div>}
                {(x.leaked ?? []).map((l) => (
                  <div key={l} className="ill">
                    {r.leaked(l)}
                  </div>
                ))}
              </td>
              <td className="number">{milliseconds(x.took / nanoseconds)}</td>
              <td className="number">{milliseconds(x.still / nanoseconds)}</td>
              <td className="number">{whole(x.in_hand)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

// Touched is which components a change has opened, reopened and closed.
function Touched({ change }: { change: ReportChange | undefined }) {
  const r = t.receipt
  const parts = [
    [r.opened, change?.open],
    [r.reopened, change?.reopen],
    [r.closed, change?.close],
  ] as const
  const some = parts.some(([, list]) => list?.length)
  const kept = change?.keep?.length ?? 0
  return (
    <>
      {!some && <span className="faint">{r.nothing}</span>}
      {parts.map(([what, list]) => !!list?.length && <div key={what}>{what} <span className="mono small">{list.join(', ')}</span></div>)}
      {some && kept > 0 && <div className="faint">{r.kept(whole(kept))}</div>}
    </>
  )
}
