// A task as a person sees it who keeps the page open: its agent is killed, and another one has it. With a real hub and real agents.
// It needs ../bin/creel and Chromium ($CHROMIUM or /usr/bin/chromium). With SCREENSHOTS=DIR each page is kept as a picture.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { faultless, watch } from './watched.mjs'

const creel = process.env.CREEL ?? path.resolve(import.meta.dirname, '../../bin/creel')
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'creel-tasks-'))
const patience = 30_000
const children = []
let hub, token, browser, page, watched

faultless(() => watched)

function start(name, ...args) {
  const log = fs.openSync(path.join(dir, name + '.log'), 'w')
  const child = spawn(creel, args, { stdio: ['ignore', log, log] })
  child.ended = new Promise((done) => child.on('exit', done))
  children.push(child)
  return child
}

function file(name, text) {
  fs.writeFileSync(path.join(dir, name), text)
  return path.join(dir, name)
}

const agent = (name) => start(name, 'agent', '-c', file(name + '.yaml', `agent: {labels: {site: north, called: ${name}}}\n`), '--data', path.join(dir, name), '--hub', hub)

async function ask(at, method = 'GET', body) {
  const response = await fetch(hub + '/api/creel/v1' + at, { method, headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' }, body: body && JSON.stringify(body) })
  assert.ok(response.ok, `${method} ${at}: ${response.status}`)
  return response.json()
}

async function until(what, f) {
  for (const late = Date.now() + patience; ; await new Promise((done) => setTimeout(done, 50))) {
    const found = await f()
    if (found) return found
    assert.ok(Date.now() < late, what)
  }
}

const idOf = (name) => until(`agent ${name} is there`, async () => (await ask(`/agents?label=called%3D${name}`)).agents.find((a) => a.connection === 'connected')?.id)
const picture = async (name) => process.env.SCREENSHOTS && (await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `tasks-${name}.png`), fullPage: true, animations: 'disabled' }))

before(async () => {
  const config = file('hub.yaml', 'collectors: {generate: {signal: logs, rate: 1}}\nexporters: {quicklook: {}}\npipelines: {logs: {from: [generate], to: [quicklook]}}\n')
  start('hub', 'hub', '-c', config, '--data', path.join(dir, 'data'), '--listen', '127.0.0.1:0', '--opamp', 'none', '--heartbeat', '200ms')
  hub = await until('the hub runs', () => fs.existsSync(path.join(dir, 'data/hub.json')) && JSON.parse(fs.readFileSync(path.join(dir, 'data/hub.json'), 'utf8')).url)
  token = fs.readFileSync(path.join(dir, 'data/token'), 'utf8').trim()
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] })
  watched = await watch(await (await browser.newContext({ viewport: { width: 1280, height: 900 } })).newPage(), hub)
  page = watched.page
  page.setDefaultTimeout(patience)
})

after(async () => {
  await browser?.close()
  for (const child of children) child.kill('SIGKILL')
  await Promise.all(children.map((child) => child.ended))
  fs.rmSync(dir, { recursive: true, force: true })
})

test('a task whose agent dies is seen to move, and comes to the page of the agent that has it now', async () => {
  const both = { first: agent('first'), second: agent('second') }
  const ids = { first: await idOf('first'), second: await idOf('second') }
  await page.goto(hub + '/tasks')
  await page.getByLabel('Token').fill(token)
  await page.keyboard.press('Enter')
  await page.getByText('place: 1').first().waitFor() // there is none yet, and it says how there is one
  await page.evaluate(() => (window.loaded = 'once'))

  const text = 'document: watch\nselector: site == "north"\nplace: 1\ncollectors: {generate/w: {signal: logs, rate: 1}}\nexporters: {debug/w: {}}\npipelines: {w: {from: [generate/w], to: [debug/w]}}\n'
  await ask('/documents', 'PUT', { text })
  const row = page.locator('.tasks tbody tr')
  await row.locator('.status.running').waitFor()
  const owner = async () => (await row.locator('.owner a').getAttribute('href')).match(/agents\/([^#]+)/)[1]
  const was = await owner()
  const died = Object.keys(ids).find((name) => ids[name] === was)
  const heir = Object.keys(ids).find((name) => name !== died)

  // One who looks at the page of whoever is to have it sees it come; it has no document yet.
  const other = await watch(await page.context().newPage(), hub)
  await other.page.goto(`${hub}/agents/${ids[heir]}`)
  await other.page.locator('#components').waitFor()
  assert.equal(await other.page.locator('#tasks').count(), 0)

  const killed = Date.now()
  both[died].kill('SIGKILL')
  await row.locator(`.owner a[href*="${ids[heir]}"]`).waitFor()
  await page.locator('tr.moved').getByText('moved from').waitFor()
  await row.locator('.status.running').waitFor()
  console.log(`# it is seen to run elsewhere ${Date.now() - killed} ms after its agent was killed`)
  await picture('moved')
  await other.page.locator('#tasks tbody tr', { hasText: 'watch' }).locator('.status.running').waitFor()
  assert.deepEqual(other.faults, [])
  assert.equal(await page.evaluate(() => window.loaded), 'once', 'nobody has loaded the page again')
})
