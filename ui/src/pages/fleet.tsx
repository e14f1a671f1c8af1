import { useState } from 'react'
import type { Agent, AgentList } from '../api/types'
import { useNow, useWatched } from '../api/use'
import { ago, bytes, short, stamp, whole } from '../format'
import { useRows } from '../keys'
import { HubLink, useHubs } from '../parts/hubs'
import { local } from '../parts/knocking'
import { Search } from '../parts/search'
import { Meter, moodOf, told } from '../parts/spool'
import { Known, Stage, Status, statusOf, type StatusName } from '../parts/state'
import { change, Link, navigate, type Place } from '../router'
import { text } from '../text'

const statuses: StatusName[] = ['lost', 'degraded', 'disconnected', 'unknown', 'healthy']
const firstRows = 200
const mostRows = 1000 // that the API gives at once

export function FleetPage({ place }: { place: Place }) {
  const [limit, setLimit] = useState(firstRows)
  const filter = {
    status: place.params.get('status') ?? '',
    label: place.params.get('label') ?? '',
    config: place.params.get('config') ?? '',
    search: place.params.get('search') ?? '',
  }
  const fleet = useWatched<AgentList>('/agents/watch', { ...filter, limit }, 'agents')
  useRows('tr[data-row]')
  return (
    <div className="page">
      <div className="head">
        <h1>{text.fleet.title}</h1>
        <Counts counts={fleet.value?.counts} place={place} />
        <span className="space" />
        <Search place={place} label={text.fleet.search} />
      </div>
      <Filters place={place} filter={filter} />
      <Known answer={fleet}>
        {(list) => (
          <>
            <Table agents={list.agents ?? []} place={place} />
            {list.agents.length === 0 && <Nobody all={total(list.counts)} />}
            {list.total > list.agents.length && (
              <p className="empty">
                {text.fleet.shown(whole(list.agents.length), whole(list.total))}{' '}
                {limit < mostRows && (
                  <button type="button" onClick={() => setLimit(mostRows)}>
                    {text.fleet.more}
                  </button>
                )}
              </p>
            )}
          </>
        )}
      </Known>
    </div>
  )
}

function total(counts: Record<string, number>): number {
  return Object.values(counts).reduce((a, b) => a + b, 0)
}

function Counts({ counts, place }: { counts?: Record<string, number> | undefined; place: Place }) {
  if (!counts) return null
  const chosen = place.params.get('status')
  return (
    <div className="counts">
      <Link to={change(place, { status: undefined })} aria-current={!chosen ? 'true' : undefined} className="count">
        {text.fleet.all(whole(total(counts)))}
      </Link>
      {statuses
        .filter((s) => counts[s] || s === chosen)
        .map((s) => (
          <Link key={s} to={change(place, { status: s })} aria-current={s === chosen ? 'true' : undefined} className={'count ' + s}>
            <b>{whole(counts[s] ?? 0)}</b> {text.status[s]}
          </Link>
        ))}
    </div>
  )
}

function Filters({ place, filter }: { place: Place; filter: Record<'status' | 'label' | 'config', string> }) {
  const chips = [
    ...filter.label
      .split(',')
      .filter(Boolean)
      .map((l) => ({ name: text.fleet.filterLabel(l), without: { label: filter.label.split(',').filter((x) => x !== l).join(',') } })),
    ...(filter.config ? [{ name: text.fleet.filterConfig(filter.config), without: { config: undefined } }] : []),
  ]
  if (chips.length === 0) return null
  return (
    <div className="chips">
      {chips.map((c) => (
        <Link key={c.name} to={change(place, c.without)} className="chip" title={text.fleet.clear}>
          {c.name} ✕
        </Link>
      ))}
    </div>
  )
}

function Nobody({ all }: { all: number }) {
  if (all > 0) return <p className="empty">{text.fleet.none}</p>
  return (
    <div className="empty">
      <p>{text.fleet.empty}</p>
      {local && (
        <p>
          {text.fleet.start} <code>creel agent -c FILE --hub {location.origin}</code>
        </p>
      )}
      <p>
        <Link to="/access">{text.access.knocking.join}</Link>
      </p>
    </div>
  )
}

function Table({ agents, place }: { agents: Agent[]; place: Place }) {
  const now = useNow(1000)
  const f = text.fleet
  if (agents.length === 0) return null
  const disks = agents.some((a) => a.disk)
  const several = useHubs().length > 1
  return (
    <div className="scroll">
      <table className="rows fleet">
        <thead>
          <tr>
            <th>{f.agent}</th>
            <th className="why">{f.health}</th>
            <th>{f.version}</th>
            <th>{f.config}</th>
            <th className="number" title={f.inHelp}>
              {f.in}
            </th>
            <th className="number" title={f.outHelp}>
              {f.out}
            </th>
            <th className="number" title={f.droppedHelp}>
              {f.dropped}
            </th>
            <th className="number" title={f.deadLetteredHelp}>
              {f.deadLettered}
            </th>
            <th>{f.queue}</th>
            {disks && <th title={f.diskHelp}>{f.disk}</th>}
            <th>{several ? f.seenBy : f.seen}</th>
          </tr>
        </thead>
        <tbody>
          {agents.map((a) => (
            <Row key={a.id} a={a} now={now} place={place} disks={disks} several={several} />
          ))}
        </tbody>
      </table>
    </div>
  )
}

const obvious = new Set(['host.name', 'os.type', 'host.arch'])

function Row({ a, now, place, disks, several }: { a: Agent; now: number; place: Place; disks: boolean; several: boolean }) {
  const to = '/agents/' + encodeURIComponent(a.id)
  const gone = a.connection !== 'connected'
  return (
    <tr
      data-row
      tabIndex={0}
      className={gone ? 'gone' : undefined}
      onKeyDown={(e) => e.key === 'Enter' && e.target === e.currentTarget && navigate(to)}
      onClick={(e) => !(e.target as HTMLElement).closest('a') && !getSelection()?.toString() && navigate(to)}
    >
      <td>
        <Link to={to} className="name">
          {a.name || a.id}
        </Link>
        <span className="labels">
          {Object.entries(a.labels)
            .filter(([k]) => !obvious.has(k))
            .map(([k, v]) => (
              <Link key={k} to={change(place, { label: [...new Set([...(place.params.get('label') ?? '').split(',').filter(Boolean), `${k}=${v}`])].join(',') })} className="label">
                {k}={v}
              </Link>
            ))}
        </span>
      </td>
      <td>
        <Status name={statusOf(a)} /> {!gone && <Stage name={a.state} />}
        {a.cause && (
          <span className="cause" title={a.cause}>
            {a.cause.split('\n')[0]}
          </span>
        )}
      </td>
      <td>{a.type === 'creel' ? a.version : `${a.type} ${a.version}`}</td>
      <td>
        {a.config && (
          <Link to={change(place, { config: a.config })} className="mono">
            {a.config}
          </Link>
        )}
      </td>
      <td className="number">{gone ? '' : short(a.in)}</td>
      <td className="number">{gone ? '' : short(a.out)}</td>
      <td className="number">
        <Link to={to + '#ledger'} className={a.totals.dropped ? 'bad' : 'quiet'}>
          {short(a.totals.dropped)}
        </Link>
      </td>
      <td className="number">
        <Link to={to + '#ledger'} className={a.totals.dead_lettered ? 'bad' : 'quiet'}>
          {short(a.totals.dead_lettered)}
        </Link>
      </td>
      <td className="queued">
        {a.queue_limit > 0 && (
          <Link to={to + '#components'} className="quiet queue" title={text.fleet.queueOf(bytes(a.queue_bytes), bytes(a.queue_limit))}>
            <meter min={0} max={a.queue_limit} high={a.queue_limit * 0.8} value={a.queue_bytes} />
            <span>{a.queue_bytes > 0 && bytes(a.queue_bytes)}</span>
          </Link>
        )}
      </td>
      {disks && (
        <td>
          <OnDisk a={a} to={to + '#components'} />
        </td>
      )}
      <td title={stamp(a.last_seen)}>
        {ago(a.last_seen, now)}
        {several && a.hub && (
          <div className="small hub">
            <HubLink id={a.hub} />
          </div>
        )}
      </td>
    </tr>
  )
}

// OnDisk is what waits in an agent's disk queues. It keeps its size.
function OnDisk({ a, to }: { a: Agent; to: string }) {
  const d = a.disk
  if (!d) return null
  const mood = moodOf(d)
  const size = text.fleet.queueOf(bytes(d.bytes), bytes(d.limit_bytes))
  return (
    <Link to={to} className="quiet disk" title={d.exporter ? `${d.exporter}: ${told(d)}\n${size}` : size}>
      <Meter bytes={d.bytes} limit={d.limit_bytes} mood={mood} /> <span className="amount">{text.spool.waiting(short(d.waiting))}</span>
      <span className={'told ' + mood}>{told(d)}</span>
    </Link>
  )
}
