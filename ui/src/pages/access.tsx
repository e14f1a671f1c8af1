import './access.css'
import { useState } from 'react'
import type { KnockList } from '../api/types'
import { useAgain, useGet } from '../api/use'
import { AuditLog } from '../parts/audit'
import { AuthorityView } from '../parts/authority'
import { Knocking } from '../parts/knocking'
import { NotForYou, useRefusal } from '../parts/me'
import { NewToken } from '../parts/newtoken'
import { Known } from '../parts/state'
import { Tokens } from '../parts/tokens'
import { change, Link, type Place } from '../router'
import { text } from '../text'

const t = text.access
const every = 2000 // milliseconds

const views = ['knocking', 'tokens', 'authority', 'audit'] as const

export function AccessPage({ place }: { place: Place }) {
  const view = views.find((v) => v === place.params.get('view')) ?? 'knocking'
  const to = (v: string) => change({ ...place, params: new URLSearchParams() }, { view: v === 'knocking' ? undefined : v })
  const knocks = useGet<KnockList>(view === 'knocking' ? '/knocks' : null)
  useAgain(knocks, every)
  const mayCreate = !useRefusal('createToken')
  const noTokens = useRefusal('listTokens')
  const noAudit = useRefusal('listAudit')
  const [creating, setCreating] = useState(false)
  const [created, setCreated] = useState(0)
  return (
    <div className="page access">
      <div className="head">
        <h1>{t.title}</h1>
        <span className="space" />
        {mayCreate && (
          <button type="button" className="main" onClick={() => setCreating(true)}>
            {t.tokens.create}
          </button>
        )}
      </div>
      <nav className="views" aria-label={t.views.label}>
        {views.map((v) => (
          <Link key={v} to={to(v)} aria-current={v === view ? 'page' : undefined}>
            {t.views[v]}
          </Link>
        ))}
      </nav>
      {view === 'knocking' && <Known answer={knocks}>{(list) => <Knocking list={list} again={knocks.again} create={mayCreate ? () => setCreating(true) : undefined} />}</Known>}
      {view === 'tokens' && (noTokens ? <NotForYou why={noTokens} /> : <Tokens created={created} />)}
      {view === 'authority' && <AuthorityView />}
      {view === 'audit' && (noAudit ? <NotForYou why={noAudit} /> : <AuditLog place={place} />)}
      {creating && (
        <NewToken
          created={() => setCreated((n) => n + 1)}
          close={() => setCreating(false)}
        />
      )}
    </div>
  )
}
