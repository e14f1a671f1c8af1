import { Component, type ReactNode, useEffect, useState } from 'react'
import { type Failure, signOut } from './api/client'
import type { Hub } from './api/types'
import { useGet } from './api/use'
import { useKeys } from './keys'
import { AgentPage } from './pages/agent'
import { DocumentPage, NewDocumentPage } from './pages/document'
import { DocumentsPage, newDocument } from './pages/documents'
import { FleetPage } from './pages/fleet'
import { LedgerPage } from './pages/ledger'
import { LogsPage } from './pages/logs'
import { MetricsPage } from './pages/metrics'
import { SignInPage } from './pages/signin'
import { TracePage } from './pages/trace'
import { TracesPage } from './pages/traces'
import { Link, navigate, type Place, usePlace } from './router'
import { text } from './text'
import { nextTheme, useTheme } from './theme'

const places = [
  { key: 'f', to: '/fleet', name: text.nav.fleet, also: '/agents/' },
  { key: 'd', to: '/documents', name: text.nav.documents },
  { key: 'b', to: '/ledger', name: text.nav.ledger },
  { key: 'm', to: '/explore/metrics', name: text.nav.metrics },
  { key: 'l', to: '/explore/logs', name: text.nav.logs },
  { key: 't', to: '/explore/traces', name: text.nav.traces },
]

export function App() {
  const place = usePlace()
  const hub = useGet<Hub>('/hub')
  const [help, setHelp] = useState(false)
  useKeys({
    ...Object.fromEntries(places.map((p) => ['g ' + p.key, () => navigate(p.to)])),
    t: nextTheme,
    '?': () => setHelp(true),
    '/': () => document.querySelector<HTMLElement>('[data-search]')?.focus(),
    Escape: () => setHelp(false),
  })
  if (hub.failure?.code === 'unauthorized') return <SignInPage done={hub.again} />
  return (
    <>
      <a className="skip" href="#main">
        {text.nav.skip}
      </a>
      <Bar place={place} hub={hub.value} failure={hub.failure} showHelp={() => setHelp(true)} />
      <main id="main" key={place.path.split('/').slice(0, 3).join('/')}>
        <Fence>
          <Page place={place} />
        </Fence>
      </main>
      {help && <Help close={() => setHelp(false)} />}
    </>
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
  if (first === 'ledger' && !second) return <LedgerPage />
  if (first === 'explore' && second === 'metrics') return <MetricsPage place={place} />
  if (first === 'explore' && second === 'logs') return <LogsPage place={place} />
  if (first === 'explore' && second === 'traces') return third ? <TracePage id={third} key={third} /> : <TracesPage place={place} />
  return <p className="empty">{text.state.notFound}</p>
}

function Bar({ place, hub, failure, showHelp }: { place: Place; hub?: Hub | undefined; failure?: Failure | undefined; showHelp: () => void }) {
  const { theme } = useTheme()
  return (
    <header className="bar">
      <Link to="/fleet" className="brand" aria-label={text.product}>
        <img src="/icon.svg" alt="" width="22" height="22" />
        <span>{text.product}</span>
      </Link>
      <nav>
        {places.map((p) => (
          <Link key={p.to} to={p.to} aria-current={place.path.startsWith(p.to) || (p.also && place.path.startsWith(p.also)) ? 'page' : undefined}>
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
      {hub && <span className="faint version">{hub.version}</span>}
      <button type="button" className="plain" onClick={nextTheme} title={text.theme[theme] + ' (t)'} aria-label={text.theme[theme]}>
        {{ auto: '◐', light: '☀', dark: '☾' }[theme]}
      </button>
      <button type="button" className="plain" onClick={showHelp} title={text.keys.help} aria-label={text.keys.help}>
        ?
      </button>
      <button type="button" className="plain" onClick={() => void signOut().then(() => location.assign('/'))}>
        {text.signIn.out}
      </button>
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
