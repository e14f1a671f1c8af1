// How documents are on agents: running, waiting, or failed.

import type { Document, DocumentAgents, Placed } from '../api/types'
import { whole } from '../format'
import { Link } from '../router'
import { text } from '../text'

const t = text.documents

// PlacedStatus is how one document is on one agent.
export function PlacedStatus({ status, title }: { status: string; title?: string | undefined }) {
  return <span title={title} className={'status ' + status}>{t.status[status] ?? status}</span>
}

// Counted is how many agents run a document, wait for it and have failed, as a bar and in words.
export function Counted({ of: n }: { of: DocumentAgents }) {
  if (n.selected === 0) return <span className="faint">{t.nobody}</span>
  const parts = [
    ['running', n.running, t.running],
    ['waiting', n.waiting, t.waiting],
    ['failed', n.failed, t.failed],
  ] as const
  return (
    <span className="counted">
      <span className="shares" aria-hidden="true">
        {parts.map(([name, count]) => count > 0 && <i key={name} className={name} style={{ flexGrow: count }} />)}
      </span>
      {parts.map(([name, count, says]) => (name === 'running' || count > 0) && <span key={name} className={count ? name : 'faint'}>{says(whole(count))}</span>)}
    </span>
  )
}

export const failed = (p: Placed) => p.status === 'refused' || p.status === 'rolled_back'

export function AgentLink({ of: p }: { of: { agent: string; name?: string | undefined } }) {
  return (
    <Link to={`/agents/${encodeURIComponent(p.agent)}#intended`} className="name">
      {p.name || p.agent}
    </Link>
  )
}

export const documentPath = (name: string) => `/documents/${encodeURIComponent(name)}`

// Within is what bounds a document beside its selector, where something does.
export function Within({ of: d }: { of: Pick<Document, 'within'> }) {
  if (!d.within) return null
  return (
    <span title={t.withinHelp}>
      <span className="faint">{t.within}</span> <code>{d.within}</code>
    </span>
  )
}
