// Attributes of a record, each of which can become a filter.

import { text } from '../text'

export function textOf(v: unknown): string {
  return typeof v === 'string' ? v : JSON.stringify(v)
}


export function Attributes({ title, of, filter }: { title: string; of: unknown; filter?: ((condition: string) => void) | undefined }) {
  const list = Object.entries((of ?? {}) as Record<string, unknown>)
  if (list.length === 0) return null
  return (
    <div className="attributes">
      <h3>{title}</h3>
      <dl>
        {list.map(([k, v]) => (
          <div key={k}>
            <dt>{k}</dt>
            <dd>
              {textOf(v)}
              {filter && typeof v !== 'object' && (
                <span className="acts">
                  <button type="button" className="plain" title={text.logs.only} aria-label={`${text.logs.only}: ${k}=${textOf(v)}`} onClick={() => filter(`${k}=${textOf(v)}`)}>
                    +
                  </button>
                  <button type="button" className="plain" title={text.logs.without} aria-label={`${text.logs.without}: ${k}=${textOf(v)}`} onClick={() => filter(`${k}!=${textOf(v)}`)}>
                    −
                  </button>
                </span>
              )}
            </dd>
          </div>
        ))}
      </dl>
    </div>
  )
}
