// Who is signed in, and what they may do.

import { createContext, useContext } from 'react'
import { signOut } from '../api/client'
import { lack, type Operation } from '../api/operations'
import type { Me } from '../api/types'
import { stamp } from '../format'
import { text } from '../text'

const t = text.me

export const MeContext = createContext<Me>({ name: '', role: '' })

// useRefusal is why somebody may not do something; undefined if they may.
export function useRefusal(operation: Operation): string | undefined {
  return refusal(useContext(MeContext), operation)
}

export function refusal(me: Me, operation: Operation): string | undefined {
  const lacking = lack(me, operation)
  if (!lacking) return undefined
  return 'role' in lacking ? t.needsRole(lacking.role, me.name, me.role) : t.needsAll(me.name, lacking.within)
}

// NotForYou stands in the place of what somebody may not see.
export function NotForYou({ why }: { why: string }) {
  return (
    <div className="empty">
      <p>{t.notForYou}</p>
      <p>{why}</p>
    </div>
  )
}

const leave = () => void signOut().finally(() => location.assign('/')) // anew, so that nothing of what was seen is kept

// Menu is who is signed in, with what bounds them, and the way out.
export function Menu({ me }: { me: Me }) {
  return (
    <>
      {me.within && (
        <code className="within" title={t.within(me.within)}>
          {me.within}
        </code>
      )}
      <button type="button" className="plain who" popoverTarget="me" title={t.title}>
        <span>{me.name}</span> ▾
      </button>
      <div id="me" popover="auto" role="group" aria-label={t.title} onKeyDown={(e) => e.key === 'Escape' && e.stopPropagation()}>
        <dl>
          <div>
            <dt>{t.name}</dt>
            <dd>{me.name}</dd>
          </div>
          <div>
            <dt>{t.role}</dt>
            <dd>
              {me.role}: <span className="faint">{t.roles[me.role]}</span>
            </dd>
          </div>
          {me.within && (
            <div>
              <dt>{t.sees}</dt>
              <dd>
                <code>{me.within}</code>
              </dd>
            </div>
          )}
          {me.ends && (
            <div>
              <dt>{t.ends}</dt>
              <dd>{stamp(me.ends)}</dd>
            </div>
          )}
        </dl>
        <button type="button" onClick={leave}>
          {text.signIn.out}
        </button>
      </div>
    </>
  )
}
