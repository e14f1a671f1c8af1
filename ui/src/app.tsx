import { Component, type ReactNode, useEffect, useState } from 'react'
import type { Failure } from './api/client'
import type { Operation } from './api/operations'
import { useSession } from './api/session'
import type { Hub, Me } from './api/types'
import { type Asked, useAgain, useGet } from './api/use'
import { useKeys } from './keys'
import { AccessPage } from './pages/access'
import { AgentPage } from './pages/agent'
import { ClusterPage } from './pages/cluster'
import { DocumentPage, NewDocumentPage } from './pages/document'
import { DocumentsPage, newDocument } from './pages/documents'
import { FleetPage } from './pages/fleet'
import { LedgerPage } from './pages/ledger'
import { LogsPage } from './pages/logs'
import { MetricsPage } from './pages/metrics'
import { SignIn } from './pages/signin'
import { TasksPage } from './pages/tasks'
import { TracePage } from './pages/trace'
import { TracesPage } from './pages/traces'
import { HubContext } from './parts/hubs'
import { MeContext, Menu, NotForYou, refusal } from './parts/me'
import { Trouble } from './parts/state'
import { Link, navigate, type Place, usePlace } from './router'
import { text } from './text'
import { nextTheme, useTheme } from './theme'

interface Destination {
  key: string // after g
  to: string
  name: string
  needs: Operation
  also?: string // whose pages are of it as well
}

const places: Destination[] = [
  { key: 'f', to: '/fleet', name: text.nav.fleet, needs: 'listAgents', also: '/agents/' },
  { key: 'd', to: '/documents', name: text.nav.documents, needs: 'listDocuments' },
  { key: 'p', to: '/tasks', name: text.nav.tasks, needs: 'listTasks' },
  { key: 'b', to: '/ledger', name: text.nav.ledger, needs: 'getLedger' },
  { key: 'm', to: '/explore/metrics', name: text.nav.metrics, needs: 'searchLogs' }, // as Prometheus' query API does
  { key: 'l', to: '/explore/logs', name: text.nav.logs, needs: 'searchLogs' },
  { key: 't', to: '/explore/traces', name: text.nav.traces, needs: 'searchTraces' },
  { key: 'c', to: '/cluster', name: text.nav.cluster, needs: 'getCluster' },
  { key: 'a', to: '/access', name: text.nav.access, needs: 'listKnocks' },
]

const isAt = (place: Place, d: Destination) => place.path.startsWith(d.to) || (d.also !== undefined && place.path.startsWith(d.also))

const retry = 5000 // milliseconds, also between looks at the hub

// App shows nothing before it knows who asks.
export function App() {
  const me = useGet<Me>('/me')
  const { out, doubts } = useSession()
  const { again } = me
  useEffect(() => {
    if (doubts) again()
  }, [doubts, again])
  return (
    <>
      {me.value ? <Shell me={me.value} key={JSON.stringify([me.value.name, me.value.role, me.value.within])} /> : !out && me.failure && <Waiting failure={me.failure} asked={me} />}
      {out && <SignIn again={me.value !== undefined} />}
    </>
  )
}

function Waiting({ failure, asked }: { failure: Failure; asked: Asked<Me> }) {
  useAgain(asked, retry)
  return (
    <main className="empty">
      <Trouble failure={failure} />
    </main>
  )
}

function Shell({ me }: { me: Me }) {
  const place = usePlace()
  const hub = useGet<Hub>('/hub')
  useAgain(hub, retry)
  const [help, setHelp] = useState(false)
  useKeys({
    ...Object.fromEntries(places.map((p) => ['g ' + p.key, () => navigate(p.to)])),
    t: nextTheme,
    '?': () => setHelp(true),
    '/': () => document.querySelector<HTMLElement>('[data-search]')?.focus(),
    ...(help ? { Escape: () => setHelp(false) } : {}),
  })
  const needs = places.find((p) => isAt(place, p))?.needs
  const no = needs && refusal(me, needs)
  return (
    <MeContext value={me}>
      <a className="skip" href="#main">
        {text.nav.skip}
      </a>
      <Bar me={me} place={place} hub={hub.value} failure={hub.failure} showHelp={() => setHelp(true)} />
      <main id="main" key={place.path.split('/').slice(0, 3).join('/')}>
        <Fence>{no ? <NotForYou why={no} /> : <HubContext value={hub.value}><Page place={place} /></HubContext>}</Fence>
      </main>
      {help && <Help close={() => setHelp(false)} />}
    </MeContext>
  )
}

function Page({ place }: { place: Place }) {
  const [, first, second, third] = place.path.split('/').map(decodeURIComponent)
  const entrance = place.path === '/'
  useEffect(() => {
    if (entrance) navigate('/fleet', true)
  }, [entrance])
  if (entrance) return null
  if (first === 'fleet' && !second) return <FleetPage place={place} />
  if (first === 'agents' && second) return <AgentPage id={second} key={second} />
  if (first === 'documents' && second === newDocument) return <NewDocumentPage />
  if (first === 'documents') return second ? <DocumentPage name={second} key={second} place={place} /> : <DocumentsPage />
  if (first === 'tasks' && !second) return <TasksPage place={place} />
  if (first === 'ledger' && !second) return <LedgerPage />
  if (first === 'cluster' && !second) return <ClusterPage />
  if (first === 'access' && !second) return <AccessPage place={place} />
  if (first === 'explore' && second === 'metrics') return <MetricsPage place={place} />
  if (first === 'explore' && second === 'logs') return <LogsPage place={place} />
  if (first === 'explore' && second === 'traces') return third ? <TracePage id={third} key={third} /> : <TracesPage place={place} />
  return <p className="empty">{text.state.notFound}</p>
}

function Bar({ me, place, hub, failure, showHelp }: { me: Me; place: Place; hub?: Hub | undefined; failure?: Failure | undefined; showHelp: () => void }) {
  const { theme } = useTheme()
  return (
    <header className="bar">
      <Link to="/fleet" className="brand" aria-label={text.product}>
        <img src="/icon.svg" alt="" width="22" height="22" />
        <span>{text.product}</span>
      </Link>
      <nav>
        {places.map((p) => (
          <Link key={p.to} to={p.to} aria-current={isAt(place, p) ? 'page' : undefined} title={refusal(me, p.needs)} className={refusal(me, p.needs) && 'off'}>
            {p.name}
          </Link>
        ))}
      </nav>
      <span className="space" />
      {failure && failure.code !== 'unauthorized' && <span className="warn">{failure.message}</span>}
      {hub?.quick_look.stopped && (
        <span className="warn" title={hub.quick_look.stopped}>
          {hub.quick_look.stopped}
        </span>
      )}
      {hub?.state && (
        <span className="warn" title={hub.state}>
          {hub.state}
        </span>
      )}
      {hub && <span className="faint version">{hub.version}</span>}
      <button type="button" className="plain" onClick={nextTheme} title={text.theme[theme] + ' (t)'} aria-label={text.theme[theme]}>
        {{ auto: '◐', light: '☀', dark: '☾' }[theme]}
      </button>
      <button type="button" className="plain" onClick={showHelp} title={text.keys.help} aria-label={text.keys.help}>
        ?
      </button>
      <Menu me={me} />
    </header>
  )
}

function Help({ close }: { close: () => void }) {
  return (
    <div className="veil" onClick={close}>
      <div className="dialog" role="dialog" aria-modal="true" aria-label={text.keys.title} onClick={(e) => e.stopPropagation()}>
        <h2>{text.keys.title}</h2>
        <dl className="keys">
          {text.keys.list.map(([key, what]) => (
            <div key={key}>
              <dt>
                <kbd>{key}</kbd>
              </dt>
              <dd>{what}</dd>
            </div>
          ))}
        </dl>
        <button type="button" autoFocus onClick={close}>
          {text.keys.close}
        </button>
      </div>
    </div>
  )
}

// A Fence keeps a page's failure from the others.
class Fence extends Component<{ children: ReactNode }, { error?: Error }> {
  override state: { error?: Error } = {}
  static getDerivedStateFromError(error: Error) {
    return { error }
  }
  override render() {
    if (!this.state.error) return this.props.children
    return (
      <div className="empty">
        <p>{text.state.crashed}</p>
        <pre>{this.state.error.message}</pre>
      </div>
    )
  }
}
