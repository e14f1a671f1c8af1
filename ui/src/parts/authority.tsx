// The hub's own authority: what is trusted, for how long, and how that is changed.

import { type ReactNode, useState } from 'react'
import { send } from '../api/client'
import type { Authority, Root } from '../api/types'
import { useAgain, useGet, useNow } from '../api/use'
import { span, stamp, whole } from '../format'
import { Link } from '../router'
import { text } from '../text'
import { Dialog } from './dialog'
import { useRefusal } from './me'
import { Known } from './state'

const t = text.access.authority
const every = 3000 // milliseconds
const mostBehind = 100 // that the API names

// What may be done in a phase, by the names of the texts, and which step the hub calls that.
const steps: Record<string, [string, string][]> = {
  steady: [['renew', 'renew'], ['rotate', 'rotate']],
  announced: [['issue', 'next'], ['withdraw', 'back'], ['renew', 'renew']],
  issuing: [['finish', 'next'], ['reissue', 'back'], ['renew', 'renew']],
}

export function AuthorityView() {
  const authority = useGet<Authority>('/authority')
  useAgain(authority, every)
  return <Known answer={authority}>{(a) => <Shown a={a} again={authority.again} />}</Known>
}

function Shown({ a, again }: { a: Authority; again: () => void }) {
  const now = useNow(1000)
  const mayChange = !useRefusal('changeAuthority')
  const [asked, ask] = useState<[string, string]>()
  const behind = a.behind ?? []
  const count = behind.length < mostBehind ? whole(behind.length) : `${whole(behind.length)} ${t.most}`
  const [phase, phaseHelp] = t.phases[a.phase] ?? [a.phase, '']
  return (
    <>
      {(a.warnings ?? []).length > 0 && (
        <div className="notice" role="alert">
          <h2>{t.warnings}</h2>
          <ul>
            {a.warnings?.map((w) => (
              <li key={w}>{w}</li>
            ))}
          </ul>
        </div>
      )}
      <dl className="facts">
        <Fact name={t.phase}>
          <b>{phase}</b> <span className="faint">{phaseHelp}</span>
        </Fact>
        <Fact name={t.ends}>
          <Ends at={a.ends} now={now} />
        </Fact>
        <Fact name={t.rootKey}>{a.root_key ? t.keyHere : t.keyAway}</Fact>
        <Fact name={t.confirmed}>{t.confirmedOf(whole(a.confirmed), whole(a.confirmed + behind.length))}</Fact>
        {behind.length > 0 && (
          <Fact name={`${t.behind}: ${count}`}>
            <span className="behind">
              {behind.map((id) => (
                <Link key={id} to={`/agents/${encodeURIComponent(id)}`} className="mono small">
                  {id}
                </Link>
              ))}
            </span>
          </Fact>
        )}
      </dl>
      {mayChange && (
        <div className="acts steps">
          {(steps[a.phase] ?? []).map(([name, step]) => (
            <button key={name} type="button" onClick={() => ask([name, step])}>
              {t.steps[name]?.[0]}
            </button>
          ))}
        </div>
      )}
      <section>
        <h2>{t.roots}</h2>
        <Roots list={a.roots ?? []} now={now} />
      </section>
      <section>
        <h2>{t.tls}</h2>
        {a.tls ? (
          <dl className="facts">
            <Fact name={t.names}>
              <span className="mono names">{(a.tls.names ?? []).join(', ')}</span>
            </Fact>
            <Fact name={t.rootEnds}>
              <Ends at={a.tls.ends} now={now} />
            </Fact>
            <Fact name={t.from}>{a.tls.own ? t.own : t.file}</Fact>
          </dl>
        ) : (
          <p className="faint">{t.tlsNone}</p>
        )}
      </section>
      {asked && <Step name={asked[0]} step={asked[1]} behind={behind.length} count={count} done={again} close={() => ask(undefined)} />}
    </>
  )
}

function Step({ name, step, behind, count, done, close }: { name: string; step: string; behind: number; count: string; done: () => void; close: () => void }) {
  const [force, setForce] = useState(false)
  const [, title = '', button = '', help] = t.steps[name] ?? []
  const leaves = step === 'next' && behind > 0
  return (
    <Dialog title={title} button={button} danger={name === 'finish' || leaves} act={() => send('POST', '/authority', { step, ...(leaves && force ? { force } : {}) }).then(done)} close={close}>
      <p>{help}</p>
      {leaves && (
        <>
          <p className="bad">{t.behindNow(count)}</p>
          <label className="check">
            <input type="checkbox" checked={force} onChange={(e) => setForce(e.target.checked)} /> {t.force}
          </label>
        </>
      )}
    </Dialog>
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

function Ends({ at, now }: { at: string; now: number }) {
  const left = Date.parse(at) - now
  return (
    <>
      {stamp(at)} <span className={left > 0 ? 'faint' : 'bad'}>{left > 0 ? t.left(span(left)) : t.ended}</span>
    </>
  )
}

function Roots({ list, now }: { list: Root[]; now: number }) {
  return (
    <div className="scroll">
      <table className="rows roots stacked">
        <thead>
          <tr>
            <th>{t.fingerprint}</th>
            <th>{t.begins}</th>
            <th>{t.rootEnds}</th>
            <th>{t.use}</th>
          </tr>
        </thead>
        <tbody>
          {list.map((r) => (
            <tr key={r.fingerprint}>
              <td className="mono">{r.fingerprint}</td>
              <td className="nowrap" data-name={t.begins}>
                {stamp(r.begins)}
              </td>
              <td className="nowrap" data-name={t.rootEnds}>
                <Ends at={r.ends} now={now} />
              </td>
              <td>
                <span className={'status ' + (r.issues ? 'running' : 'plain')}>{r.issues ? t.issues : t.trusted}</span>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}
