import { useEffect, useState } from 'react'
import type { Task } from '../api/types'
import { useNow } from '../api/use'
import { whole } from '../format'
import { useRows } from '../keys'
import { Copy } from '../parts/copy'
import { useRefusal } from '../parts/me'
import { AgentLink, documentPath, PlacedStatus } from '../parts/placed'
import { Search } from '../parts/search'
import { Known } from '../parts/state'
import { TaskSince, useTasks } from '../parts/task'
import { type Group, groups, look, matches, type Move, ownerOf, type Row, rows, statuses, unseen } from '../parts/tasks'
import { change, Link, navigate, type Place } from '../router'
import { text } from '../text'
import { newDocument } from './documents'

const t = text.tasks
const shown = 10_000 // milliseconds that a move is marked
const mostRows = 500

export function TasksPage({ place }: { place: Place }) {
  const tasks = useTasks()
  const [seen, see] = useState(unseen)
  const list = tasks.value
  useEffect(() => {
    if (list) see((before) => look(before, list, Date.now()))
  }, [list])
  useRows('tr[data-row]')
  return (
    <div className="page">
      <div className="head">
        <h1>{t.title}</h1>
        <span className="space" />
        <Search place={place} label={t.search} />
      </div>
      <p className="faint">{t.help}</p>
      <Known answer={tasks}>{(all) => (all.length === 0 ? <Teach /> : <Tasks all={all} moves={seen.moves} place={place} />)}</Known>
    </div>
  )
}

function Tasks({ all, moves, place }: { all: Task[]; moves: Map<string, Move>; place: Place }) {
  const now = useNow(1000)
  const status = place.params.get('status') ?? ''
  const search = place.params.get('search') ?? ''
  const byPriority = place.params.get('order') === 'priority'
  const found = groups(all, byPriority).map((g) => ({ ...g, rows: rows(g.tasks.filter((x) => matches(x, search, status))) }))
  const count = found.reduce((n, g) => n + g.rows.length, 0)
  let room = mostRows
  return (
    <>
      <div className="chips">
        <Link to={change(place, { status: undefined })} className="count" aria-current={status ? undefined : 'true'}>
          {t.all} <b>{whole(all.length)}</b>
        </Link>
        {statuses
          .filter((s) => s === status || all.some((x) => x.status === s))
          .map((s) => (
            <Link key={s} to={change(place, { status: s })} className="count" aria-current={s === status ? 'true' : undefined}>
              <PlacedStatus status={s} /> <b>{whole(all.filter((x) => x.status === s).length)}</b>
            </Link>
          ))}
        <span className="space" />
        <Link to={change(place, { order: byPriority ? undefined : 'priority' })} className="count" aria-current={byPriority ? 'true' : undefined} title={t.byPriorityHelp}>
          {t.byPriority}
        </Link>
      </div>
      {count === 0 ? (
        <p className="empty">{t.none}</p>
      ) : (
        <div className="scroll">
          <table className="rows tasks stacked" aria-label={t.title}>
            <thead>
              <tr>
                <th>{t.document}</th>
                <th className="number">{t.version}</th>
                <th className="number" title={t.priorityHelp} aria-sort={byPriority ? 'descending' : undefined}>
                  {t.priority}
                </th>
                <th>{t.status}</th>
                <th>{t.agent}</th>
                <th className="number" title={t.epochHelp}>
                  {t.epoch}
                </th>
                <th>{t.since}</th>
                <th className="why">{t.error}</th>
              </tr>
            </thead>
            {found.map((g) => {
              const some = g.rows.slice(0, room)
              room -= some.length
              return (
                some.length > 0 && (
                  <tbody key={g.document}>
                    {some.map((r, i) => (
                      <TaskRow key={r.key} of={r} group={i === 0 ? g : undefined} move={moves.get(r.key)} now={now} />
                    ))}
                  </tbody>
                )
              )
            })}
          </table>
        </div>
      )}
      {count > mostRows && <p className="empty">{t.leftOut(whole(count - mostRows))}</p>}
    </>
  )
}

// TaskRow has what is the document's only in the first row of its group.
function TaskRow({ of: { task: x, count }, group, move, now }: { of: Row; group: Group | undefined; move: Move | undefined; now: number }) {
  const to = documentPath(x.document)
  const fresh = move && now - move.at < shown ? move : undefined
  return (
    <tr
      data-row
      tabIndex={0}
      className={fresh && 'moved'}
      onKeyDown={(e) => e.key === 'Enter' && e.target === e.currentTarget && navigate(to)}
      onClick={(e) => !(e.target as HTMLElement).closest('a') && !getSelection()?.toString() && navigate(to)}
    >
      <td className="document">
        {group && (
          <>
            <Link to={to} className="name">
              {x.document}
            </Link>
            {x.place > 1 && <div className="faint small nowrap">{t.running(whole(group.running), whole(x.place))}</div>}
          </>
        )}
      </td>
      <td className="number" data-name={t.version}>
        {group && x.version}
      </td>
      <td className="number" data-name={t.priority}>
        {group && x.priority}
      </td>
      <td className="nowrap">
        <PlacedStatus status={x.status} title={x.status === 'parked' ? t.parkedHelp : undefined} /> {count > 1 && <span className="faint">{t.times(whole(count))}</span>}
      </td>
      <td className="owner">
        {x.agent ? <AgentLink of={{ agent: x.agent, name: x.name }} /> : x.epoch ? <span className="faint">{t.hidden}</span> : null}
        {fresh && (
          <span className="move" role="status">
            {said(x, fresh)}
          </span>
        )}
      </td>
      <td className="number" data-name={t.epoch}>
        {x.epoch}
      </td>
      <td className="nowrap" data-name={t.since}>
        <TaskSince of={x} now={now} />
      </td>
      <td className={x.status === 'waiting' || x.status === 'running' ? 'why' : 'why bad'}>{x.error}</td>
    </tr>
  )
}

// said is a move in words.
function said(x: Task, { from }: Move): string {
  const names = from.map((b) => ownerOf(b) || t.hidden).join(', ')
  if (!x.epoch) return t.left(names)
  if (from.length === 0) return t.came
  return from[0]?.agent && from[0].agent === x.agent ? t.again : t.moved(names)
}

// Teach says what a task is to whoever has none.
function Teach() {
  const mayCreate = !useRefusal('applyDocument')
  return (
    <div className="empty joining">
      <p>{t.empty}</p>
      <h3>{t.emptyTitle}</h3>
      <p>{t.emptyHelp}</p>
      <Copy label={t.example} text={t.exampleText} />
      {mayCreate && (
        <Link to={documentPath(newDocument)} className="button main">
          {text.documents.create}
        </Link>
      )}
    </div>
  )
}
