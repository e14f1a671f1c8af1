// The tokens that somebody has been given to come in with.

import { Fragment, type ReactNode, useEffect, useState } from 'react'
import { send } from '../api/client'
import type { AccessToken, AccessTokenList } from '../api/types'
import { useAgain, useGet, useNow } from '../api/use'
import { ago, span, stamp, whole } from '../format'
import { text } from '../text'
import { Dialog } from './dialog'
import { useRefusal } from './me'
import { Known } from './state'

const t = text.access.tokens
const every = 3000 // milliseconds
const roles = ['admin', 'operator', 'viewer', 'agent', 'hub', 'ingest']

// Tokens is all that there are; created grows when there is another.
export function Tokens({ created }: { created: number }) {
  const tokens = useGet<AccessTokenList>('/tokens')
  const { again } = tokens
  const now = useNow(1000)
  const mayDelete = !useRefusal('deleteToken')
  const [asked, ask] = useState<AccessToken>()
  useAgain(tokens, every)
  useEffect(() => {
    if (created) again()
  }, [created, again])
  return (
    <>
      <p className="faint">{t.help}</p>
      <Known answer={tokens}>
        {({ tokens: list }) =>
          list.length === 0 ? (
            <p className="empty">{t.none}</p>
          ) : (
            <div className="scroll">
              <table className="rows tokens stacked">
                <thead>
                  <tr>
                    <th>{t.name}</th>
                    <th>{t.id}</th>
                    <th className="why">{t.what}</th>
                    <th>{t.made}</th>
                    <th>{t.ends}</th>
                    {mayDelete && <th />}
                  </tr>
                </thead>
                {[...new Set([...roles, ...list.map((x) => x.role)])].map((role) => {
                  const some = list.filter((x) => x.role === role)
                  return (
                    some.length > 0 && (
                      <tbody key={role}>
                        <tr className="group">
                          <th scope="rowgroup" colSpan={mayDelete ? 6 : 5}>
                            {t.roles[role] ?? role}
                          </th>
                        </tr>
                        {some.map((x) => (
                          <Row key={x.id} of={x} now={now} remove={mayDelete ? ask : undefined} />
                        ))}
                      </tbody>
                    )
                  )
                })}
              </table>
            </div>
          )
        }
      </Known>
      {asked && (
        <Dialog title={t.deleteSure(asked.name)} button={t.deleteButton} danger act={() => send('DELETE', `/tokens/${encodeURIComponent(asked.id)}`).then(again)} close={() => ask(undefined)}>
          <p>{asked.role === 'agent' ? t.deleteAgent : asked.role === 'hub' ? t.deleteHub : asked.role === 'ingest' ? t.deleteIngest : t.deletePerson}</p>
        </Dialog>
      )}
    </>
  )
}

function Row({ of: x, now, remove }: { of: AccessToken; now: number; remove: ((x: AccessToken) => void) | undefined }) {
  return (
    <tr>
      <td className="name">{x.name}</td>
      <td className="mono">{x.id}</td>
      <td className="why">
        {boundsOf(x).map((b, i) => (
          <Fragment key={i}>
            {i > 0 && '; '}
            {b}
          </Fragment>
        ))}
      </td>
      <td data-name={t.made} title={stamp(x.created)}>
        <span className="nowrap">{ago(x.created, now)}</span> {t.by(x.by)}
      </td>
      <td className="nowrap" data-name={t.ends} title={x.ends && stamp(x.ends)}>
        {x.ends ? t.inTime(span(Math.max(0, Date.parse(x.ends) - now))) : <span className="faint">{t.never}</span>}
      </td>
      {remove && (
        <td className="does">
          <button type="button" onClick={() => remove(x)}>
            {t.delete}
          </button>
        </td>
      )}
    </tr>
  )
}

// boundsOf is what a token is worth, beside its role.
function boundsOf(x: AccessToken): ReactNode[] {
  if (x.role === 'hub') return [t.uses(whole(x.uses ?? 0), whole(x.used ?? 0))]
  if (x.role === 'agent') {
    const labels = Object.entries(x.labels ?? {}).map(([k, v]) => `${k}=${v}`)
    return [t.uses(whole(x.uses ?? 0), whole(x.used ?? 0)), ...(labels.length ? [<>{t.labelled} <code>{labels.join(', ')}</code></>] : [])]
  }
  if (x.role === 'ingest') return [`${t.signals} ${x.signals?.join(', ') || t.allSignals}`, ...(x.records ? [t.records(whole(x.records))] : [])]
  return [x.within ? <>{t.sees} <code>{x.within}</code></> : t.seesAll]
}
