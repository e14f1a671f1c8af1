import { useEffect } from 'react'
import type { AgentDetail, Event, ReportComponent, ReportLedger } from '../api/types'
import { useNow, useWatched } from '../api/use'
import { ago, bytes, stamp, whole } from '../format'
import { Graph } from '../parts/graph'
import { Known, Status, statusOf } from '../parts/state'
import { Link } from '../router'
import { text } from '../text'

const t = text.agent

export function AgentPage({ id }: { id: string }) {
  const agent = useWatched<AgentDetail>(`/agents/${encodeURIComponent(id)}/watch`, {}, 'agent')
  const there = agent.value !== undefined
  useEffect(() => {
    if (there && location.hash) document.querySelector(location.hash)?.scrollIntoView()
  }, [there])
  return (
    <div className="page agent">
      <Link to="/fleet" className="back">
        ← {t.back}
      </Link>
      <Known answer={agent}>{(d) => <Detail d={d} />}</Known>
    </div>
  )
}

function Detail({ d }: { d: AgentDetail }) {
  const now = useNow(1000)
  const host = d.labels['host.name']
  return (
    <>
      <div className="head">
        <h1>{d.name || d.id}</h1>
        <Status name={statusOf(d)} />
        <span className="space" />
        {host && <Link to={`/explore/metrics?host=${encodeURIComponent(host)}`}>{t.metrics}</Link>}
        {host && <Link to={`/explore/logs?filter=${encodeURIComponent('host.name=' + host)}`}>{t.logs}</Link>}
      </div>
      {d.cause && <p className="warn">{d.cause}</p>}
      <dl className="facts">
        <Fact name={t.id} value={<span className="mono">{d.id}</span>} />
        <Fact name={t.version} value={`${d.type} ${d.version}`} />
        <Fact name={t.seen} value={<span title={stamp(d.last_seen)}>{ago(d.last_seen, now)}</span>} />
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
      </dl>
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
        <Ledger ledger={d.ledger} />
      </section>
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
          <Timeline events={d.timeline ?? []} />
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
  return (
    <div className="scroll">
      <table className="rows">
        <thead>
          <tr>
            <th>{t.component}</th>
            <th>{t.plugin}</th>
            <th>{t.health}</th>
            <th className="number">{t.records}</th>
            <th>{t.queue}</th>
            <th>{t.cause}</th>
          </tr>
        </thead>
        <tbody>
          {list.map((c) => (
            <tr key={c.component}>
              <td className="mono">{c.component}</td>
              <td>{c.plugin}</td>
              <td>
                <Status name={c.healthy ? 'healthy' : 'degraded'} />
              </td>
              <td className="number">{c.records ? whole(c.records) : ''}</td>
              <td>{c.queue_limit_bytes ? text.fleet.queueOf(bytes(c.queued_bytes ?? 0), bytes(c.queue_limit_bytes)) : ''}</td>
              <td>
                {c.error} {c.error && c.since && <span className="faint">{ago(c.since, now)}</span>}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

function reasons(dropped: Record<string, number> | undefined): string {
  return Object.entries(dropped ?? {})
    .filter(([, n]) => n)
    .map(([why, n]) => `${why}: ${whole(n)}`)
    .join(', ')
}

function Count({ n, bad }: { n: number; bad?: boolean | undefined }) {
  return <td className={'number' + (n ? (bad ? ' bad' : '') : ' faint')}>{whole(n)}</td>
}

function Dropped({ by }: { by: Record<string, number> | undefined }) {
  const n = Object.values(by ?? {}).reduce((a, b) => a + b, 0)
  return (
    <td className={'number' + (n ? ' bad' : ' faint')} title={reasons(by)}>
      {whole(n)}
      {n > 0 && <div className="small">{reasons(by)}</div>}
    </td>
  )
}

function Ledger({ ledger }: { ledger: ReportLedger | undefined }) {
  const pipelines = ledger?.pipelines ?? []
  if (pipelines.length === 0) return <p className="faint">{t.noLedger}</p>
  const c = t.columns
  return (
    <>
      <p className="faint">{t.ledgerHelp}</p>
      <div className="scroll">
        <table className="rows ledger">
          <thead>
            <tr>
              <th>{t.pipeline}</th>
              {[c.accepted, c.created, c.filtered, c.absorbed, c.routed, c.dropped, c.held, c.passed, c.unexplained].map((n) => (
                <th key={n} className="number">
                  {n}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {pipelines.map((p) => (
              <tr key={p.pipeline}>
                <td>{p.pipeline}</td>
                <Count n={p.accepted} />
                <Count n={p.created} />
                <Count n={p.filtered} />
                <Count n={p.absorbed} />
                <Count n={p.routed} />
                <Dropped by={p.dropped} />
                <Count n={p.held} />
                <Count n={p.passed} />
                <Count n={p.unexplained} bad />
              </tr>
            ))}
          </tbody>
        </table>
        <table className="rows ledger">
          <thead>
            <tr>
              <th>{t.pipeline}</th>
              <th>{t.exporter}</th>
              {[c.in, c.delivered, c.queued, c.dropped, c.unexplained].map((n) => (
                <th key={n} className="number">
                  {n}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {pipelines.flatMap((p) =>
              (p.exporters ?? []).map((x) => (
                <tr key={p.pipeline + x.exporter}>
                  <td>{p.pipeline}</td>
                  <td>{x.exporter}</td>
                  <Count n={x.in} />
                  <Count n={x.delivered} />
                  <Count n={x.queued} />
                  <Dropped by={x.dropped} />
                  <Count n={x.unexplained} bad />
                </tr>
              )),
            )}
          </tbody>
        </table>
      </div>
    </>
  )
}

function Timeline({ events }: { events: Event[] }) {
  return (
    <ol className="timeline">
      {events.map((e, i) => (
        <li key={e.time + i}>
          <time>{stamp(e.time)}</time> <span className={'status ' + (e.kind === 'connected' || e.kind === 'started' || e.kind === 'configured' ? 'plain' : e.kind)}>{e.kind}</span> {e.cause}
        </li>
      ))}
    </ol>
  )
}

