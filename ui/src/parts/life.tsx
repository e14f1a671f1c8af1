// Where an agent is in its life, how it came there, and what it can be asked for.

import { useState } from 'react'
import { send } from '../api/client'
import type { AgentDetail, Event, Order, ReportTransition } from '../api/types'
import { ago, since, stamp } from '../format'
import { text } from '../text'
import { Dialog } from './dialog'
import { useRefusal } from './me'

const t = text.agent

// ordersFor returns what it makes sense to ask an agent for. Who is a part of a hub cannot be ended by it.
export function ordersFor(d: Pick<AgentDetail, 'type' | 'labels' | 'intended'>): { name: string; refused: boolean }[] {
  if (d.type !== 'creel') return []
  const held = (d.intended?.life?.holds ?? []).some((h) => h.by === 'operator')
  const hub = d.labels['creel.role'] === 'hub'
  return (held ? ['resume', 'drain', 'restart', 'stop'] : ['pause', 'drain', 'restart', 'stop']).map((name) => ({ name, refused: hub && (name === 'restart' || name === 'stop') }))
}

export function Life({ d, now }: { d: AgentDetail; now: number }) {
  const [asked, ask] = useState<string>()
  const life = d.intended?.life
  const orders = ordersFor(d)
  const mayOrder = !useRefusal('orderAgent')
  if (!life?.state && orders.length === 0) return null
  const connected = d.connection === 'connected'
  return (
    <section id="state">
      <h2>{t.state}</h2>
      <div className="life">
        {life?.state && (
          <p>
            <span className={'stage ' + life.state}>{t.states[life.state] ?? life.state}</span> <span title={stamp(life.since)}>{t.sinceTime(since(life.since))}</span>
          </p>
        )}
        {mayOrder && (
          <div className="acts" role="group" aria-label={t.ordersLabel}>
            {orders.map((o) => (
              <button key={o.name} type="button" disabled={o.refused} title={o.refused ? t.orderHub : t.orderHelp[o.name]} onClick={() => ask(o.name)}>
                {t.orders[o.name]}
              </button>
            ))}
          </div>
        )}
        <Last order={d.intended?.order} connected={connected} now={now} />
      </div>
      {(life?.holds ?? []).length > 0 && (
        <ul className="holds">
          {life?.holds?.map((h) => (
            <li key={h.by}>
              <b>{t.heldBy(h.by)}</b> {t.sinceTime(since(h.since))}: {h.cause} <span className="faint">({h.by === 'operator' ? t.holdEnds.operator : t.holdEnds.itself})</span>
            </li>
          ))}
        </ul>
      )}
      {asked && (
        <Dialog
          title={t.orderSure(t.orders[asked] ?? asked, d.name || d.id)}
          field={t.orderCause}
          button={t.orders[asked] ?? asked}
          danger={asked === 'restart' || asked === 'stop'}
          act={(cause) => send<Order>('POST', `/agents/${encodeURIComponent(d.id)}/orders`, { do: asked, cause })}
          close={() => ask(undefined)}
        >
          <p>{t.orderHelp[asked]}</p>
          {!connected && <p className="ill">{t.orderLater}</p>}
        </Dialog>
      )}
    </section>
  )
}

function Last({ order: o, connected, now }: { order: Order | undefined; connected: boolean; now: number }) {
  if (!o) return null
  return (
    <p className="last-order" role="status">
      <span className="faint">{t.lastOrder}:</span> <span title={stamp(o.time)}>{t.ordered((t.orders[o.do] ?? o.do).toLowerCase(), o.by, ago(o.time, now))}</span>
      {o.cause && `: ${o.cause}`}{' '}
      <span className={'status ' + (o.done ? 'running' : 'waiting')}>{o.done ? t.orderDone : connected ? t.orderWaits : t.orderWaitsAway}</span>
    </p>
  )
}

// A Happening is an event as the hub saw it, or a transition as the agent tells it.
export type Happening = Event & { transition?: ReportTransition }

// happenings are both, newest first. Where the agent tells how it was paused and resumed, the hub need not.
export function happenings(events: Event[], history: ReportTransition[]): Happening[] {
  const told = history.length ? Math.min(...history.map((h) => Date.parse(h.time))) : Infinity
  const seen = events.filter((e) => !((e.kind === 'paused' || e.kind === 'resumed') && Date.parse(e.time) >= told))
  const own = history.map((h): Happening => ({ time: h.time, kind: h.to, cause: [h.event, h.cause].filter(Boolean).join(': '), transition: h }))
  return [...seen, ...own].sort((a, b) => Date.parse(b.time) - Date.parse(a.time))
}

const quiet = new Set(['connected', 'started', 'configured', 'ordered', 'resumed'])

export function Timeline({ events, history }: { events: Event[]; history: ReportTransition[] }) {
  return (
    <ol className="timeline">
      {happenings(events, history).map((e, i) => (
        <li key={e.time + i}>
          <time>{stamp(e.time)}</time>{' '}
          {e.transition ? (
            <span className={'status ' + e.kind}>{t.transition(t.states[e.transition.from] ?? e.transition.from, t.states[e.transition.to] ?? e.transition.to)}</span>
          ) : (
            <span className={'status ' + (quiet.has(e.kind) ? 'plain' : e.kind)}>{t.outcomes[e.kind] ?? e.kind}</span>
          )}{' '}
          {e.cause}
        </li>
      ))}
    </ol>
  )
}
