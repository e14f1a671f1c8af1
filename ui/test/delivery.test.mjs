// What a person sees when a sink goes down and comes back, and when an agent with a task is lost, in a real browser on the built
// pages, with an API that answers what is set here. browser.test.mjs has the first story with real agents. It needs Chromium
// ($CHROMIUM or /usr/bin/chromium).

import assert from 'node:assert/strict'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { serve } from './served.mjs'
import { faultless, watch } from './watched.mjs'

const id = '0b6f0d5e-1c1a-4b7e-9a55-5f0a5f0a5f0a'
const now = Date.now()
const time = (secondsAgo) => new Date(now - secondsAgo * 1000).toISOString()
let hub, browser, page, watched

faultless(() => watched)

const totals = { in: 1_200_000, out: 900_000, dropped: 0, queued: 0, dead_lettered: 3, spooled: 0 }
const row = {
  id, name: 'edge-7', type: 'creel', version: '0.5.0', labels: { 'host.name': 'edge-7', site: 'north' }, connection: 'connected', health: 'healthy',
  config: 'abcdef012345', in: 1000, out: 1000, totals, queue_bytes: 0, queue_limit: 16 << 20, hub: 'hub', first_seen: time(9000), last_seen: time(0),
}
const empty = { bytes: 4096, limit_bytes: 1 << 30, waiting: 0, replaying: false, in_rate: 0, out_rate: 0, full: false }
const filling = { ...empty, bytes: 300 << 20, waiting: 1_234_567, oldest: time(200), in_rate: 1000, full_in: 725 }
const full = { ...filling, bytes: 1 << 30, full_in: 0, full: true }
const replaying = { ...filling, full_in: 0, in_rate: 0, out_rate: 5000, replaying: true, empty_in: 185, bytes: 200 << 20, waiting: 823_000 }
const cause = 'the breaker is open since 2026-11-26T02:06:35Z: send to 192.0.2.7:4317: Unavailable: connection error: desc = "transport: Error while dialing: dial tcp 192.0.2.7:4317: connect: connection refused"; is the receiver running?'

const exporter = (more) => ({ exporter: 'otlp/archive', in: 1_200_000, delivered: 900_000, queued: 0, dead_lettered: 3, spooled: 299_997, unexplained: 0, ...more })
const account = (more) => ({ exporter: 'otlp/archive', recovered: 17, in: 299_997, delivered: 0, dropped: {}, dead_lettered: 0, waiting: 300_014, unexplained: 0, ...more })

// detail is an agent whose exporter is as given.
function detail(component, more = {}) {
  return {
    ...row, started: time(9000), heartbeat_seconds: 5, effective: '{}', timeline: [], health: component.healthy ? 'healthy' : 'degraded', cause: component.error,
    hops: [{ exporter: 'otlp/hub', sent: 5000, taken: 5000, repeats: 12, unexplained: 0, since: time(9000) }],
    components: [
      { component: 'collectors.file/app', plugin: 'file', healthy: true, records: 1_200_000 },
      { component: 'exporters.otlp/archive', plugin: 'otlp', queued_bytes: 0, queue_limit_bytes: 16 << 20, ...component },
      { component: 'exporters.otlp/hub', plugin: 'otlp', healthy: true, breaker: 'closed', queued_bytes: 0, queue_limit_bytes: 16 << 20 },
    ],
    routes: [{ pipeline: 'logs', from: ['file/app'], through: ['sample'], to: ['otlp/archive', 'otlp/hub'], in: 1000, from_rates: { 'file/app': 1000 }, to_rates: { 'otlp/archive': component.healthy ? 1000 : 0, 'otlp/hub': 1000 } }],
    ledger: {
      pipelines: [{
        pipeline: 'logs', accepted: 1_200_000, created: 0, filtered: 0, absorbed: 0, routed: 0, held: 0, passed: 1_200_000, unexplained: 0,
        exporters: [exporter(), { exporter: 'otlp/hub', in: 5000, delivered: 5000, queued: 0, dead_lettered: 0, spooled: 0, unexplained: 0 }],
      }],
      spools: [account()],
    },
    ...more,
  }
}

const up = (spool) => ({ healthy: true, breaker: 'closed', spool })
const down = (spool) => ({ healthy: false, breaker: 'open', queued_bytes: 12_345_678, error: cause, since: time(200), spool })
const show = (d) => hub.set(`/agents/${id}/watch`, d, 'agent')
const node = () => page.locator('[data-node="exporters.otlp/archive"]')
const says = (what) => node().locator('text', { hasText: what }).first().waitFor()
const line = () => page.locator('#components tbody tr', { hasText: 'exporters.otlp/archive' })
const box = async (of) => {
  const b = await of.boundingBox()
  return [b.x, b.y, b.width, b.height].map(Math.round)
}
const picture = async (name) => process.env.SCREENSHOTS && (await page.screenshot({ path: path.join(process.env.SCREENSHOTS, name + '.png'), fullPage: true, animations: 'disabled' }))

before(async () => {
  hub = await serve()
  hub.set('/hub', { id: 'hub', version: '0.5.0', started: time(9000), agents: { healthy: 1 }, listen: [], quick_look: { bytes: 0, series: 0 } })
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] })
  watched = await watch(await (await browser.newContext({ viewport: { width: 1400, height: 900 }, colorScheme: 'light' })).newPage(), hub.url)
  page = watched.page
  page.setDefaultTimeout(10_000)
})

after(async () => {
  await browser?.close()
  await hub?.close()
})

test('a sink goes down, its disk queue fills, it returns, what waits is replayed, and nothing moves on the page', async () => {
  show(detail(up(empty)))
  await page.goto(`${hub.url}/agents/${id}`)
  await says('takes records')
  await says('nothing waits on disk')
  const places = async () => [await box(node().locator('rect').first()), await box(page.locator('#ledger')), await box(line()), await box(line().getByRole('meter')), await box(line().locator('td').nth(2))]
  const still = await places()

  show(detail(down(filling)))
  await says(/^far side down: ….*connection refused$/)
  await says(/^fills in 12 min$/)
  await says(/^1\.23M wait since [\d :-]+$/)
  const share = await node().evaluate((n) => n.querySelector('.used').width.baseVal.value / n.querySelector('.room').width.baseVal.value)
  assert.ok(Math.abs(share - 300 / 1024) < 0.01, `the bar shows ${share}`)
  assert.match(await node().locator('title').first().textContent(), /connection refused/)
  await line().getByText('far side down').waitFor()
  await line().getByText('fills in 12 min').waitFor()
  await line().getByText(/^1,234,567 wait since/).waitFor()
  assert.equal(await line().getByRole('meter').getAttribute('aria-valuetext'), '300 MiB of 1 GiB')
  await picture('sink-down')
  assert.deepEqual(await places(), still, 'nothing has moved')

  show(detail(down(full)))
  await says(/^full$/)
  assert.equal(await node().locator('.spooled.bad').count(), 1)
  await picture('sink-down-full')

  show(detail({ ...down(full), breaker: undefined }))
  await says('far side fails: …')
  show(detail({ ...down(filling), breaker: 'half-open' }))
  await says('far side tried again')

  show(detail(up(replaying)))
  await says(/^replaying 5\.00k\/s, 3 min left$/)
  await line().getByText('replaying 5.00k/s, 3 min left').waitFor()
  await page.locator('.edge text', { hasText: /^6\.00k\/s$/ }).waitFor() // what comes, and what had waited
  assert.deepEqual(await places(), still, 'nothing has moved')
  await picture('sink-replay')

  show(detail(up(empty)))
  await says('nothing waits on disk')
  assert.deepEqual(await places(), still, 'nothing has moved')
})

test('a disk queue without times, and one whose disk fails, are told as they are', async () => {
  const said = async (spool) => {
    show(detail(up(spool)))
    await page.waitForFunction((n) => document.querySelector('.spool .amount')?.textContent.startsWith(n), `${spool.bytes} B`)
    return node().locator('.told').textContent()
  }
  await page.goto(`${hub.url}/agents/${id}`)
  for (const [n, spool, want] of [
    [1, { ...filling, full_in: 0 }, 'waits for the far side'],
    [2, { ...replaying, empty_in: 0 }, 'replaying 5.00k/s'],
    [3, { ...replaying, full_in: 7300 }, 'fills in 2 h, replaying 5.00k/s, 3 min left'],
    [4, { ...empty, full_in: 1300 }, 'nothing waits on disk'],
    [5, { ...replaying, full: true, empty_in: 0.2 }, 'full, replaying 5.00k/s, 1 s left'],
  ]) assert.equal(await said({ ...spool, bytes: n }), want)
  await said({ ...empty, bytes: 6, error: 'write segment 7: no space left on device' })
  assert.equal(await node().locator('.spooled.bad').count(), 1)
  await line().getByText('no space left on device').waitFor()
})

test('the ledger: disk queues, dead letters and hops; what is unexplained stands out', async () => {
  const text = (of) => page.locator(`${of} tbody tr`).first().locator('td').allTextContents()
  show(detail(down(filling)))
  await page.goto(`${hub.url}/agents/${id}`)
  await page.locator('#ledger-spools').waitFor()
  assert.deepEqual(await text('#ledger-exporters'), ['logs', 'otlp/archive', '1,200,000', '900,000', '0', '299,997', '0', '3', '0'])
  assert.deepEqual(await text('#ledger-spools'), ['otlp/archive', '17', '299,997', '0', '300,014', '0', '0', '0'])
  assert.deepEqual(await text('#ledger-hops'), ['otlp/hub', '5,000', '5,000', '12', '0'])
  assert.equal(await page.locator('.unexplained').count(), 0)
  await page.locator('#ledger-exporters a').first().press('Enter')
  assert.match(decodeURIComponent(page.url()), /#disk-queue-otlp\/archive$/)
  assert.equal(await page.locator('tr:target').count(), 1, 'the count leads to the row of the disk queue')

  const ill = detail(up(empty), { hops: [{ exporter: 'otlp/hub', sent: 5000, taken: 4988, repeats: 0, unexplained: 12, since: time(9000) }] })
  ill.ledger.spools = [account({ dropped: { spool_full: 40, corrupt: 2 }, unexplained: 7 })]
  show(ill)
  await page.locator('.unexplained').first().waitFor()
  assert.deepEqual(await page.locator('.unexplained').allTextContents(), ['7', '12'])
  await page.locator('#ledger-spools').getByText('spool_full: 40, corrupt: 2').waitFor()
  await picture('ledger-unexplained')

  show({ ...ill, hops: [{ ...ill.hops[0], unexplained: 0, settling: true }] })
  await page.locator('#ledger-hops').getByText('…').waitFor()

  show(detail({ healthy: true }, { ledger: { pipelines: [] }, hops: undefined }))
  await page.getByText('It reports no ledger.').waitFor()
})

test('fleet: what waits on disk, and until when there is room', async () => {
  const disk = { bytes: 300 << 20, limit_bytes: 1 << 30, waiting: 1_234_567, exporter: 'otlp/archive', full: false, full_in: 725, replaying: false }
  const calm = { ...disk, bytes: 4096, waiting: 0, full_in: undefined }
  const columns = () => page.locator('thead th').evaluateAll((all) => all.map((th) => Math.round(th.getBoundingClientRect().x)))
  const list = (agents) => hub.set('/agents/watch', { agents, total: agents.length, counts: { degraded: 1, healthy: 5 } }, 'agents')
  const rows = page.locator('tr[data-row]')
  list([1, 2, 3, 4, 5, 6].map((n) => ({ ...row, id: String(n), name: `edge-${n}`, disk: calm })))
  await page.goto(`${hub.url}/fleet`)
  await rows.first().waitFor()
  const still = await columns()
  list([
    { ...row, id: '1', name: 'edge-1', health: 'degraded', cause, totals: { ...totals, dropped: 17, spooled: 9_000_000 }, disk: { ...disk, bytes: 1 << 30, waiting: 9_000_000, full: true, full_in: undefined } },
    { ...row, id: '2', name: 'edge-2', disk },
    { ...row, id: '3', name: 'edge-3', disk: { ...disk, full_in: undefined, replaying: true, empty_in: 185 } },
    { ...row, id: '4', name: 'edge-4', disk: calm, queue_bytes: 1_000_000 },
    { ...row, id: '5', name: 'edge-5', totals: { ...totals, dead_lettered: 0 } },
    { ...row, id: '6', name: 'edge-6' },
  ])
  await rows.nth(0).getByText('full', { exact: true }).waitFor()
  assert.deepEqual(await columns(), still, 'no column has moved')
  assert.deepEqual(await page.locator('tr[data-row] .disk .told').allTextContents(), ['full', 'fills in 12 min', 'replaying, 3 min left', 'nothing waits on disk'])
  assert.deepEqual(await page.locator('tr[data-row] .disk .amount').allTextContents(), ['9.00M wait', '1.23M wait', '1.23M wait', '0 wait'])
  assert.equal(await rows.nth(0).locator('a.bad').count(), 2, 'dropped and dead letters')
  await picture('fleet-disk')
  show(detail(down(full)))
  hub.set(`/agents/1/watch`, detail(down(full)), 'agent')
  await page.keyboard.press('j')
  await page.keyboard.press('Enter')
  await says(/^full$/)
  for (let i = 0; i < 2; i++) await page.keyboard.press('t')
  await picture('sink-down-dark')
  await page.keyboard.press('g')
  await page.keyboard.press('f')
  await rows.first().waitFor()
  await picture('fleet-disk-dark')
  await page.keyboard.press('t')
})

test('the books of the fleet, with a row for each agent', async () => {
  const books = {
    accepted: 3_000_000, created: 0, filtered: 10, absorbed: 0, routed: 0, held: 5, delivered: 2_000_000, dropped: { queue_full: 40 }, dead_lettered: 3, spooled: 999_942,
    queued: 0, in_work: 0, sent: 5000, taken: 4988, repeats: 12, unexplained: 12,
  }
  hub.set('/ledger', { total: books, agents: [{ id, name: 'edge-7', ...books }, { id: '2', name: 'edge-2', ...books, unexplained: 0, taken: 5000 }], left_out: 3 })
  await page.goto(`${hub.url}/fleet`)
  await page.locator('tr[data-row]').first().waitFor()
  await page.keyboard.press('g')
  await page.keyboard.press('b')
  await page.locator('h1:text("Ledger")').waitFor()
  await page.locator('.total .unexplained:text-is("12")').waitFor()
  assert.equal(await page.locator('.unexplained').count(), 2)
  await page.getByText('3 more agents are in the sums.').waitFor()
  await picture('books')
  hub.set('/ledger', { total: { ...books, unexplained: 13 }, agents: [] })
  await page.locator('.total .unexplained:text-is("13")').waitFor()
  hub.set('/ledger', { total: books, agents: [{ id, name: 'edge-7', ...books }] })
  show(detail(up(empty)))
  await page.locator('tr[data-row]').waitFor()
  await page.keyboard.press('j')
  await page.keyboard.press('Enter')
  await page.locator('#ledger-exporters').waitFor()
})

test('tasks: what is wrong comes first, a move is told as it happens, and both pages lead to each other', async () => {
  const on = (agent, name, epoch, more) => ({ document: 'watch', version: 3, place: 3, priority: 5, status: 'running', agent, name, epoch, since: time(90), ...more })
  const nowhere = { document: 'watch', version: 3, place: 3, priority: 5, status: 'unplaced', error: 'only 2 agents can have it' }
  const poll = { document: 'poll', version: 1, place: 1, priority: 9, status: 'running', epoch: 4, since: time(90) } // on an agent that is not to be seen
  const list = (...owners) => hub.set('/watch/tasks', { all: true, documents: ['poll', 'watch'], tasks: [poll, ...owners] }, 'tasks')
  const change = (document, ...tasks) => hub.set('/watch/tasks', { all: false, documents: [document], tasks }, 'tasks')
  const rows = page.locator('.tasks tbody tr')
  list(on('2', 'edge-2', 1), on('3', 'edge-3', 2), nowhere)
  await page.goto(`${hub.url}/tasks`)
  await rows.nth(3).waitFor()
  assert.match((await rows.allTextContents()).join('\n'), /^watch2 of 3 running.*unplaced.*only 2 agents.*\n.*edge-2.*\n.*edge-3.*\npoll.*you do not see/)
  assert.equal(await page.locator('tr.moved').count(), 0)
  change('watch', on(id, 'edge-7', 3, { status: 'waiting' }), on('3', 'edge-3', 2), nowhere)
  await page.locator('tr.moved', { hasText: 'edge-7' }).getByText('moved from edge-2').waitFor()
  assert.equal(await page.locator('tr.moved').count(), 1)
  assert.equal(await rows.count(), 4, 'what has not changed stays')
  await picture('tasks')
  list(on(id, 'edge-7', 3, { status: 'waiting' }), on('3', 'edge-3', 2), nowhere)
  await page.locator('.chips a', { hasText: 'waiting' }).click()
  await rows.nth(1).waitFor({ state: 'detached' })
  assert.match(page.url(), /status=waiting/)
  show(detail(up(empty), { intended: { documents: [{ agent: id, name: 'watch', status: 'waiting' }] } }))
  await rows.getByRole('link', { name: 'edge-7' }).click()
  await page.locator('#tasks tbody tr').getByText('waiting').waitFor()
  assert.equal(await page.locator('#tasks tbody tr').count(), 1)
  change('watch', on(id, 'edge-7', 3), on('3', 'edge-3', 2), nowhere)
  await page.locator('#tasks tbody tr').getByText('running').waitFor()
  change('watch', on('2', 'edge-2', 4), on('3', 'edge-3', 2), nowhere) // it is lost
  await page.locator('#tasks').waitFor({ state: 'detached' })
  assert.deepEqual(hub.asked.filter((a) => a.at === '/tasks'), [], 'nobody asks again and again')
  hub.set('/watch/tasks', { all: true, documents: [], tasks: [] }, 'tasks')
  await page.keyboard.press('g')
  await page.keyboard.press('p')
  await page.getByLabel('Such a document').getByText('place: 1').waitFor()
  await picture('no-tasks')
})
