import { useCallback, useEffect, useState } from 'react'
import { prom, promGet } from '../api/client'
import { useAsked } from '../api/use'
import { Chart, type Unit } from '../parts/chart'
import { Expression } from '../parts/expression'
import { hubName, Missing, useHubs } from '../parts/hubs'
import { type RangeAnswer, stepFor, unitOf } from '../parts/promql'
import { type Range, RangePicker, setRange, useRange } from '../parts/range'
import { Known, Trouble } from '../parts/state'
import { change, Link, navigate, type Place } from '../router'
import { text } from '../text'

const t = text.metrics

export function MetricsPage({ place }: { place: Place }) {
  const expression = place.params.get('query') ?? ''
  const normal = expression ? '1h' : '5m'
  const range = useRange(place, normal)
  const [warnings, warn] = useWarnings()
  return (
    <div className="page">
      <div className="head">
        <h1>{t.title}</h1>
        {expression ? <Link to={change(place, { query: undefined })}>{t.overview}</Link> : <Hosts place={place} />}
        <span className="space" />
        <RangePicker place={place} range={range} normal={normal} />
      </div>
      <Expression value={expression} run={(query) => navigate(change(place, { query }))} />
      <Missing list={warnings} />
      {expression ? <Explored place={place} expression={expression} range={range} warn={warn} /> : <Overview place={place} range={range} warn={warn} />}
    </div>
  )
}

type Warn = (of: string, list: string[]) => void

// useWarnings is what the answers of a page lack, each told once, and how they say so.
function useWarnings(): [string[], Warn] {
  const hubs = useHubs()
  const [all, set] = useState<Record<string, string[]>>({})
  const warn = useCallback<Warn>((of, list) => set((was) => (list.length || was[of]?.length ? { ...was, [of]: list } : was)), [])
  const said = (w: string) => {
    const [, id = '', why = ''] = /\bhub (\S+)( did not answer.*)$/.exec(w) ?? []
    return id ? text.hubs.missing(`Hub ${hubName(hubs, id)}${why}`) : w
  }
  return [[...new Set(Object.values(all).flat().map(said))], warn]
}

// useSeries draws nothing new while it has no answer. What that lacks is told to warn.
function useSeries(expression: string, range: Range, warn: Warn) {
  const step = stepFor(range.to - range.from)
  const from = Math.ceil(range.from / 1000 / step) * step
  const to = Math.floor(range.to / 1000 / step) * step
  const answer = useAsked(expression + ' ' + range.key, async (signal) => {
    const { data, warnings = [] } = await prom<RangeAnswer>('/query_range', { query: expression, start: from, end: to, step }, signal)
    return { series: data.result, warnings, from, to, step }
  })
  const warnings = answer.value?.warnings
  useEffect(() => {
    warn(expression, warnings ?? [])
    return () => warn(expression, [])
  }, [expression, warnings, warn])
  return answer
}

function Explored({ place, expression, range, warn }: { place: Place; expression: string; range: Range; warn: Warn }) {
  const answer = useSeries(expression, range, warn)
  const stacked = place.params.get('stacked') === 'true'
  return (
    <Known answer={answer}>
      {(v) =>
        v.series.length === 0 ? (
          <p className="empty">{t.none}</p>
        ) : (
          <>
            <label className="check">
              <input type="checkbox" checked={stacked} onChange={(e) => navigate(change(place, { stacked: e.target.checked }), true)} /> {t.stacked}
            </label>
            <Chart {...v} unit={unitOf(expression)} height={340} stacked={stacked} label={expression} zoom={(a, b) => setRange(place, a, b)} />
          </>
        )
      }
    </Known>
  )
}

function Hosts({ place }: { place: Place }) {
  const hosts = useAsked<string[]>('hosts', (signal) => promGet('/label/host_name/values', {}, signal))
  const chosen = place.params.get('host') ?? ''
  const list = [...new Set([...(hosts.value ?? []), ...(chosen ? [chosen] : [])])].sort()
  if (list.length < 2 && !chosen) return null
  return (
    <select aria-label={t.host} value={chosen} onChange={(e) => navigate(change(place, { host: e.target.value }))}>
      <option value="">{t.allHosts}</option>
      {list.map((h) => (
        <option key={h}>{h}</option>
      ))}
    </select>
  )
}

interface Overviewed {
  title: keyof typeof t.charts
  expression: (selector: string) => string
  unit: Unit
  stacked?: boolean
}

// overview is what one looks at first. Each chart leads to its expression.
const overview: Overviewed[] = [
  {
    title: 'cpu',
    expression: (s) => `sum by (cpu_mode) (rate(system_cpu_time_seconds_total{cpu_mode!="idle"${s}}[1m])) / scalar(sum(rate(system_cpu_time_seconds_total{cpu_mode!=""${s}}[1m])))`,
    unit: 'percent',
    stacked: true,
  },
  { title: 'memory', expression: (s) => `sum by (system_memory_state) (system_memory_usage_bytes{system_memory_state!="free"${s}})`, unit: 'bytes', stacked: true },
  { title: 'load', expression: (s) => `sum by (over) (label_replace({__name__=~"system_cpu_load_average_.*"${s}}, "over", "$1", "__name__", ".*_(.*)"))`, unit: 'number' },
  { title: 'network', expression: (s) => `sum by (network_io_direction) (rate(system_network_io_bytes_total{network_interface_name!="lo"${s}}[1m]))`, unit: 'bytes' },
  { title: 'disk', expression: (s) => `sum by (disk_io_direction) (rate(system_disk_io_bytes_total{system_device!=""${s}}[1m]))`, unit: 'bytes' },
  { title: 'filesystem', expression: (s) => `max by (system_filesystem_mountpoint) (system_filesystem_utilization_ratio{system_filesystem_mountpoint!=""${s}})`, unit: 'percent' },
  { title: 'records', expression: (s) => `sum by (pipeline) (rate(creel_pipeline_accepted_total{pipeline!=""${s}}[1m]))`, unit: 'number' },
  { title: 'process', expression: (s) => `sum by (host_name, creel_agent_id) (process_memory_usage_bytes{creel_agent_id!=""${s}})`, unit: 'bytes' },
]

function Overview({ place, range, warn }: { place: Place; range: Range; warn: Warn }) {
  const host = place.params.get('host')
  const selector = host ? `,host_name=${JSON.stringify(host)}` : ''
  return (
    <div className="tiles">
      {overview.map((o) => (
        <Tile key={o.title} o={o} place={place} range={range} expression={o.expression(selector)} warn={warn} />
      ))}
    </div>
  )
}

function Tile({ o, place, range, expression, warn }: { o: Overviewed; place: Place; range: Range; expression: string; warn: Warn }) {
  const answer = useSeries(expression, range, warn)
  const { value, failure } = answer
  return (
    <section className="tile">
      <h2>
        <Link to={change(place, { query: expression, stacked: !!o.stacked, host: undefined })} title={t.open}>
          {t.charts[o.title]}
        </Link>
      </h2>
      <Trouble failure={failure} />
      {value && value.series.length > 0 ? (
        <Chart {...value} unit={o.unit} height={170} stacked={!!o.stacked} legend="line" label={t.charts[o.title]} zoom={(a, b) => setRange(place, a, b)} />
      ) : (
        <p className="empty">{answer.loading && !value ? text.state.loading : t.waiting}</p>
      )}
    </section>
  )
}
