import { useEffect, useState } from 'react'
import type { AgentDetail, KnockList, ReportComponent } from '../api/types'
import { useAgain, useGet, useNow, useWatched } from '../api/use'
import { ago, bytes, stamp, whole } from '../format'
import { Graph } from '../parts/graph'
import { HubLink, useHubs } from '../parts/hubs'
import { Intended } from '../parts/intended'
import { IdentityTrouble, Revoke } from '../parts/knocking'
import { Ledger } from '../parts/ledger'
import { Life, Timeline } from '../parts/life'
import { useRefusal } from '../parts/me'
import { farSideOf, SpoolCell } from '../parts/spool'
import { Known, Stage, Status, statusOf } from '../parts/state'
import { TasksOf } from '../parts/task'
import { Link } from '../router'
import { text } from '../text'

const t = text.agent
const r = text.access.revoked
const every = 3000 // milliseconds

export function AgentPage({ id }: { id: string }) {
  const agent = useWatched<AgentDetail>(`/agents/${encodeURIComponent(id)}/watch`, {}, 'agent')
  const noKnocks = useRefusal('listKnocks')
  const knocks = useGet<KnockList>(noKnocks ? null : '/knocks')
  useAgain(knocks, every)
  const there = agent.value !== undefined
  useEffect(() => {
    if (there && location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView()
  }, [there])
  return (
    <div className="page agent">
      <Link to="/fleet" className="back">
        ← {t.back}
      </Link>
      {knocks.value && <IdentityTrouble id={agent.value?.id ?? id} name={agent.value?.name ?? ''} list={knocks.value} again={knocks.again} />}
      <Known answer={agent}>{(d) => <Detail d={d} knocks={knocks.value} again={knocks.again} />}</Known>
    </div>
  )
}

function Detail({ d, knocks, again }: { d: AgentDetail; knocks: KnockList | undefined; again: () => void }) {
  const now = useNow(1000)
  const host = d.labels['host.name']
  const seesAll = !useRefusal('searchLogs')
  const mayRevoke = !useRefusal('revokeAgent')
  const several = useHubs().length > 1
  const [revoking, setRevoking] = useState(false)
  const ofHub = d.labels['creel.role'] === 'hub'
  return (
    <>
      <div className="head">
        <h1>{d.name || d.id}</h1>
        <Status name={statusOf(d)} />
        <Stage name={d.state} />
        <span className="space warn why" title={d.cause}>
          {d.cause}
        </span>
        {host && seesAll && <Link to={`/explore/metrics?host=${encodeURIComponent(host)}`}>{t.metrics}</Link>}
        {host && seesAll && <Link to={`/explore/logs?filter=${encodeURIComponent('host.name=' + host)}`}>{t.logs}</Link>}
        {mayRevoke && !knocks?.revoked?.some((x) => x.agent === d.id) && (
          <button type="button" disabled={ofHub} title={ofHub ? r.revokeHub : r.revokeHelp} onClick={() => setRevoking(true)}>
            {r.revoke}
          </button>
        )}
      </div>
      {revoking && <Revoke id={d.id} name={d.name} close={() => setRevoking(false)} done={again} />}
      <dl className="facts">
        <Fact name={t.id} value={<span className="mono">{d.id}</span>} />
        <Fact name={t.version} value={`${d.type} ${d.version}`} />
        <Fact name={t.seen} value={<span title={stamp(d.last_seen)}>{ago(d.last_seen, now)}</span>} />
        {several && d.hub && <Fact name={d.connection === 'connected' ? t.hub : t.wasAt} value={<HubLink id={d.hub} />} />}
        {d.started && <Fact name={t.started} value={stamp(d.started)} />}
        <Fact name={t.heartbeat} value={t.every(String(d.heartbeat_seconds))} />
        <Fact
          name={t.labels}
          value={Object.entries(d.labels).map(([k, v]) => (
            <Link key={k} to={`/fleet?label=${encodeURIComponent(`${k}=${v}`)}`} className="label">
              {k}={v}
            </Link>
          ))}
        />
        {d.intake && (
          <Fact
            name={t.intake}
            value={
              <>
                {t.letIn(whole(d.intake.records), bytes(d.intake.bytes))}
                {d.intake.throttled_requests > 0 && <span className="ill"> {t.throttled(whole(d.intake.throttled_records), whole(d.intake.throttled_requests))}</span>}
              </>
            }
          />
        )}
      </dl>
      <Life d={d} now={now} />
      <TasksOf agent={d.id} some={(d.intended?.documents ?? []).length > 0} now={now} />
      <section id="pipelines">
        <h2>{t.pipelines}</h2>
        {d.routes?.length ? <Graph routes={d.routes} components={d.components ?? []} /> : <p className="faint">{t.noPipelines}</p>}
      </section>
      <section id="components">
        <h2>{t.components}</h2>
        <Components list={d.components ?? []} now={now} />
      </section>
      <section id="ledger">
        <h2>{t.ledger}</h2>
        <Ledger ledger={d.ledger} hops={d.hops ?? []} />
      </section>
      <Intended d={d} now={now} />
      <div className="two">
        <section id="configuration">
          <h2>
            {t.configuration}{' '}
            {d.config && (
              <Link to={`/fleet?config=${d.config}`} className="mono small" title={t.configOthers}>
                {d.config}
              </Link>
            )}
          </h2>
          {d.effective ? <pre className="config">{pretty(d.effective)}</pre> : <p className="faint">{t.noConfig}</p>}
        </section>
        <section id="timeline">
          <h2>{t.timeline}</h2>
          <Timeline events={d.timeline ?? []} history={d.intended?.life?.history ?? []} />
        </section>
      </div>
    </>
  )
}

function Fact({ name, value }: { name: string; value: React.ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  )
}

// pretty indents JSON; YAML is as the agent has sent it.
export function pretty(effective: string): string {
  try {
    return JSON.stringify(JSON.parse(effective), null, 2)
  } catch {
    return effective
  }
}

function Components({ list, now }: { list: ReportComponent[]; now: number }) {
  const spools = list.some((c) => c.spool)
  return (
    <div className="scroll">
      <table className="rows components">
        <thead>
          <tr>
            <th>{t.component}</th>
            <th>{t.plugin}</th>
            <th>{t.health}</th>
            <th className="number">{t.records}</th>
            <th>{t.queue}</th>
            {spools && <th>{t.disk}</th>}
            <th className="why">{t.cause}</th>
          </tr>
        </thead>
        <tbody>
          {list.map((c) => (
            <tr key={c.component} className={farSideOf(c) && 'exporter'}>
              <td className="mono">{c.component}</td>
              <td>{c.plugin}</td>
              <td>
                <Status name={c.healthy ? 'healthy' : 'degraded'} />
                <FarSide of={c} />
              </td>
              <td className="number">{c.records ? whole(c.records) : ''}</td>
              <td className="queued">{c.queue_limit_bytes ? text.fleet.queueOf(bytes(c.queued_bytes ?? 0), bytes(c.queue_limit_bytes)) : ''}</td>
              {spools && (
                <td>
                  <SpoolCell spool={c.spool} />
                </td>
              )}
              <td>
                <div className="reason" title={c.error}>
                  {c.error && c.since && <span className="faint">{ago(c.since, now)}: </span>}
                  {c.error}
                </div>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

function FarSide({ of: c }: { of: ReportComponent }) {
  const far = farSideOf(c)
  return far ? <div className={'far ' + far}>{text.spool.farSide[far]}</div> : null
}
