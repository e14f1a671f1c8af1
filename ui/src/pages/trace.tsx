import { useMemo, useState } from 'react'
import type { Span, Trace } from '../api/types'
import { useGet } from '../api/use'
import { milliseconds, stamp } from '../format'
import { useRows } from '../keys'
import { Attributes } from '../parts/attributes'
import { Known, Partial } from '../parts/state'
import { precise, type Row, shown, tree } from '../parts/waterfall'
import { Link } from '../router'
import { text } from '../text'

const t = text.traces
const mostRows = 2000

export function TracePage({ id }: { id: string }) {
  const trace = useGet<Trace>(`/traces/${encodeURIComponent(id)}`)
  return (
    <div className="page">
      <Link to="/explore/traces" className="back">
        ← {t.back}
      </Link>
      <Known answer={trace}>{(v) => <Waterfall trace={v} />}</Known>
    </div>
  )
}

const hues = [174, 32, 225, 328, 85, 262, 5, 197, 48]

function Waterfall({ trace }: { trace: Trace }) {
  const rows = useMemo(() => tree(trace.spans), [trace])
  const [collapsed, setCollapsed] = useState<Set<string>>(new Set())
  const [chosen, setChosen] = useState<string>()
  useRows('[data-row]')
  const total = Math.max(...rows.map((r) => r.start + r.span.duration_ms), 1e-6)
  const services = [...new Set(trace.spans.map((s) => s.service))]
  const root = rows[0]?.span
  const span = trace.spans.find((s) => s.span_id === chosen)
  const toggle = (id: string) =>
    setCollapsed((s) => {
      const next = new Set(s)
      if (!next.delete(id)) next.add(id)
      return next
    })
  const visible = shown(rows, collapsed).slice(0, mostRows)
  return (
    <>
      <div className="head">
        <h1>
          {root?.service}: {root?.name}
        </h1>
        <span>{milliseconds(total)}</span>
        <span className="faint">{t.depth(trace.spans.length)}</span>
        <span className="space" />
        <Link to={`/explore/logs?filter=${encodeURIComponent('trace_id=' + trace.trace_id)}&last=24h`}>{t.logs}</Link>
      </div>
      <p className="faint mono">
        {trace.trace_id} · {root && stamp(root.start, true)}
      </p>
      <Partial why={trace.partial} />
      <div className={'waterfall' + (span ? ' split' : '')}>
        <div className="spans" role="tree" aria-label={t.title}>
          <Ruler total={total} />
          {visible.map((r) => (
            <SpanRow key={r.span.span_id} row={r} total={total} hue={hues[services.indexOf(r.span.service) % hues.length] ?? 174} chosen={r.span.span_id === chosen} collapsed={collapsed.has(r.span.span_id)} toggle={() => toggle(r.span.span_id)} choose={() => setChosen(r.span.span_id === chosen ? undefined : r.span.span_id)} />
          ))}
        </div>
        {span && <Details span={span} />}
      </div>
    </>
  )
}

function Ruler({ total }: { total: number }) {
  return (
    <div className="ruler faint small" aria-hidden="true">
      {[0, 0.25, 0.5, 0.75, 1].map((x) => (
        <span key={x}>{milliseconds(total * x)}</span>
      ))}
    </div>
  )
}

function SpanRow({ row, total, hue, chosen, collapsed, toggle, choose }: { row: Row; total: number; hue: number; chosen: boolean; collapsed: boolean; toggle: () => void; choose: () => void }) {
  const s = row.span
  const left = Math.min(99.5, (row.start / total) * 100)
  const end = Math.min(100, left + (s.duration_ms / total) * 100)
  const keys = (e: React.KeyboardEvent) => {
    if (e.key === 'Enter') choose()
    if ((e.key === 'ArrowLeft' && !collapsed) || (e.key === 'ArrowRight' && collapsed)) toggle()
  }
  return (
    <div data-row tabIndex={0} role="treeitem" aria-level={row.depth + 1} aria-selected={chosen} aria-expanded={row.descendants ? !collapsed : undefined} className={'span' + (chosen ? ' chosen' : '')} onClick={choose} onKeyDown={keys}>
      <div className="what" style={{ paddingLeft: Math.min(row.depth, 20) * 14 }}>
        {row.descendants > 0 ? (
          <button
            type="button"
            className="plain fold"
            tabIndex={-1}
            aria-label={collapsed ? t.expand : t.collapse}
            onClick={(e) => {
              e.stopPropagation()
              toggle()
            }}
          >
            {collapsed ? '▸' : '▾'}
          </button>
        ) : (
          <span className="fold" />
        )}
        <i style={{ background: `hsl(${hue} 55% 48%)` }} />
        <b>{s.service}</b> <span title={row.orphan ? t.orphan : undefined}>{s.name}</span>
        {s.status === 'error' && (
          <span className="bad" title={s.message}>
            {' '}
            ✕
          </span>
        )}
        {collapsed && <span className="faint"> +{row.descendants}</span>}
      </div>
      <div className="lane">
        <i style={{ left: `${left}%`, width: `max(2px, ${end - left}%)`, background: `hsl(${hue} 55% 48%)` }} className={s.status === 'error' ? 'bad' : ''} />
        <span className={end > 88 && left < 14 ? 'small inside' : 'small'} style={end <= 88 ? { left: `${end + 0.5}%` } : left < 14 ? { left: `${left + 0.5}%` } : { right: `${100 - left + 0.5}%` }}>
          {milliseconds(s.duration_ms)}
        </span>
      </div>
    </div>
  )
}

function Details({ span }: { span: Span }) {
  const begin = precise(span.start)
  return (
    <aside className="details">
      <h2>{span.name}</h2>
      <p>
        {span.service} · {span.kind} · {milliseconds(span.duration_ms)} · <span className={span.status === 'error' ? 'bad' : ''}>{span.status}</span>
      </p>
      {span.message && <p className="warn">{span.message}</p>}
      <p className="faint mono small">
        {span.span_id} · {stamp(span.start, true)}
      </p>
      <Attributes title={t.attributes} of={span.attributes} />
      {span.events && span.events.length > 0 && (
        <>
          <h3>{t.events}</h3>
          {span.events.map((e, i) => (
            <div key={i}>
              <b>{e.name}</b> <span className="faint">{t.after(milliseconds(Math.max(0, precise(e.time) - begin)))}</span>
              <Attributes title="" of={e.attributes} />
            </div>
          ))}
        </>
      )}
      {span.links && span.links.length > 0 && (
        <>
          <h3>{t.links}</h3>
          {span.links.map((l) => (
            <p key={l.trace_id + l.span_id}>
              <Link to={'/explore/traces/' + l.trace_id} className="mono small">
                {l.trace_id}
              </Link>
            </p>
          ))}
        </>
      )}
      <Attributes title={t.resource} of={span.resource} />
    </aside>
  )
}
