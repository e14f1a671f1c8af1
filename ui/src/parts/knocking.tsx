// Who was refused, who may not come in any more, and letting them in.

import { useState } from 'react'
import { send } from '../api/client'
import type { Knock, KnockList, Revocation } from '../api/types'
import { useNow } from '../api/use'
import { ago, stamp, whole } from '../format'
import { Link } from '../router'
import { text } from '../text'
import { Dialog } from './dialog'
import { useRefusal } from './me'

const t = text.access.knocking
const r = text.access.revoked

const agentPath = (id: string) => `/agents/${encodeURIComponent(id)}`

// admittable reports whether admitting is what helps: of whom there is nothing to admit, the remedy says what does.
export const admittable = (k: Knock) => k.agent !== undefined && k.agent !== '' && (k.reason === 'revoked' || k.reason === 'cloned')

export function Knocking({ list, again, create }: { list: KnockList; again: () => void; create: (() => void) | undefined }) {
  const now = useNow(1000)
  const mayAdmit = !useRefusal('admitAgent')
  const [asked, ask] = useState<Asked>()
  const knocks = list.knocks ?? []
  const revoked = list.revoked ?? []
  return (
    <>
      <section id="refused">
        <h2>
          {t.title} <span className="faint">{whole(knocks.length)}</span>
        </h2>
        <p className="faint">{t.help}</p>
        {knocks.length === 0 ? <Nobody create={create} /> : <Knocks list={knocks} now={now} admit={mayAdmit ? (k) => ask({ id: k.agent ?? '', name: k.name, cloned: k.reason === 'cloned' }) : undefined} />}
      </section>
      <section id="revoked">
        <h2>
          {r.title} <span className="faint">{whole(revoked.length)}</span>
        </h2>
        <p className="faint">{r.help}</p>
        {revoked.length === 0 ? <p className="empty">{r.none}</p> : <Revoked list={revoked} now={now} admit={mayAdmit ? (x) => ask({ id: x.agent, name: x.name, cloned: false }) : undefined} />}
      </section>
      {asked && <Admit asked={asked} close={() => ask(undefined)} done={again} />}
    </>
  )
}

// local is whether the hub is asked at an address at which its own machine's agents need no identity.
export const local = /^(localhost|127\..*|\[::1\])$/.test(globalThis.location?.hostname ?? '')

function Nobody({ create }: { create: (() => void) | undefined }) {
  return (
    <div className="empty joining">
      <p>{t.none}</p>
      <h3>{t.join}</h3>
      {local && (
        <p>
          {t.here} <code>creel agent -c FILE --hub {location.origin}</code>
        </p>
      )}
      <p>{t.elsewhere}</p>
      {create && (
        <button type="button" onClick={create}>
          {t.makeToken}
        </button>
      )}
    </div>
  )
}

function Who({ id, name }: { id?: string | undefined; name?: string | undefined }) {
  return (
    <>
      <div>{id ? <Link to={agentPath(id)} className="name">{name || id}</Link> : <span className={name ? 'name' : 'faint'}>{name || t.nameless}</span>}</div>
      {id && name && <div className="mono small faint id">{id}</div>}
    </>
  )
}

function Knocks({ list, now, admit }: { list: Knock[]; now: number; admit: ((k: Knock) => void) | undefined }) {
  return (
    <div className="scroll">
      <table className="rows knocks stacked" aria-label={t.title}>
        <thead>
          <tr>
            <th>{t.who}</th>
            <th>{t.from}</th>
            <th className="why">{t.why}</th>
            <th className="number">{t.times}</th>
            <th>{t.last}</th>
            {admit && <th />}
          </tr>
        </thead>
        <tbody>
          {list.map((k) => (
            <tr key={`${k.agent ?? k.address} ${k.reason}`}>
              <td>
                <Who id={k.agent} name={k.name} />
              </td>
              <td className="mono address" data-name={t.from}>{k.address}</td>
              <td className="why">
                <Reason of={k} />
              </td>
              <td className="number" data-name={t.times}>{whole(k.count)}</td>
              <td className="nowrap" data-name={t.last} title={`${stamp(k.last)}, ${t.first(stamp(k.first))}`}>
                {ago(k.last, now)}
              </td>
              {admit && (
                <td className="does">
                  {admittable(k) && (
                    <button type="button" onClick={() => admit(k)}>
                      {t.admit}
                    </button>
                  )}
                </td>
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

function Reason({ of: k }: { of: Knock }) {
  return (
    <>
      <span className="status refused">{t.reasons[k.reason] ?? k.reason}</span> {k.text}
      {k.remedy && <div className="remedy">{k.remedy}</div>}
    </>
  )
}

function Revoked({ list, now, admit }: { list: Revocation[]; now: number; admit: ((x: Revocation) => void) | undefined }) {
  return (
    <div className="scroll">
      <table className="rows revocations stacked" aria-label={r.title}>
        <thead>
          <tr>
            <th>{r.agent}</th>
            <th>{r.when}</th>
            <th>{r.by}</th>
            <th className="why">{r.cause}</th>
            {admit && <th />}
          </tr>
        </thead>
        <tbody>
          {list.map((x) => (
            <tr key={x.agent}>
              <td>
                <Who id={x.agent} name={x.name} />
              </td>
              <td className="nowrap" data-name={r.when} title={stamp(x.time)}>
                {ago(x.time, now)}
              </td>
              <td data-name={r.by}>{x.by}</td>
              <td className="why" data-name={r.cause}>{x.cause}</td>
              {admit && (
                <td className="does">
                  <button type="button" onClick={() => admit(x)}>
                    {t.admit}
                  </button>
                </td>
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

interface Asked {
  id: string
  name?: string | undefined
  cloned: boolean
}

function Admit({ asked, close, done }: { asked: Asked; close: () => void; done: () => void }) {
  return (
    <Dialog title={t.admitSure(asked.name || asked.id)} field={t.cause} button={t.admitButton} act={(cause) => send('POST', agentPath(asked.id) + '/admit', { cause }).then(done)} close={close}>
      <p>{asked.cloned ? t.admitCloned : t.admitRevoked}</p>
    </Dialog>
  )
}

// Trouble is what is wrong with one agent's identity; nothing if nothing is.
export function IdentityTrouble({ id, name, list, again }: { id: string; name: string; list: KnockList; again: () => void }) {
  const now = useNow(1000)
  const mayAdmit = !useRefusal('admitAgent')
  const [asked, ask] = useState<Asked>()
  const revocation = list.revoked?.find((x) => x.agent === id)
  const knocks = list.knocks?.filter((k) => k.agent === id && !(revocation && k.reason === 'revoked')) ?? []
  if (!revocation && knocks.length === 0) return null
  return (
    <div className="notice identity" role="note">
      {revocation && (
        <p>
          <span className="status refused">{r.is}</span> {r.byAt(revocation.by, stamp(revocation.time))}
          {revocation.cause && `: ${revocation.cause}`}
        </p>
      )}
      {knocks.map((k) => (
        <div key={k.reason}>
          <Reason of={k} />
          <p className="faint">{r.knocks(k.address, r.times(k.count), ago(k.last, now))}</p>
        </div>
      ))}
      {mayAdmit && (revocation || knocks.some(admittable)) && (
        <button type="button" onClick={() => ask({ id, name, cloned: !revocation })}>
          {t.admit}
        </button>
      )}
      {asked && <Admit asked={asked} close={() => ask(undefined)} done={again} />}
    </div>
  )
}

// Revoke asks before an agent is let in no more.
export function Revoke({ id, name, close, done }: { id: string; name: string; close: () => void; done: () => void }) {
  return (
    <Dialog title={r.revokeSure(name || id)} field={t.cause} button={r.revokeButton} danger act={(cause) => send('POST', agentPath(id) + '/revoke', { cause }).then(done)} close={close}>
      <p>{r.revokeHelp}</p>
      <p className="faint">{r.revokeLocal}</p>
    </Dialog>
  )
}
