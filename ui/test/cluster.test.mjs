// Two hubs as a person sees them: one joins the other, is left by its agents, and is killed. And states that are hard to bring
// about, with an API that answers what is set here. It needs ../bin/creel and Chromium ($CHROMIUM or /usr/bin/chromium). With
// SCREENSHOTS=DIR each page is kept as a picture, wide and narrow, light and dark.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { serve } from './served.mjs'
import { faultless, watch } from './watched.mjs'

const creel = process.env.CREEL ?? path.resolve(import.meta.dirname, '../../bin/creel')
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'creel-cluster-'))
const patience = 30_000
const children = []
const now = Date.now()
const time = (secondsAgo) => new Date(now - secondsAgo * 1000).toISOString()
let set, browser, page, watched

faultless(() => watched)

// hub starts one, without agents but its own, and returns what it says of itself.
async function hub(name, ...args) {
  const data = path.join(dir, name)
  const log = fs.openSync(data + '.log', 'w')
  const config = path.join(dir, 'hub.yaml')
  fs.writeFileSync(config, 'collectors: {generate: {signal: logs, rate: 5}}\nexporters: {quicklook: {}}\npipelines: {logs: {from: [generate], to: [quicklook]}}\n')
  const child = spawn(creel, ['hub', '-c', config, '--data', data, '--listen', '127.0.0.1:0', '--opamp', 'none', '--heartbeat', '200ms', '--etcd-listen', `127.0.0.1:${await port()}`, ...args], { stdio: ['ignore', log, log] })
  child.ended = new Promise((done) => child.on('exit', done))
  children.push(child)
  const file = path.join(data, 'hub.json')
  for (const late = Date.now() + patience; !fs.existsSync(file); await new Promise((done) => setTimeout(done, 50))) assert.ok(Date.now() < late, `hub ${name} does not run: ${fs.readFileSync(data + '.log', 'utf8')}`)
  return { ...JSON.parse(fs.readFileSync(file, 'utf8')), child, token: () => fs.readFileSync(path.join(data, 'token'), 'utf8').trim() }
}

// port returns one at which nothing listens.
async function port() {
  const server = net.createServer()
  await new Promise((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address()
  await new Promise((done) => server.close(done))
  return port
}

const row = (of) => page.locator('.hubs tbody tr', { hasText: of })
const button = (name) => page.getByRole('button', { name, exact: true })
const missing = (what) => page.locator('.missing', { hasText: what }).waitFor()

async function look(at) {
  await watched?.page.context().close()
  watched = await watch(await (await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'light' })).newPage(), at)
  page = watched.page
  page.setDefaultTimeout(patience)
}

async function picture(name) {
  if (!process.env.SCREENSHOTS) return
  const shoot = (n) => page.screenshot({ path: path.join(process.env.SCREENSHOTS, `cluster-${n}.png`), fullPage: true, animations: 'disabled' })
  await shoot(name)
  await page.setViewportSize({ width: 400, height: 800 })
  await shoot(name + '-narrow')
  await page.setViewportSize({ width: 1280, height: 900 })
  await page.emulateMedia({ colorScheme: 'dark' })
  await shoot(name + '-dark')
  await page.emulateMedia({ colorScheme: 'light' })
}

before(async () => {
  set = await serve()
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] })
})

after(async () => {
  await browser?.close()
  await set?.close()
  for (const child of children) child.kill('SIGKILL')
  await Promise.all(children.map((c) => c.ended))
  fs.rmSync(dir, { recursive: true })
})

test('a hub joins another, is drained and taken back; when it is killed, pages tell what is missing', async () => {
  const first = await hub('first')
  await look(first.url)
  await page.goto(first.url + '/cluster')
  await page.getByLabel('Token').fill(first.token())
  await page.keyboard.press('Enter')
  await page.getByText('There is one hub.').waitFor()
  await row(first.id).getByText('leads').waitFor()
  await picture('one')

  await page.getByRole('link', { name: 'Make a token' }).click()
  await button('New token …').click()
  await page.getByLabel('hub:').check()
  await page.getByLabel('Whose it is').fill('second')
  await page.keyboard.press('Enter')
  const line = await page.getByLabel('Run this on the machine that is to join').textContent()
  await picture('token')
  await button('Done').click()
  await page.locator('.tokens tr', { hasText: 'uses left: 1, used: 0' }).waitFor()
  const [, join, token] = /--join (\S+) --token (\S+)/.exec(line)
  await page.keyboard.press('g')
  await page.keyboard.press('c')
  await row(first.id).waitFor()
  const second = await hub('second', '--join', join, '--token', token)
  await row(second.id).locator('.status.healthy').waitFor()
  await page.getByText('none of 2').waitFor()
  await page.locator('.members tbody tr').nth(1).locator('.status.healthy').waitFor()
  await picture('two')

  await row(second.id).getByRole('button', { name: 'Drain …' }).click()
  await page.getByLabel('Why, for the audit log').fill('a new disk')
  await picture('drain')
  await page.keyboard.press('Enter')
  await row(second.id).getByText('draining').waitFor()
  assert.equal(await row(first.id).getByText('draining').count(), 0)
  await row(second.id).getByRole('button', { name: 'Take back …' }).click()
  await button('Take back').click()
  await row(second.id).locator('.status.healthy').waitFor()

  await page.keyboard.press('g')
  await page.keyboard.press('f')
  await page.locator('table.fleet tbody tr').nth(1).waitFor()
  await page.getByRole('columnheader', { name: 'Last seen, at' }).waitFor()
  for (const of of [first.id, second.id]) await page.locator(`table.fleet a[title="${of}"]`).waitFor()
  await picture('fleet')
  await page.locator(`table.fleet tr:has(a[title="${second.id}"]) .name`).click()
  await page.locator('.facts', { hasText: 'Connected to' }).locator(`a[title="${second.id}"]`).click()

  await row(second.id).locator('.status.healthy').waitFor()
  const killed = Date.now()
  second.child.kill('SIGKILL')
  await row(second.id).locator('.status.lost').waitFor()
  assert.ok(Date.now() - killed < 8000, 'within a few seconds')
  await row(second.id).getByText('connection refused').waitFor()
  await picture('killed')
  for (const to of ['/ledger', '/explore/logs', '/explore/metrics', '/explore/metrics?query=sum(creel_pipeline_accepted_total)', '/fleet']) {
    await page.goto(first.url + to)
    await missing(/^Hub .*connection refused/)
    assert.equal(await page.locator('.missing p').count(), 1, to)
    if (to === '/explore/metrics' || to === '/fleet') await picture('missing' + to.replaceAll('/', '-'))
  }
})

const ids = ['01a218a0-6f6e-727f-a8a2-b9136c2c5652', '01a218a0-e935-7d8c-bc38-3fde3f05795e', '01a218a1-2b44-7c11-9d0e-0d5e1c1a4b7e']
const hubs = ['hub-north-1', 'hub-north-2', 'hub-south-1'].map((name, i) => ({ id: ids[i], name, version: '0.9.0', started: time(90_000 * (3 - i)), url: `https://${name}.example:4380`, agents: [412, 388, 97][i], ...(i === 2 ? { draining: true } : {}) }))
const members = hubs.map((h, i) => ({ name: h.id, peer: `https://${h.name}.example:2380`, size: i === 2 ? 0 : 12_345_678, healthy: i !== 2, ...(i === 0 ? { self: true, leader: true } : {}) }))
const cluster = { hub: ids[0], leader: ids[1], since: time(4000), hubs, state: { healthy: true, leased: true, answered: time(0), took: 0.0012, embedded: true, members } }
const myself = (more) => ({ id: ids[0], version: '0.9.0', started: time(9000), agents: { healthy: 1 }, listen: [], quick_look: { bytes: 0, series: 0 }, hubs, ...more })

test('the cluster as it is told: who leads, who does not answer, who has gone, and what is wrong with its state', async () => {
  await look(set.url)
  set.set('/me', { name: 'root', role: 'admin' })
  set.set('/hub', myself({ absent: [{ hub: ids[1], name: 'hub-north-2', error: 'dial tcp: i/o timeout' }] }))
  set.set('/cluster/watch', cluster, 'cluster')
  await page.goto(set.url + '/cluster')
  await page.getByText('hub-north-2 leads:').waitFor()
  await row(ids[1]).getByText('does not answer').waitFor()
  await row(ids[2]).getByText('draining').waitFor()
  await page.locator('.members tr', { hasText: 'hub-south-1' }).getByText('does not answer').waitFor()
  await page.getByText('1 of 3').waitFor()
  await row(ids[1]).getByText('dial tcp: i/o timeout').waitFor()
  await picture('three')

  set.on('POST', `/hubs/${ids[2]}/drain`, { code: 'unavailable', message: 'the control state does not answer: nothing was changed' }, 503)
  await row(ids[2]).getByRole('button').click()
  await page.keyboard.press('Enter')
  await page.locator('dialog [role=alert]', { hasText: 'nothing was changed' }).waitFor()
  set.on('POST', `/hubs/${ids[2]}/drain`, hubs[2])
  await button('Take back').click()
  await page.locator('dialog').waitFor({ state: 'detached' })
  assert.deepEqual(set.asked.filter((a) => a.method === 'POST').at(-1).body, { drain: false })

  const wrong = { healthy: false, leased: false, error: 'get hubs/x: context deadline exceeded', took: 0, embedded: false, members: [{ name: 'etcd-1', peer: 'https://etcd-1:2380', leader: true, healthy: true, full: true, size: 512 << 20 }, { name: 'etcd-2', learner: true, healthy: true }] }
  set.set('/cluster/watch', { ...cluster, leader: undefined, since: undefined, hubs: hubs.slice(0, 2), state: wrong }, 'cluster')
  await page.locator('#state [role=alert]', { hasText: 'context deadline exceeded' }).waitFor()
  await page.getByText('lost: others do not see it').waitFor()
  await page.getByText('in an etcd outside').waitFor()
  await page.getByText('No hub leads at present').waitFor()
  await page.locator('.members tr', { hasText: 'etcd-1' }).getByText('full').waitFor()
  await page.locator('.members tr', { hasText: 'etcd-2' }).getByText('learner').waitFor()
  await row(ids[2]).getByText('gone').waitFor()
  await picture('wrong')

  set.set('/me', { name: 'bob', role: 'viewer' })
  await page.reload()
  await row(ids[0]).waitFor()
  assert.deepEqual(await page.locator('main button').allTextContents(), [])
  set.refuse('/cluster/watch', 503, 'unavailable', 'the control state does not answer')
  await page.locator('main [role=alert]', { hasText: 'the control state does not answer' }).waitFor()
  set.set('/me', { name: 'eve', role: 'admin', within: 'site == "north"' })
  await page.reload()
  await page.getByText('This page is not for you.').waitFor()
})

test('tasks: one that is parked comes first, the highest priority if that is wanted', async () => {
  const task = (document, status, priority, more) => ({ document, version: 3, place: 1, priority, status, ...more })
  const on = { agent: ids[2], name: 'edge-7', epoch: 41, since: time(90) }
  await look(set.url)
  set.set('/me', { name: 'root', role: 'admin' })
  set.set('/hub', myself())
  const leaving = task('poll', 'unplaced', 5, { error: 'the agent that had it has been asked to stop at 12:03:04Z and has not said that it has' })
  const list = (...tasks) => set.set('/watch/tasks', { all: true, documents: [], tasks }, 'tasks')
  list(task('watch', 'running', 9, on), leaving, task('scan', 'parked', 1, { error: 'it has failed on 3 agents: cannot bind' }))
  await page.goto(set.url + '/tasks')
  const names = async () => (await page.locator('.tasks .document').allTextContents()).join(' ')
  await page.locator('.tasks .status.parked').waitFor()
  assert.equal(await names(), 'scan poll watch')
  await picture('tasks')
  await page.getByRole('link', { name: 'By priority' }).click()
  assert.equal(await names(), 'watch poll scan')
  list(task('watch', 'running', 9, { ...on, agent: ids[1], name: 'edge-9', epoch: 42 }), leaving)
  await page.locator('tr.moved', { hasText: 'moved from edge-7' }).waitFor()
})
