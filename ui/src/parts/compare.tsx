import { useMemo } from 'react'
import type { Difference } from '../api/types'
import { text } from '../text'
import { folded, lines } from './lines'

const t = text.documents
const signs = { same: ' ', added: '+', removed: '−' }

// Compare shows two texts as one, with what has gone and what has come.
export function Compare({ before, after, label }: { before: string; after: string; label: string }) {
  const list = useMemo(() => folded(lines(before, after)), [before, after])
  if (before === after) return <p className="faint">{t.equal}</p>
  return (
    <div className="compare mono" role="table" aria-label={label}>
      {list.map((l, i) =>
        typeof l === 'number' ? (
          <div key={i} role="row" className="far-away">
            <span role="cell">{t.sameLines(l)}</span>
          </div>
        ) : (
          <div key={i} role="row" className={l.kind}>
            <span role="cell" className="place">
              {l.old}
            </span>
            <span role="cell" className="place">
              {l.now}
            </span>
            <span role="cell" className="sign" aria-label={l.kind === 'same' ? undefined : t.kinds[l.kind]}>
              {signs[l.kind]}
            </span>
            <span role="cell" className="line">
              {l.text}
            </span>
          </div>
        ),
      )}
    </div>
  )
}

// Differences are what is other for agents, whatever it looks like in the text.
export function Differences({ list }: { list: Difference[] }) {
  if (list.length === 0) return <p className="faint">{t.differencesNone}</p>
  return (
    <ul className="differences">
      {list.map((d, i) => (
        <li key={d.path + i} className={d.kind}>
          <span className="mono path">
            <span aria-hidden="true">{{ added: '+', removed: '−' }[d.kind] ?? '~'}</span> {d.path}
          </span>{' '}
          <span className="kind">{t.kinds[d.kind] ?? d.kind}</span>
          <div className="mono small">
            {d.old !== undefined && <del>{d.old}</del>}
            {d.old !== undefined && d.new !== undefined && ` ${t.nowIs} `}
            {d.new !== undefined && <ins>{d.new}</ins>}
          </div>
        </li>
      ))}
    </ul>
  )
}
