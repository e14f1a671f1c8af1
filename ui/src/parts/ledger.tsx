// The books of an agent: what became of its records, in its pipelines, at its exporters, in their disk queues, and on the
// way to this hub.

import type { Hop, ReportLedger } from '../api/types'
import { whole } from '../format'
import { text } from '../text'

const t = text.agent
const c = t.columns

// idOf is where the page shows an exporter's disk queue.
const idOf = (exporter: string) => 'disk-queue-' + exporter

function reasons(dropped: Record<string, number> | undefined): string {
  return Object.entries(dropped ?? {})
    .filter(([, n]) => n)
    .map(([why, n]) => `${why}: ${whole(n)}`)
    .join(', ')
}

export function Count({ n = 0, bad, title }: { n?: number | undefined; bad?: boolean; title?: string }) {
  return (
    <td className={'number' + (n ? (bad ? ' bad' : '') : ' faint')} title={n ? title : undefined}>
      {whole(n)}
    </td>
  )
}

export function Unexplained({ n = 0 }: { n?: number | undefined }) {
  return <td className={'number ' + (n ? 'unexplained' : 'faint')}>{whole(n)}</td>
}

export function Dropped({ by, briefly }: { by: Record<string, number> | undefined; briefly?: boolean }) {
  const n = Object.values(by ?? {}).reduce((a, b) => a + b, 0)
  return (
    <td className={'number' + (n ? ' bad' : ' faint')} title={reasons(by)}>
      {whole(n)}
      {n > 0 && !briefly && <div className="small">{reasons(by)}</div>}
    </td>
  )
}

interface TableProps {
  id: string
  title: string
  help?: string
  names: string[] // of the columns that name a row
  counts: string[] // of those that count
  children: React.ReactNode
}

function Table({ id, title, help, names, counts, children }: TableProps) {
  return (
    <div className="scroll">
      <table className="rows ledger" id={id}>
        <caption>
          {title} {help && <span className="faint">{help}</span>}
        </caption>
        <thead>
          <tr>
            {names.map((n) => (
              <th key={n} className="key">
                {n}
              </th>
            ))}
            {counts.map((n) => (
              <th key={n} className="number">
                {n}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  )
}

export function Ledger({ ledger, hops }: { ledger: ReportLedger | undefined; hops: Hop[] }) {
  const pipelines = ledger?.pipelines ?? []
  const spools = ledger?.spools ?? []
  if (pipelines.length === 0) return <p className="faint">{t.noLedger}</p>
  return (
    <>
      <p className="faint">{t.ledgerHelp}</p>
      <Table
        id="ledger-pipelines"
        title={t.perPipeline}
        names={[t.pipeline]}
        counts={[c.accepted, c.created, c.filtered, c.absorbed, c.routed, c.dropped, c.held, c.passed, c.unexplained]}
      >
        {pipelines.map((p) => (
          <tr key={p.pipeline}>
            <td>{p.pipeline}</td>
            <Count n={p.accepted} />
            <Count n={p.created} />
            <Count n={p.filtered} />
            <Count n={p.absorbed} />
            <Count n={p.routed} />
            <Dropped by={p.dropped} />
            <Count n={p.held} />
            <Count n={p.passed} />
            <Unexplained n={p.unexplained} />
          </tr>
        ))}
      </Table>
      <Table
        id="ledger-exporters"
        title={t.perExporter}
        names={[t.pipeline, t.exporter]}
        counts={[c.in, c.delivered, c.queued, c.spooled, c.dropped, c.deadLettered, c.unexplained]}
      >
        {pipelines.flatMap((p) =>
          (p.exporters ?? []).map((x) => (
            <tr key={p.pipeline + ' ' + x.exporter}>
              <td>{p.pipeline}</td>
              <td>{x.exporter}</td>
              <Count n={x.in} />
              <Count n={x.delivered} />
              <Count n={x.queued} />
              <td className="number">
                {x.spooled ? (
                  <a href={'#' + idOf(x.exporter)} title={t.spooledHelp}>
                    {whole(x.spooled)}
                  </a>
                ) : (
                  <span className="faint">0</span>
                )}
              </td>
              <Dropped by={x.dropped} />
              <Count bad n={x.dead_lettered} title={t.deadLettersHelp} />
              <Unexplained n={x.unexplained} />
            </tr>
          )),
        )}
      </Table>
      {spools.length > 0 && (
        <Table
          id="ledger-spools"
          title={t.perSpool}
          help={t.perSpoolHelp}
          names={[t.exporter]}
          counts={[c.recovered, c.in, c.delivered, c.waiting, c.dropped, c.deadLettered, c.unexplained]}
        >
          {spools.map((s) => (
            <tr key={s.exporter} id={idOf(s.exporter)}>
              <td>{s.exporter}</td>
              <Count n={s.recovered} />
              <Count n={s.in} />
              <Count n={s.delivered} />
              <Count n={s.waiting} />
              <Dropped by={s.dropped} />
              <Count bad n={s.dead_lettered} title={t.deadLettersHelp} />
              <Unexplained n={s.unexplained} />
            </tr>
          ))}
        </Table>
      )}
      {hops.length > 0 && (
        <Table
          id="ledger-hops"
          title={t.perHop}
          help={t.perHopHelp}
          names={[t.exporter]}
          counts={[c.sent, c.taken, c.repeats, c.unexplained]}
        >
          {hops.map((h) => (
            <tr key={h.exporter}>
              <td>{h.exporter}</td>
              <Count n={h.sent} />
              <Count n={h.taken} />
              <Count n={h.repeats} />
              {h.settling ? (
                <td className="number faint" title={t.settling}>
                  …
                </td>
              ) : (
                <Unexplained n={h.unexplained} />
              )}
            </tr>
          ))}
        </Table>
      )}
    </>
  )
}
