import type { Books, Ledger } from '../api/types'
import { useAgain, useGet } from '../api/use'
import { whole } from '../format'
import { useRows } from '../keys'
import { Known } from '../parts/state'
import { Count, Dropped, Unexplained } from '../parts/ledger'
import { Link, navigate } from '../router'
import { text } from '../text'

const t = text.ledger
const c = text.agent.columns
const every = 2000 // milliseconds
const columns = [
  c.unexplained, c.accepted, c.created, c.filtered, c.absorbed, c.routed, c.held, c.delivered, c.queued, c.waiting, c.dropped, c.deadLettered, t.inWork, c.sent, c.taken, c.repeats,
]

export function LedgerPage() {
  const ledger = useGet<Ledger>('/ledger')
  useAgain(ledger, every)
  useRows('tr[data-row]')
  return (
    <div className="page">
      <div className="head">
        <h1>{t.title}</h1>
      </div>
      <p className="faint">{t.help}</p>
      <Known answer={ledger}>
        {(l) => (
          <>
            <div className="scroll">
              <table className="rows ledger dense">
                <thead>
                  <tr>
                    <th className="key">{text.fleet.agent}</th>
                    {columns.map((n) => (
                      <th key={n} className="number">
                        {n}
                      </th>
                    ))}
                  </tr>
                </thead>
                <tbody>
                  <tr className="total">
                    <td>{t.total}</td>
                    <Cells b={l.total} />
                  </tr>
                  {(l.agents ?? []).map((a) => {
                    const to = `/agents/${encodeURIComponent(a.id)}#ledger`
                    return (
                      <tr key={a.id} data-row tabIndex={0} onKeyDown={(e) => e.key === 'Enter' && e.target === e.currentTarget && navigate(to)}>
                        <td>
                          <Link to={to} className="name">
                            {a.name || a.id}
                          </Link>
                        </td>
                        <Cells b={a} />
                      </tr>
                    )
                  })}
                </tbody>
              </table>
            </div>
            {(l.left_out ?? 0) > 0 && <p className="empty">{t.leftOut(whole(l.left_out ?? 0))}</p>}
          </>
        )}
      </Known>
    </div>
  )
}

function Cells({ b }: { b: Books }) {
  return (
    <>
      <Unexplained n={b.unexplained} />
      {[b.accepted, b.created, b.filtered, b.absorbed, b.routed, b.held, b.delivered, b.queued, b.spooled].map((n, i) => (
        <Count key={i} n={n} />
      ))}
      <Dropped briefly by={b.dropped} />
      <Count n={b.dead_lettered} bad title={text.agent.deadLettersHelp} />
      {[b.in_work, b.sent, b.taken, b.repeats].map((n, i) => (
        <Count key={i} n={n} />
      ))}
    </>
  )
}
