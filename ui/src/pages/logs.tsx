import { useEffect, useRef, useState } from 'react'
import { type Failure, get, type Params } from '../api/client'
import type { Absent, Histogram, Log, LogResult, ServiceList } from '../api/types'
import { useGet, useWatch } from '../api/use'
import { stamp } from '../format'
import { useRows } from '../keys'
import { Attributes, textOf } from '../parts/attributes'
import { Bars } from '../parts/bars'
import { Lacking } from '../parts/hubs'
import { type Range, RangePicker, setRange, useRange } from '../parts/range'
import { Known, Partial, Trouble } from '../parts/state'
import { change, Link, navigate, type Place } from '../router'
import { text } from '../text'

const t = text.logs
const pageSize = 200
const mostLive = 1000 // records that a live view keeps

// asked is what is looked for, without the time.
function asked(place: Place): Params & { query: string; filter: string[] } {
  const filter = place.params.getAll('filter')
  const service = place.params.get('service')
  const severity = place.params.get('severity')
  return {
    query: place.params.get('query') ?? '',
    filter: [...filter, ...(service ? [`service=${service}`] : []), ...(severity ? [`severity>=${severity}`] : [])],
  }
}

export function LogsPage({ place }: { place: Place }) {
  const live = place.params.get('live') === 'true'
  const range = useRange(place)
  const addFilter = (condition: string) => navigate(change(place, { filter: [...new Set([...place.params.getAll('filter'), condition])] }))
  useRows('[data-row]')
  return (
    <div className="page">
      <div className="head">
        <h1>{t.title}</h1>
        <span className="space" />
        <button type="button" className={live ? 'main' : ''} aria-pressed={live} onClick={() => navigate(change(place, { live: !live }))}>
          {live ? t.stopLive : t.live}
        </button>
        {!live && <RangePicker place={place} range={range} />}
      </div>
      <Question place={place} range={range} addFilter={addFilter} />
      {live ? <Live place={place} addFilter={addFilter} /> : <Found place={place} range={range} addFilter={addFilter} />}
    </div>
  )
}

function Question({ place, range, addFilter }: { place: Place; range: Range; addFilter: (c: string) => void }) {
  const query = place.params.get('query') ?? ''
  const [typed, setTyped] = useState(query)
  const [condition, setCondition] = useState('')
  useEffect(() => setTyped(query), [query])
  const services = useGet<ServiceList>('/services', { start: Math.floor(range.from / 1000 / 600) * 600 })
  const service = place.params.get('service') ?? ''
  const names = [...new Set([...(services.value?.services ?? []).map((s) => s.name), ...(service ? [service] : [])])].filter(Boolean)
  return (
    <>
      <form
        className="question"
        onSubmit={(e) => {
          e.preventDefault()
          if (condition.trim()) addFilter(condition.trim())
          else navigate(change(place, { query: typed.trim() }))
          setCondition('')
        }}
      >
        <input type="search" data-search className="search" placeholder={t.search} aria-label={t.search} value={typed} onChange={(e) => setTyped(e.target.value)} onBlur={() => typed.trim() !== query && navigate(change(place, { query: typed.trim() }))} />
        <select aria-label={t.service} value={service} onChange={(e) => navigate(change(place, { service: e.target.value }))}>
          <option value="">{t.allServices}</option>
          {names.map((n) => (
            <option key={n}>{n}</option>
          ))}
        </select>
        <select aria-label={t.severity} value={place.params.get('severity') ?? ''} onChange={(e) => navigate(change(place, { severity: e.target.value }))}>
          <option value="">{t.anySeverity}</option>
          {['DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL'].map((s) => (
            <option key={s} value={s}>
              {t.atLeast(s)}
            </option>
          ))}
        </select>
        <input className="mono" placeholder={t.addFilter} aria-label={t.addFilter} value={condition} onChange={(e) => setCondition(e.target.value)} />
        <button type="submit" hidden />
      </form>
      {place.params.has('filter') && (
        <div className="chips">
          {place.params.getAll('filter').map((f) => (
            <Link key={f} to={change(place, { filter: place.params.getAll('filter').filter((x) => x !== f) })} className="chip mono" title={text.fleet.clear}>
              {f} ✕
            </Link>
          ))}
        </div>
      )}
    </>
  )
}

function Found({ place, range, addFilter }: { place: Place; range: Range; addFilter: (c: string) => void }) {
  const question = asked(place)
  const window = { start: range.from / 1000, end: range.to / 1000 }
  const logs = useGet<LogResult>('/logs', { ...question, ...window, limit: pageSize })
  const counts = useGet<Histogram>('/logs/histogram', { ...question, ...window })
  const [older, setOlder] = useState<LogResult[]>([])
  const [failure, setFailure] = useState<Failure>()
  const key = JSON.stringify(question) + range.key
  useEffect(() => setOlder([]), [key])
  const next = older.length ? older.at(-1)?.next : logs.value?.next
  const more = () =>
    void get<LogResult>('/logs', { ...question, ...window, limit: pageSize, cursor: next }).then(
      (page) => {
        setFailure(undefined)
        setOlder((o) => [...o, page])
      },
      (e: unknown) => setFailure(e as Failure),
    )
  return (
    <>
      <Trouble failure={counts.failure} />
      {counts.value && <Bars histogram={counts.value} zoom={(a, b) => setRange(place, a, b)} />}
      <Partial why={counts.value?.partial} />
      <Known answer={logs}>
        {(page) => (
          <>
            <Partial why={page.partial} />
            <Records logs={[...page.logs, ...older.flatMap((o) => o.logs)]} addFilter={addFilter} place={place} />
            {page.logs.length === 0 && <p className="empty">{t.none}</p>}
            <Trouble failure={failure} />
            {next && (
              <p className="empty">
                <button type="button" onClick={more}>
                  {t.more}
                </button>
              </p>
            )}
          </>
        )}
      </Known>
    </>
  )
}

function Live({ place, addFilter }: { place: Place; addFilter: (c: string) => void }) {
  const [logs, setLogs] = useState<Log[]>([])
  const [failure, setFailure] = useState<Failure>()
  const [absent, setAbsent] = useState<Absent[]>([])
  const question = asked(place)
  const key = JSON.stringify(question)
  const waiting = useRef<Log[]>([])
  useWatch<Log>('/logs/tail', question, 'log', (l) => waiting.current.unshift(l), setFailure, setAbsent)
  useEffect(() => {
    setLogs([])
    waiting.current = []
    const timer = setInterval(() => {
      const fresh = waiting.current
      if (fresh.length === 0) return
      waiting.current = []
      setLogs((before) => [...fresh, ...before].slice(0, mostLive))
    }, 250)
    return () => clearInterval(timer)
  }, [key])
  return (
    <>
      <Trouble failure={failure} />
      <Lacking list={absent} />
      {logs.length === 0 && <p className="empty">{t.waiting}</p>}
      <Records logs={logs} addFilter={addFilter} place={place} />
    </>
  )
}

function Records({ logs, addFilter, place }: { logs: Log[]; addFilter: (c: string) => void; place: Place }) {
  const [open, setOpen] = useState<Set<string>>(new Set())
  const toggle = (id: string) =>
    setOpen((s) => {
      const next = new Set(s)
      if (!next.delete(id)) next.add(id)
      return next
    })
  return (
    <div className="records" role="list">
      {logs.map((l) => (
        <div key={l.id} role="listitem" className={'record ' + rangeOf(l)}>
          <div data-row tabIndex={0} role="button" aria-expanded={open.has(l.id)} onClick={() => !getSelection()?.toString() && toggle(l.id)} onKeyDown={(e) => e.key === 'Enter' && toggle(l.id)}>
            <time>{stamp(l.time, true).slice(5)}</time>
            <span className="level">{l.severity ?? ''}</span>
            <span className="service">{l.service}</span>
            <span className="body">{textOf(l.body)}</span>
          </div>
          {open.has(l.id) && <Opened log={l} addFilter={addFilter} place={place} />}
        </div>
      ))}
    </div>
  )
}

function rangeOf(l: Log): string {
  return /^[A-Z]+/.exec(l.severity ?? '')?.[0] ?? 'unknown'
}

function Opened({ log, addFilter, place }: { log: Log; addFilter: (c: string) => void; place: Place }) {
  const at = new Date(log.time).getTime()
  return (
    <div className="opened">
      <pre>{typeof log.body === 'string' ? log.body : JSON.stringify(log.body, null, 2)}</pre>
      <p className="acts">
        {log.trace_id && <Link to={`/explore/traces/${log.trace_id}`}>{t.trace}</Link>}
        {log.service && <Link to={change({ ...place, params: new URLSearchParams() }, { service: log.service, from: at - 30_000, to: at + 30_000 })}>{t.context}</Link>}
        <button type="button" onClick={() => void navigator.clipboard.writeText(JSON.stringify(log, null, 2))}>
          {t.copy}
        </button>
      </p>
      <Attributes title={t.attributes} of={log.attributes} filter={addFilter} />
      <Attributes title={t.resource} of={log.resource} filter={addFilter} />
      <Attributes title={t.record} of={{ ...(log.trace_id ? { trace_id: log.trace_id, span_id: log.span_id } : {}), ...(log.event ? { event: log.event } : {}), ...(log.scope ? { scope: log.scope } : {}) }} />
    </div>
  )
}
