import './access.css'
import { type ReactNode, useContext, useEffect, useState } from 'react'
import { send } from '../api/client'
import type { Cluster, ClusterHub, ControlState, StateMember } from '../api/types'
import { useNow, useWatched } from '../api/use'
import { ago, bytes, milliseconds, span, stamp, whole } from '../format'
import { Copy } from '../parts/copy'
import { Dialog } from '../parts/dialog'
import { type Departed, HubContext, hubName, type Roll, roll } from '../parts/hubs'
import { useRefusal } from '../parts/me'
import { Known } from '../parts/state'
import { Link } from '../router'
import { text } from '../text'

const t = text.cluster

export function ClusterPage() {
  const cluster = useWatched<Cluster>('/cluster/watch', {}, 'cluster')
  const [{ gone }, set] = useState<Roll>({ there: [], gone: [] })
  const list = cluster.value?.hubs
  useEffect(() => {
    if (list) set((before) => roll(before, list, Date.now()))
  }, [list])
  return (
    <div className="page cluster">
      <div className="head">
        <h1>{t.title}</h1>
      </div>
      <p className="faint">{t.help}</p>
      <Known answer={cluster}>{(c) => <Shown c={c} gone={gone} />}</Known>
    </div>
  )
}

function Shown({ c, gone }: { c: Cluster; gone: Departed[] }) {
  const now = useNow(1000)
  const hubs = c.hubs ?? []
  return (
    <>
      <section id="hubs">
        <h2>
          {t.hubs} <span className="faint">{whole(hubs.length)}</span>
        </h2>
        <p>{c.leader ? <>{t.leads(hubName(hubs, c.leader))} {c.since && <span className="faint" title={stamp(c.since)}>{t.forTime(span(Math.max(0, now - Date.parse(c.since))))}</span>}</> : <span className="ill">{t.noLeader}</span>}</p>
        {hubs.length === 0 ? <p className="empty">{t.nobody}</p> : <Hubs c={c} hubs={hubs} gone={gone} now={now} />}
        {hubs.length === 1 && gone.length === 0 && <Alone />}
      </section>
      <section id="state">
        <h2>{t.state}</h2>
        <State of={c.state} hubs={[...hubs, ...gone.map((d) => d.hub)]} now={now} />
      </section>
    </>
  )
}

function Hubs({ c, hubs, gone, now }: { c: Cluster; hubs: ClusterHub[]; gone: Departed[]; now: number }) {
  const absent = useContext(HubContext)?.absent ?? []
  const mayDrain = !useRefusal('drainHub')
  const [asked, ask] = useState<ClusterHub>()
  const agents = hubs.reduce((n, h) => n + h.agents, 0)
  return (
    <>
      <div className="scroll">
        <table className="rows hubs stacked" aria-label={t.hubs}>
          <thead>
            <tr>
              <th>{t.hub}</th>
              <th>{t.status}</th>
              <th title={t.agentsHelp}>{t.agents}</th>
              <th>{t.version}</th>
              <th>{t.started}</th>
              <th>{t.url}</th>
              {mayDrain && <th />}
            </tr>
          </thead>
          <tbody>
            {hubs.map((h) => (
              <HubRow key={h.id} of={h} c={c} agents={agents} now={now} silent={absent.find((a) => a.hub === h.id)?.error} drain={mayDrain ? (hubs.length > 1 || h.draining ? () => ask(h) : null) : undefined} />
            ))}
            {gone.map(({ hub, at }) => (
              <tr key={hub.id} className="gone">
                <Who of={hub} />
                <td className="nowrap">
                  <span className="status lost">{t.gone(ago(at, now))}</span>
                </td>
                <td />
                <td data-name={t.version}>{hub.version}</td>
                <td />
                <td className="mono url">{hub.url}</td>
                {mayDrain && <td />}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {asked && <Drain of={asked} close={() => ask(undefined)} />}
    </>
  )
}

function Who({ of: h, children }: { of: ClusterHub; children?: ReactNode }) {
  return (
    <td className="who">
      <span className="name">{h.name || h.id}</span> {children}
      <div className="mono small faint">{h.id}</div>
    </td>
  )
}

// drain is null where that makes no sense, undefined for who may not.
function HubRow({ of: h, c, agents, now, silent, drain }: { of: ClusterHub; c: Cluster; agents: number; now: number; silent: string | undefined; drain: (() => void) | null | undefined }) {
  return (
    <tr>
      <Who of={h}>
        {h.id === c.leader && (
          <span className="stage running" title={t.leaderHelp}>
            {t.leader}
          </span>
        )}{' '}
        {h.id === c.hub && <span className="stage">{t.self}</span>}
      </Who>
      <td>
        <span className={'status ' + (silent ? 'lost' : h.draining ? 'degraded' : 'healthy')} title={h.draining ? t.drainingHelp : undefined}>
          {silent ? t.silent : h.draining ? t.draining : t.answers}
        </span>
        {silent && h.draining && <> <span className="status degraded">{t.draining}</span></>}
        {silent && <div className="small faint">{silent}</div>}
      </td>
      <td className="nowrap" data-name={t.agents}>
        <span className="fill" aria-hidden="true">
          <i style={{ width: `${agents ? (h.agents / agents) * 100 : 0}%` }} />
        </span>{' '}
        {whole(h.agents)}
      </td>
      <td data-name={t.version}>{h.version}</td>
      <td className="nowrap" data-name={t.started} title={stamp(h.started)}>
        {ago(h.started, now)}
      </td>
      <td className="mono url">{h.url ? <a href={h.url}>{h.url}</a> : <span className="faint">{t.noURL}</span>}</td>
      {drain !== undefined && (
        <td className="does">
          {drain && (
            <button type="button" onClick={drain}>
              {h.draining ? t.takeBack : t.drain}
            </button>
          )}
        </td>
      )}
    </tr>
  )
}

function Drain({ of: h, close }: { of: ClusterHub; close: () => void }) {
  const [on] = useState(!h.draining)
  const name = h.name || h.id
  return (
    <Dialog
      title={on ? t.drainSure(name) : t.backSure(name)}
      field={t.cause}
      button={on ? t.drainButton : t.backButton}
      danger={on}
      act={(cause) => send('POST', `/hubs/${encodeURIComponent(h.id)}/drain`, { drain: on, ...(cause ? { cause } : {}) })}
      close={close}
    >
      <p>{on ? t.drainHelp : t.backHelp}</p>
    </Dialog>
  )
}

// Alone says what one hub is, and how there are more.
function Alone() {
  const mayCreate = !useRefusal('createToken')
  return (
    <div className="empty joining">
      <p>{t.alone}</p>
      <h3>{t.join}</h3>
      <p>{t.joinHelp}</p>
      <Copy label={t.joinLabel} text={t.joinText(location.origin)} />
      {mayCreate && (
        <Link to="/access?view=tokens" className="button main">
          {text.access.knocking.makeToken}
        </Link>
      )}
    </div>
  )
}

function State({ of: s, hubs, now }: { of: ControlState; hubs: ClusterHub[]; now: number }) {
  const members = s.members ?? []
  const voters = members.filter((m) => !m.learner).length
  return (
    <>
      {s.error && (
        <p className="warn" role="alert">
          {s.error}
        </p>
      )}
      <dl className="facts">
        <Fact name={t.health}>
          <span className={'status ' + (s.healthy ? 'healthy' : 'lost')}>{s.healthy ? t.healthy : t.ill}</span>
        </Fact>
        <Fact name={t.lease}>{s.leased ? t.leased : <span className="bad">{t.leaseLost}</span>}</Fact>
        {s.answered && (
          <Fact name={t.answered}>
            <span title={stamp(s.answered)}>{ago(s.answered, now)}</span> <span className="faint">{t.took(milliseconds(s.took * 1000))}</span>
          </Fact>
        )}
        <Fact name={t.where}>{s.embedded ? t.embedded : t.outside}</Fact>
        {s.embedded && voters > 0 && <Fact name={t.mayFail}>{t.tolerates(Math.floor((voters - 1) / 2), voters)}</Fact>}
      </dl>
      {members.length > 0 && <Members list={members} hubs={hubs} />}
    </>
  )
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  )
}

// Members are called as their hubs, where they are within them.
function Members({ list, hubs }: { list: StateMember[]; hubs: ClusterHub[] }) {
  return (
    <div className="scroll">
      <table className="rows members stacked" aria-label={t.members}>
        <thead>
          <tr>
            <th>{t.member}</th>
            <th>{t.status}</th>
            <th className="number">{t.size}</th>
            <th>{t.peer}</th>
          </tr>
        </thead>
        <tbody>
          {list.map((m) => (
            <tr key={m.name + m.peer}>
              <td className="who">
                <span className="name">{hubName(hubs, m.name)}</span>{' '}
                {m.leader && (
                  <span className="stage running" title={t.etcdLeaderHelp}>
                    {t.leader}
                  </span>
                )}{' '}
                {m.learner && (
                  <span className="stage paused" title={t.learnerHelp}>
                    {t.learner}
                  </span>
                )}{' '}
                {m.self && <span className="stage">{t.self}</span>}
                {hubs.some((h) => h.id === m.name) && <div className="mono small faint">{m.name}</div>}
              </td>
              <td className="nowrap">
                <span className={'status ' + (m.full || !m.healthy ? 'lost' : 'healthy')} title={m.full ? t.fullHelp : undefined}>
                  {!m.healthy ? t.silent : m.full ? t.full : t.answers}
                </span>
              </td>
              <td className="number" data-name={t.size}>
                {m.size ? bytes(m.size) : ''}
              </td>
              <td className="mono url" data-name={t.peer}>
                {m.peer}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}
