import { useEffect, useState } from 'react'
import type { ServiceList, TraceList } from '../api/types'
import { useGet } from '../api/use'
import { milliseconds, stamp } from '../format'
import { useRows } from '../keys'
import { RangePicker, useRange } from '../parts/range'
import { Known, Partial } from '../parts/state'
import { change, Link, navigate, type Place } from '../router'
import { text } from '../text'

const t = text.traces

export function TracesPage({ place }: { place: Place }) {
  const range = useRange(place)
  const p = place.params
  const question = { service: p.get('service') ?? '', name: p.get('name') ?? '', min_duration: p.get('min') ?? '', error: p.get('error') === 'true', limit: 100 }
  const traces = useGet<TraceList>('/traces', { ...question, start: range.from / 1000, end: range.to / 1000 })
  const services = useGet<ServiceList>('/services', { start: Math.floor(range.from / 1000 / 600) * 600 })
  useRows('tr[data-row]')
  const list = (services.value?.services ?? []).filter((s) => s.operations?.length || s.name === question.service)
  const operations = [...new Set(list.filter((s) => !question.service || s.name === question.service).flatMap((s) => s.operations ?? []))].sort()
  return (
    <div className="page">
      <div className="head">
        <h1>{t.title}</h1>
        <span className="space" />
        <RangePicker place={place} range={range} />
      </div>
      <div className="question">
        <select aria-label={t.service} value={question.service} onChange={(e) => navigate(change(place, { service: e.target.value, name: undefined }))}>
          <option value="">{t.allServices}</option>
          {list.map((s) => (
            <option key={s.name}>{s.name}</option>
          ))}
        </select>
        <select aria-label={t.operation} value={question.name} onChange={(e) => navigate(change(place, { name: e.target.value }))}>
          <option value="">{t.allOperations}</option>
          {operations.map((o) => (
            <option key={o}>{o}</option>
          ))}
        </select>
        <Least place={place} value={p.get('min') ?? ''} />
        <label className="check">
          <input type="checkbox" checked={question.error} onChange={(e) => navigate(change(place, { error: e.target.checked }))} /> {t.errors}
        </label>
        <span className="space" />
        <ById />
      </div>
      <Known answer={traces}>
        {(found) => (
          <>
            <Partial why={found.partial} />
            {found.traces.length === 0 ? (
              <p className="empty">
                {t.none} {services.value && list.length === 0 && t.send}
              </p>
            ) : (
              <Table found={found} />
            )}
          </>
        )}
      </Known>
    </div>
  )
}

function Least({ place, value }: { place: Place; value: string }) {
  const [typed, setTyped] = useState(value)
  useEffect(() => setTyped(value), [value])
  const go = () => navigate(change(place, { min: Number(typed) > 0 ? Number(typed) : undefined }))
  return <input className="short" inputMode="decimal" placeholder={t.min} aria-label={t.min} value={typed} onChange={(e) => setTyped(e.target.value)} onBlur={go} onKeyDown={(e) => e.key === 'Enter' && go()} />
}

function ById() {
  const [id, setId] = useState('')
  return (
    <form
      onSubmit={(e) => {
        e.preventDefault()
        if (id.trim()) navigate('/explore/traces/' + encodeURIComponent(id.trim()))
      }}
    >
      <input data-search className="mono" placeholder={t.id} aria-label={t.id} size={34} value={id} onChange={(e) => setId(e.target.value)} /> <button type="submit">{t.find}</button>
    </form>
  )
}

function Table({ found }: { found: TraceList }) {
  const longest = Math.max(...found.traces.map((x) => x.duration_ms), 1e-6)
  return (
    <div className="scroll">
      <table className="rows">
        <thead>
          <tr>
            <th>{t.time}</th>
            <th>{t.name}</th>
            <th>{t.duration}</th>
            <th className="number">{t.spans}</th>
            <th className="number">{t.errorsColumn}</th>
            <th>{t.services}</th>
          </tr>
        </thead>
        <tbody>
          {found.traces.map((x) => (
            <tr key={x.trace_id} data-row tabIndex={0} onClick={(e) => !(e.target as HTMLElement).closest('a') && navigate('/explore/traces/' + x.trace_id)} onKeyDown={(e) => e.key === 'Enter' && navigate('/explore/traces/' + x.trace_id)}>
              <td className="nowrap">{stamp(x.start, true).slice(5)}</td>
              <td>
                <Link to={'/explore/traces/' + x.trace_id} className="name">
                  {x.service}: {x.name}
                </Link>
              </td>
              <td className="duration">
                <i style={{ width: `${(x.duration_ms / longest) * 100}%` }} className={x.errors ? 'bad' : ''} />
                <span>{milliseconds(x.duration_ms)}</span>
              </td>
              <td className="number">{x.spans}</td>
              <td className={'number' + (x.errors ? ' bad' : ' faint')}>{x.errors}</td>
              <td className="faint">
                {Object.entries(x.services)
                  .map(([s, n]) => `${s} ${n}`)
                  .join(', ')}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}
