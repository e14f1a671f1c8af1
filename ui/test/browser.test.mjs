// What a person would look at, in a real browser, on a real hub with a second agent that sends made-up records.
// It needs ../bin/creel and Chromium ($CHROMIUM or /usr/bin/chromium). With SCREENSHOTS=DIR each page is kept as a picture.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { faultless, watch } from './watched.mjs'

const creel = process.env.CREEL ?? path.resolve(import.meta.dirname, '../../bin/creel')
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'creel-ui-'))
const patience = 30_000
const children = []
let hub, token, browser, page, otlp, watched

faultless(() => watched)

function start(...args) {
  const log = fs.openSync(path.join(dir, `log-${children.length}`), 'w')
  const child = spawn(creel, args, { stdio: ['ignore', log, log] })
  child.ended = new Promise((done) => child.on('exit', done))
  children.push(child)
  return child
}

async function until(what, f) {
  const late = Date.now() + patience
  for (;;) {
    const value = await f()
    if (value) return value
    assert.ok(Date.now() < late, `${what}: not within ${patience} ms`)
    await new Promise((done) => setTimeout(done, 50))
  }
}

const readJSON = (file) => (fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, 'utf8')) : undefined)

function second(config) {
  fs.writeFileSync(path.join(dir, 'second.yaml'), config)
  return start('agent', '-c', path.join(dir, 'second.yaml'), '--data', path.join(dir, 'second'), '--hub', hub)
}

const sending = () => `
agent: {labels: {site: north}}
collectors:
  generate/logs: {signal: logs, rate: 50}
  generate/traces: {signal: traces, rate: 50}
processors:
  sample: {rate: 1}
exporters:
  otlp/hub: {endpoint: "${otlp}", tls: {insecure: true}}
pipelines:
  logs: {from: [generate/logs], to: [otlp/hub]}
  traces: {from: [generate/traces], through: [sample], to: [otlp/hub]}
`

before(async () => {
  start('up', '--data', path.join(dir, 'hub'), '--listen', '127.0.0.1:0', '--opamp', 'none', '--heartbeat', '200ms', '--demo-fleet', '3')
  const here = await until('the hub runs', () => readJSON(path.join(dir, 'hub/hub.json')))
  hub = here.url
  token = fs.readFileSync(path.join(dir, 'hub/token'), 'utf8').trim()
  const endpoints = await until('the agent listens', () => readJSON(path.join(dir, 'hub/agent/endpoints.json')))
  otlp = endpoints.listen.find((e) => e.component === 'collectors.otlp').address
  second(sending())
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] })
  watched = await watch(await (await browser.newContext({ viewport: { width: 1400, height: 900 }, colorScheme: 'light' })).newPage(), hub)
  page = watched.page
  page.setDefaultTimeout(patience)
})

after(async () => {
  await browser?.close()
  for (const child of children) child.kill('SIGTERM')
  await Promise.all(children.map((c) => c.ended))
  fs.rmSync(dir, { recursive: true })
})

async function picture(name) {
  if (process.env.SCREENSHOTS) await page.screenshot({ path: path.join(process.env.SCREENSHOTS, name + '.png'), fullPage: true })
}

const go = (to) => page.goto(hub + to)
const see = (selector) => page.locator(selector).first().waitFor()

test('nobody sees anything before signing in', async () => {
  await go('/fleet')
  await see('text=Sign in to this hub')
  await page.getByLabel('Token').fill('wrong')
  await page.getByRole('button', { name: 'Sign in' }).click()
  await see('[role=alert]')
  await page.getByLabel('Token').fill(token)
  await page.getByRole('button', { name: 'Sign in' }).click()
  await see('h1:text("Fleet")')
})

test('the link that the hub prints signs in', async () => {
  const other = await (await browser.newContext()).newPage()
  await other.goto(`${hub}/signin?token=${token}`)
  await other.locator('h1:text("Fleet")').waitFor()
  await other.context().close()
})

test('fleet: this machine and the second agent, live, filtered, found', async () => {
  await go('/fleet')
  await see('.label:text("creel.role=hub")')
  const sender = page.locator('tr[data-row]', { has: page.locator('.label:text("site=north")') }).filter({ hasNotText: 'demo=' })
  await sender.waitFor()
  await until('records flow', async () => Number(await sender.locator('td').nth(4).textContent()) > 20)
  await picture('fleet')
  const shown = Number((await page.locator('.count').first().textContent()).replace(/\D/g, ''))
  assert.equal(shown, 5, 'the hub, the second agent and three simulated ones')
  assert.equal(await page.locator('tr[data-row]').count(), shown, 'the count is that of the list')
  await page.locator('.label:text("demo=true")').first().click()
  await until('three rows are left', async () => (await page.locator('tr[data-row]').count()) === 3)
  assert.match(page.url(), /label=demo%3Dtrue/)
  await page.locator('.chip').click()
  await page.keyboard.press('/')
  await page.keyboard.type('creel.role=hub')
  await until('one row is left', async () => (await page.locator('tr[data-row]').count()) === 1)
})

test('an agent that is killed shows as lost with its cause, and returns as the same', async () => {
  await go('/fleet')
  const child = children[1]
  const id = await page.evaluate(async () => (await (await fetch('/api/creel/v1/agents?label=site%3Dnorth')).json()).agents.find((a) => !a.labels.demo).id)
  const row = page.locator('tr[data-row]', { has: page.locator(`a[href="/agents/${id}"]`) })
  await row.locator('.status.healthy').waitFor()
  child.kill('SIGKILL')
  await child.ended
  await row.locator('.status.lost').waitFor()
  assert.match(await row.locator('.cause').textContent(), /three heartbeats missed/)
  assert.equal(await page.locator('tr[data-row]').first().locator('.status').textContent(), 'lost', 'the worst comes first')
  await picture('lost')
  second(sending())
  await row.locator('.status.healthy').waitFor()
})

test('agent: its graph moves, its ledger balances, its configuration and timeline are there', async () => {
  const id = await page.evaluate(async () => (await (await fetch('/api/creel/v1/agents?label=site%3Dnorth')).json()).agents.find((a) => !a.labels.demo).id)
  await go('/agents/' + id)
  for (const part of ['generate/logs', 'generate/traces', 'otlp/hub', 'sample', 'traces']) await see(`.graph .node text:text-is("${part}")`)
  await see('.graph .moving')
  const before = await page.locator('#ledger tbody tr').first().textContent()
  await until('the ledger counts on', async () => (await page.locator('#ledger tbody tr').first().textContent()) !== before)
  await see('.config:has-text("generate/logs")')
  await see('.timeline .status.lost')
  await picture('agent')
  await page.locator('#configuration a').click()
  await until('the list of those that run it', async () => (await page.locator('tr[data-row]').count()) === 1)
})

test('metrics: the overview draws this machine, names are completed, an expression is drawn', async () => {
  await go('/explore/metrics')
  const cpu = page.locator('.tile', { hasText: 'CPU in use' })
  await cpu.locator('canvas').waitFor()
  await cpu.locator('.legend:has-text("user")').waitFor()
  await picture('metrics')
  await page.keyboard.press('/')
  await page.keyboard.type('sum(rate(system_cpu_ti')
  await page.locator('.proposals li').first().waitFor()
  await page.keyboard.press('Tab')
  await page.keyboard.type('[1m])) by (cpu_mode)')
  await page.keyboard.press('Enter')
  await see('.legend-table td:has-text(\'cpu_mode="user"\')')
  assert.match(decodeURIComponent(page.url()), /system_cpu_time_seconds_total/)
  await picture('expression')
  await go('/explore/metrics?query=' + encodeURIComponent('sum by ('))
  await see('[role=alert]:has-text("parse error")')
})

test('logs: found, counted, filtered by what one sees, and live', async () => {
  await go('/explore/logs?service=service-1')
  await see('.record .service:text("service-1")')
  assert.equal(await page.locator('.record .service', { hasNotText: 'service-1' }).count(), 0)
  await see('.bars rect.severity')
  await page.locator('.record [data-row]').first().click()
  const attribute = page.locator('.attributes dl > div', { hasText: 'user.id' })
  await attribute.hover()
  const user = await attribute.locator('dd').textContent()
  await attribute.getByRole('button', { name: /Only these/ }).click()
  await see('.chip')
  await until('few are left', async () => (await page.locator('.record').count()) < 50)
  assert.equal(await page.locator('.chip').textContent(), `user.id=${user.replace(/[+−]/g, '')} ✕`)
  await picture('logs')
  await go('/explore/logs?query=' + encodeURIComponent('"payment cart" -timeout'))
  await see('.record')
  for (const body of await page.locator('.record .body').allTextContents()) {
    assert.match(body, /payment cart/)
    assert.doesNotMatch(body, /\btimeout\b/)
  }
  await go('/explore/logs?live=true&service=service-0')
  await see('.record')
  const first = await page.locator('.record .body').first().textContent()
  await until('more come', async () => (await page.locator('.record .body').first().textContent()) !== first)
})

test('traces: found, opened by id, their spans told', async () => {
  await go('/explore/traces?error=true')
  await see('tr[data-row]')
  const link = page.locator('tr[data-row] a').first()
  const id = (await link.getAttribute('href')).split('/').at(-1)
  await picture('traces')
  await go('/explore/traces')
  await page.getByLabel('Trace id').fill(id)
  await page.keyboard.press('Enter')
  await see('.span .bad')
  await page.locator('.span').first().click()
  await see('.details:has-text("generate.sequence")')
  await picture('trace')
  await go('/explore/traces/' + '0'.repeat(31) + '1')
  await see('[role=alert]')
})

test('by keyboard, light and dark', async () => {
  await go('/fleet')
  await see('tr[data-row]')
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
  const light = await ground()
  await page.keyboard.press('t')
  await page.keyboard.press('t')
  assert.notEqual(await ground(), light, 'dark is dark')
  await picture('dark')
  await page.keyboard.press('t')
  await page.keyboard.press('j')
  await page.keyboard.press('j')
  await page.keyboard.press('k')
  await page.keyboard.press('Enter')
  await see('#timeline')
  for (const [keys, title] of [['gb', 'Ledger'], ['gl', 'Logs'], ['gt', 'Traces'], ['gm', 'Metrics'], ['ga', 'Access'], ['gf', 'Fleet']]) {
    for (const k of keys) await page.keyboard.press(k)
    await see(`h1:text("${title}")`)
    if (keys === 'gb') {
      await see('tr.total')
      await picture('books')
    }
  }
  await page.keyboard.press('?')
  await see('[role=dialog]')
  await page.keyboard.press('Escape')
  await until('the dialog is gone', async () => (await page.locator('[role=dialog]').count()) === 0)
})

// port finds one that is free now, and is given to nobody else soon.
const port = () =>
  new Promise((done) => {
    const s = net.createServer().listen(0, '127.0.0.1', () => {
      const p = s.address().port
      s.close(() => done(p))
    })
  })

test('a sink goes down, its disk queue fills, it returns, what waits is replayed, and the books balance', async () => {
  const far = `127.0.0.1:${await port()}`
  const file = (name, text) => {
    fs.writeFileSync(path.join(dir, name), text)
    return path.join(dir, name)
  }
  const sink = file('sink.yaml', `
collectors: {otlp: {grpc: {endpoint: "${far}"}, http: {enabled: false}}}
exporters: {"null": {}}
pipelines: {all: {from: [otlp], to: ["null"]}}
`)
  const source = file('source.yaml', `
agent: {labels: {story: outage}}
collectors: {generate/logs: {signal: logs, rate: 500}}
exporters:
  otlp/far:
    endpoint: "${far}"
    tls: {insecure: true}
    delivery:
      breaker: {enabled: true, min_calls: 2, open_for: 500ms, probes: 1}
      retry: {initial: 50ms, max: 200ms}
      spool: {max_size: 256MiB, min_free: 0B, replay: {records_per_second: 1000}}
pipelines: {logs: {from: [generate/logs], to: [otlp/far]}}
`)
  const begin = () => start('agent', '-c', sink, '--data', path.join(dir, 'sink'))
  let there = begin()
  start('agent', '-c', source, '--data', path.join(dir, 'source'), '--hub', hub)
  const id = await until('the agent is known', () =>
    page.evaluate(async () => (await (await fetch('/api/creel/v1/agents?label=story%3Doutage')).json()).agents[0]?.id))
  await go('/agents/' + id)
  const node = page.locator('[data-node="exporters.otlp/far"]')
  const says = (what) => node.locator('text', { hasText: what }).first().waitFor()
  // count reads a column of the disk queue's row: 1 recovered, 2 in, 3 delivered, 4 waiting, 5 dropped, 6 dead letters, 7 unexplained.
  const count = async (n) => Number((await page.locator('#ledger-spools tbody td').nth(n).textContent()).replaceAll(',', ''))
  await says('takes records')
  await says('nothing waits on disk')
  await until('records are delivered', async () => (await page.locator('#ledger-exporters tbody td').nth(3).textContent()) !== '0')

  there.kill('SIGKILL')
  await there.ended
  await says(/^far side (down|fails)/)
  await says(/^fills in /)
  await says(/ wait since /)
  const waiting = await count(4)
  await until('more and more waits', async () => (await count(4)) > waiting + 2000)
  await picture('outage')

  there = begin()
  await says(/replaying/)
  await picture('replay')
  await says('takes records')
  await says('nothing waits on disk')
  await until('all that waited is delivered', async () => (await count(1)) + (await count(2)) === (await count(3)) && (await count(4)) === 0)
  assert.ok((await count(2)) > 2000, 'what waited came through the disk queue')
  assert.deepEqual([await count(5), await count(6), await count(7)], [0, 0, 0], 'nothing is dropped, refused or unexplained')
  await picture('after')
})

// field is the editor; write replaces what is in it.
const field = () => page.locator('.cm-content')
async function write(text) {
  await field().click()
  await page.keyboard.press('Control+a')
  await page.keyboard.insertText(text)
}
const runs = (version, n) => page.locator('.progress', { hasText: `version ${version}` }).locator('.running', { hasText: `${n} running` }).waitFor()
const north = 'selector: site == "north" && demo != "true"\n'

// apply asks for what is in the editor to be applied, by keyboard.
async function apply(note) {
  await field().press('Control+s') // it waits for what the hub says
  await page.getByLabel('Note for the history').fill(note)
  await page.keyboard.press('Enter')
  await until('the dialog is gone', async () => (await page.locator('dialog').count()) === 0)
}

test('a document is written with help, wrong at its line, mended, looked at as differences, applied, run, changed and rolled back', async () => {
  await go('/documents')
  await page.getByRole('link', { name: 'New document' }).click()
  await write(`document: extra\n${north}collectors:\n`)
  await page.keyboard.type('  gener')
  await page.locator('.cm-tooltip-autocomplete li[aria-selected]', { hasText: 'generate' }).waitFor()
  await picture('document-help')
  await until('the proposal is taken', async () => {
    await page.keyboard.press('Tab') // without effect in the first moment
    return /generate:/.test(await field().innerText())
  })
  await page.locator('.cm-tooltip-autocomplete li', { hasText: /^rate/ }).waitFor() // what may stand below comes at once
  await page.keyboard.press('Escape')
  await page.keyboard.insertText('rat: 5\npipelines: {extra: {from: [generate], to: [otlp/hub]}}\n')
  await page.locator('.problems', { hasText: 'unknown option "rat"' }).waitFor()
  assert.equal(await page.locator('.cm-lintRange-error').textContent(), 'rat')
  assert.equal(await page.locator('.writing button.main:enabled').count(), 0, 'what is wrong cannot be applied')
  await picture('document-wrong')
  await page.getByRole('button', { name: 'line 5, column 5' }).click()
  await page.locator('.cm-content:focus').waitFor() // what is typed before goes nowhere
  for (let i = 0; i < 3; i++) await page.keyboard.press('Delete')
  await page.keyboard.insertText('rate')
  await page.locator('.would .added', { hasText: 'collectors.generate' }).waitFor()
  assert.equal(await page.locator('.would .selected').textContent(), os.hostname())
  await page.getByText('rate', { exact: true }).first().hover()
  await page.locator('.told-help .title:text-is("collectors.generate.rate")').waitFor()
  await apply('the first')
  await runs(1, 1)
  assert.match(page.url(), /\/documents\/extra$/)
  await picture('document')

  await write((await field().innerText()).replace('rate: 5', 'rate: 7'))
  await page.locator('.would .changed del:text-is("5")').waitFor()
  await apply('more')
  await runs(2, 1)
  await page.getByRole('link', { name: 'History', exact: true }).click()
  await page.locator('.compare .removed:has-text("rate: 5")').waitFor()
  await page.locator('.compare .added:has-text("rate: 7")').waitFor()
  await see('td:has-text("the first")')
  await picture('document-history')
  await page.getByRole('button', { name: 'Roll back to it' }).click()
  await page.locator('dialog .changed ins:text-is("5")').waitFor()
  await page.getByRole('button', { name: 'Roll back', exact: true }).click()
  await runs(3, 1)
  assert.match(await field().innerText(), /rate: 5/)

  await page.getByRole('link', { name: 'Agents', exact: true }).click()
  await page.locator('.placed .name').click()
  await page.locator('.sources tr', { hasText: 'extra' }).locator('.status.running').waitFor()
  await page.locator('.receipts tbody tr').first().getByText('reopened').waitFor()
  await page.getByText('On probation').waitFor()
  await see('.timeline .status:text-is("initializing → running")')
  await picture('intended')
})

test('what others change meanwhile is neither lost nor overwritten', async () => {
  await go('/documents')
  await page.getByRole('link', { name: 'extra' }).click()
  await field().waitFor()
  const mine = (await field().innerText()).replace('rate: 5', 'rate: 6')
  await write(mine)
  await page.locator('.would .changed').waitFor()
  const theirs = `document: extra\n${north}collectors: {generate: {rate: 9}}\npipelines: {extra: {from: [generate], to: [otlp/hub]}}\n`
  await page.evaluate((text) => fetch('/api/creel/v1/documents', { method: 'PUT', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ text }) }), theirs)
  await page.locator('.notice', { hasText: 'root has made version 4' }).waitFor()
  assert.match(await field().innerText(), /rate: 6/)
  await page.getByRole('button', { name: 'Show theirs' }).click()
  await page.locator('.notice .added:has-text("rate: 9")').waitFor()
  await picture('document-conflict')
  let asked = 0
  const stay = (d) => (asked++, d.dismiss())
  page.on('dialog', stay)
  await page.getByRole('link', { name: 'Fleet', exact: true }).click()
  await page.evaluate(() => history.back())
  await until('one is asked twice', () => asked === 2)
  page.off('dialog', stay)
  await until('one stays', () => /\/documents\/extra$/.test(page.url()))
  await page.getByRole('button', { name: 'Go on with mine' }).click()
  await page.locator('.would .changed del:text-is("9")').waitFor()
  await page.getByRole('button', { name: 'Discard changes' }).click()
  await until('theirs is there', async () => /rate: 9/.test(await field().innerText()))
  await runs(4, 1)
})

test('a document that its agent cannot run is refused, told with the agent’s error, and deleted', async () => {
  await go('/documents/-new')
  await write(`document: bad\n${north}pipelines: {bad: {from: [generate/nothing], to: [otlp/hub]}}\n`)
  await apply('')
  await page.locator('.failures .bad:has-text("there is no collector")').waitFor()
  await picture('document-refused')
  await page.locator('.failures .name').click()
  await page.locator('.wanted .bad:has-text("there is no collector")').waitFor()
  await page.locator('.receipts tbody tr').first().locator('.status.refused').waitFor()
  await page.locator('.sources').getByRole('link', { name: 'bad' }).click()
  await page.getByRole('button', { name: 'Delete …' }).click()
  await page.getByRole('button', { name: 'Delete', exact: true }).click()
  await see('tr[data-row]:has-text("extra")')
  assert.equal(await page.locator('tr[data-row]').count(), 1)
  await picture('documents')
  await go('/documents/bad')
  await see('text=a rollback brings it back')
  await see('.status:text-is("deleted")')
})

test('an agent is paused and resumed; a hub’s own cannot be stopped from here', async () => {
  await go('/documents/extra?view=agents')
  await page.locator('.placed .name').click()
  await page.getByRole('button', { name: 'Pause' }).click()
  await page.getByLabel('Why, for its history').fill('ticket 17')
  await page.keyboard.press('Enter')
  await page.locator('#state .stage.paused').waitFor()
  await page.locator('.holds', { hasText: 'ticket 17' }).waitFor()
  await page.locator('.last-order .running:text-is("done")').waitFor()
  await page.locator('.timeline li:has-text("running → paused")', { hasText: 'ticket 17' }).waitFor()
  await picture('paused')
  await page.keyboard.press('g')
  await page.keyboard.press('f')
  await page.locator('tr[data-row] .stage.paused').waitFor()
  await page.goBack()
  await page.getByRole('button', { name: 'Resume' }).click()
  await page.getByRole('button', { name: 'Resume' }).last().click()
  await page.locator('#state .stage.running').waitFor()
  await go('/fleet?label=creel.role%3Dhub')
  await page.locator('tr[data-row] .name').click()
  await see('#state button:enabled:text-is("Pause")')
  assert.equal(await page.locator('#state button:disabled').count(), 2)
})
