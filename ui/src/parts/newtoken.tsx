// Making a token. Its text is in this dialog alone, and gone when that is closed.

import { useState } from 'react'
import { type Failure, send } from '../api/client'
import type { AccessTokenCreated, AccessTokenRequest } from '../api/types'
import { text } from '../text'
import { Copy } from './copy'
import { Modal } from './dialog'
import { Trouble } from './state'

const t = text.access.newToken
const roles = ['agent', 'viewer', 'operator', 'admin', 'ingest', 'hub']
const signals = ['logs', 'metrics', 'traces']
const hour = 3600 // seconds, and the longest that a token to join with is worth something

const joins = (role: string) => role === 'agent' || role === 'hub'

// labelsOf reads name=value, name=value. A string is what is wrong.
export function labelsOf(written: string): Record<string, string> | string {
  const labels: Record<string, string> = {}
  for (const part of written.split(/[,\n]/)) {
    if (part.trim() === '') continue
    const at = part.indexOf('=')
    if (part.slice(0, Math.max(0, at)).trim() === '') return t.labelsWrong(part.trim())
    labels[part.slice(0, at).trim()] = part.slice(at + 1).trim()
  }
  return labels
}

export interface Wanted {
  name: string
  role: string
  within: string
  signals: string[]
  records: string
  labels: Record<string, string>
  uses: string
  seconds: number // 0: for ever
}

// request is what is wanted as the hub is asked for it: of each role what it has.
export function request(w: Wanted): AccessTokenRequest {
  const some = { name: w.name.trim(), role: w.role, ...(w.seconds ? { seconds: w.seconds } : {}) }
  if (w.role === 'agent') return { ...some, uses: Number(w.uses) || 1, ...(Object.keys(w.labels).length ? { labels: w.labels } : {}) }
  if (w.role === 'hub') return some
  if (w.role === 'ingest') return { ...some, ...(w.signals.length < signals.length ? { signals: w.signals } : {}), ...(Number(w.records) ? { records: Number(w.records) } : {}) }
  return { ...some, ...(w.within.trim() ? { within: w.within.trim() } : {}) }
}

export function NewToken({ created, close }: { created: () => void; close: () => void }) {
  const [made, setMade] = useState<AccessTokenCreated>()
  if (made) return <Made token={made} close={close} />
  return (
    <Modal title={t.title} close={close}>
      <Form
        close={close}
        made={(token) => {
          setMade(token)
          created()
        }}
      />
    </Modal>
  )
}

function Form({ made, close }: { made: (token: AccessTokenCreated) => void; close: () => void }) {
  const [w, setWanted] = useState({ name: '', role: 'agent', within: '', signals, records: '', labels: '', uses: '1', seconds: hour })
  const [busy, setBusy] = useState(false)
  const [failure, setFailure] = useState<Pick<Failure, 'code' | 'message'>>()
  const set = (more: Partial<typeof w>) => setWanted({ ...w, ...more })
  const submit = (e: React.FormEvent) => {
    e.preventDefault()
    if (busy) return
    const labels = labelsOf(w.labels)
    if (w.role === 'agent' && typeof labels === 'string') return setFailure({ code: 'bad_request', message: labels })
    setBusy(true)
    setFailure(undefined)
    send<AccessTokenCreated>('POST', '/tokens', request({ ...w, labels: typeof labels === 'string' ? {} : labels })).then(made, (f: Failure) => {
      setFailure(f)
      setBusy(false)
    })
  }
  const lives = t.lives.filter(([seconds]) => !joins(w.role) || (seconds > 0 && seconds <= hour))
  return (
    <form onSubmit={submit} className="form">
      <h2>{t.title}</h2>
      <fieldset>
        <legend>{text.access.tokens.role}</legend>
        {roles.map((role) => (
          <label key={role} className="check">
            <input type="radio" name="role" checked={w.role === role} autoFocus={role === w.role} onChange={() => set({ role, seconds: joins(role) ? hour : joins(w.role) ? 90 * 24 * hour : w.seconds })} />
            {text.access.tokens.choices[role]}
          </label>
        ))}
      </fieldset>
      <label className="words">
        {t.name}
        <input value={w.name} maxLength={100} required autoComplete="off" placeholder={t.nameHelp} onChange={(e) => set({ name: e.target.value })} />
      </label>
      <div className="bounds">
        {w.role === 'agent' && (
          <>
            <label className="words">
              {t.uses}
              <input type="number" min="1" max="10000" required value={w.uses} onChange={(e) => set({ uses: e.target.value })} />
            </label>
            <label className="words">
              {t.labels}
              <input value={w.labels} autoComplete="off" spellCheck={false} placeholder={t.labelsHelp} onChange={(e) => set({ labels: e.target.value })} />
            </label>
          </>
        )}
        {w.role === 'ingest' && (
          <>
            <fieldset className="row">
              <legend>{t.signals}</legend>
              {signals.map((s) => (
                <label key={s} className="check">
                  <input type="checkbox" checked={w.signals.includes(s)} required={w.signals.length === 0} onChange={(e) => set({ signals: signals.filter((x) => (x === s ? e.target.checked : w.signals.includes(x))) })} />
                  {s}
                </label>
              ))}
            </fieldset>
            <label className="words">
              {t.records}
              <input type="number" min="1" value={w.records} placeholder={t.recordsHelp} onChange={(e) => set({ records: e.target.value })} />
            </label>
          </>
        )}
        {!joins(w.role) && w.role !== 'ingest' && (
          <label className="words">
            {t.within}
            <input className="mono" value={w.within} autoComplete="off" spellCheck={false} placeholder={t.withinHelp} onChange={(e) => set({ within: e.target.value })} />
          </label>
        )}
      </div>
      <label className="words">
        {t.life}
        <select value={w.seconds} onChange={(e) => set({ seconds: Number(e.target.value) })}>
          {lives.map(([seconds, name]) => (
            <option key={seconds} value={seconds}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <Trouble failure={failure} />
      <div className="acts">
        <button type="submit" className="main" disabled={busy}>
          {t.button}
        </button>
        <button type="button" onClick={close}>
          {text.cancel}
        </button>
      </div>
    </form>
  )
}

// Made shows the text once. Only its button closes it: what is lost by a slip cannot be had again.
function Made({ token, close }: { token: AccessTokenCreated; close: () => void }) {
  return (
    <Modal title={t.made(token.name)}>
      <h2>{t.made(token.name)}</h2>
      <p>{t.once}</p>
      {token.join && (
        <>
          <Copy label={t.join} text={token.join} focus />
          <p className="faint">{token.role === 'hub' ? t.joinHub : t.joinHelp}</p>
        </>
      )}
      {token.role === 'agent' && !token.join && <p className="ill">{t.joinNone}</p>}
      <Copy label={t.text} text={token.text} focus={!token.join} />
      {!joins(token.role) && <p className="faint">{token.role === 'ingest' ? t.ingestHelp : t.personHelp}</p>}
      <div className="acts">
        <button type="button" className="main" onClick={close}>
          {t.done}
        </button>
      </div>
    </Modal>
  )
}
