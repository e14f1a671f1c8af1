// What was changed, by whom, and what was refused.

import type { AuditEntry, AuditList } from '../api/types'
import { useAgain, useGet } from '../api/use'
import { stamp, whole } from '../format'
import { change, Link, type Place } from '../router'
import { text } from '../text'
import { documentPath } from './placed'
import { Search } from './search'
import { Known } from './state'

const t = text.access.audit
const every = 3000 // milliseconds
const pageSize = 100

export function AuditLog({ place }: { place: Place }) {
  const search = place.params.get('search') ?? ''
  const before = Number(place.params.get('before')) || undefined
  const list = useGet<AuditList>('/audit', { search, before, limit: pageSize })
  useAgain(list, every)
  return (
    <>
      <div className="head">
        <p className="faint about">{t.help}</p>
        <Search place={place} label={t.search} />
      </div>
      <Known answer={list}>
        {(l) => (
          <>
            {(l.broken ?? 0) > 0 && (
              <p className="notice broken" role="alert">
                {t.broken(whole(l.broken ?? 0))}
              </p>
            )}
            {l.entries.length === 0 ? <p className="empty">{search || before ? t.none : t.empty}</p> : <Entries list={l.entries} broken={l.broken} />}
            {(before !== undefined || l.next !== undefined) && (
              <p className="acts pages">
                {before !== undefined && <Link to={change(place, { before: undefined })}>{t.newest}</Link>}
                <span className="space" />
                {l.next !== undefined && l.next > 0 && <Link to={change(place, { before: l.next })}>{t.older}</Link>}
              </p>
            )}
          </>
        )}
      </Known>
    </>
  )
}

function Entries({ list, broken }: { list: AuditEntry[]; broken: number | undefined }) {
  return (
    <div className="scroll">
      <table className="rows audit dense stacked">
        <thead>
          <tr>
            <th className="number">{t.number}</th>
            <th>{t.when}</th>
            <th>{t.who}</th>
            <th>{t.from}</th>
            <th>{t.action}</th>
            <th>{t.target}</th>
            <th>{t.outcome}</th>
            <th className="why">{t.detail}</th>
          </tr>
        </thead>
        <tbody>
          {list.map((e) => (
            <tr key={e.number} className={e.number === broken ? 'broken' : undefined} title={e.number === broken ? t.brokenHere : undefined}>
              <td className="number" data-name={t.number} title={e.hash}>
                {e.number}
              </td>
              <td className="nowrap">{stamp(e.time)}</td>
              <td className="who" data-name={t.who}>
                {e.who} {e.role && <span className="faint nowrap">{e.role}</span>}
              </td>
              <td className="mono address" data-name={t.from}>{e.address}</td>
              <td data-name={t.action}>{e.action}</td>
              <td className="target" data-name={e.target && t.target}>
                <Target of={e} />
              </td>
              <td>
                <span className={'status ' + (e.outcome === 'done' ? 'running' : 'refused')}>{e.outcome === 'done' ? t.done : e.outcome}</span>
              </td>
              <td className="why">{e.detail}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

const ofAgents = new Set(['orderAgent', 'revokeAgent', 'admitAgent', 'enrol'])
const ofDocuments = new Set(['applyDocument', 'deleteDocument', 'rollBackDocument'])

function Target({ of: e }: { of: AuditEntry }) {
  if (!e.target) return null
  if (ofDocuments.has(e.action)) return <Link to={documentPath(e.target)}>{e.target}</Link>
  if (ofAgents.has(e.action)) return <Link to={`/agents/${encodeURIComponent(e.target)}`} className="mono small id">{e.target}</Link>
  return <span className="mono small">{e.target}</span>
}
