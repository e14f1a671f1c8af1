import type { DocumentList } from '../api/types'
import { useAgain, useGet, useNow } from '../api/use'
import { ago, stamp } from '../format'
import { useRows } from '../keys'
import { useRefusal } from '../parts/me'
import { Counted, documentPath, Within } from '../parts/placed'
import { Known } from '../parts/state'
import { Link, navigate } from '../router'
import { text } from '../text'

const t = text.documents
const every = 2000 // milliseconds

// newDocument is the address of one that is to be written. No document has this name.
export const newDocument = '-new'

export function DocumentsPage() {
  const documents = useGet<DocumentList>('/documents')
  const now = useNow(1000)
  const mayCreate = !useRefusal('applyDocument')
  useAgain(documents, every)
  useRows('tr[data-row]')
  return (
    <div className="page">
      <div className="head">
        <h1>{t.title}</h1>
        <span className="space" />
        {mayCreate && (
          <Link to={documentPath(newDocument)} className="button main">
            {t.create}
          </Link>
        )}
      </div>
      <p className="faint">{t.help}</p>
      <Known answer={documents}>
        {({ documents: list }) =>
          list.length === 0 ? (
            <p className="empty">{t.none}</p>
          ) : (
            <div className="scroll">
              <table className="rows documents">
                <thead>
                  <tr>
                    <th>{t.name}</th>
                    <th>{t.selector}</th>
                    <th className="number">{t.version}</th>
                    <th>{t.agents}</th>
                    <th>{t.changed}</th>
                  </tr>
                </thead>
                <tbody>
                  {list.map((d) => (
                    <tr
                      key={d.name}
                      data-row
                      tabIndex={0}
                      onKeyDown={(e) => e.key === 'Enter' && e.target === e.currentTarget && navigate(documentPath(d.name))}
                      onClick={(e) => !(e.target as HTMLElement).closest('a') && !getSelection()?.toString() && navigate(documentPath(d.name))}
                    >
                      <td>
                        <Link to={documentPath(d.name)} className="name">
                          {d.name}
                        </Link>
                      </td>
                      <td className="selector">
                        {d.selector ? <code>{d.selector}</code> : <span className="faint">{t.everybody}</span>} <Within of={d} />
                      </td>
                      <td className="number">{d.version}</td>
                      <td>
                        <Link to={documentPath(d.name) + '?view=agents'} className="quiet">
                          <Counted of={d.agents} />
                        </Link>
                      </td>
                      <td title={stamp(d.time)}>
                        {ago(d.time, now)} {t.by(d.by)}
                        {d.note && <span className="note faint">{d.note}</span>}
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          )
        }
      </Known>
    </div>
  )
}
