// How an agent comes in, is thrown out and comes in again, as a person who runs a hub sees it: with a real hub that is reached
// over a network, in a network namespace of its own, so that nothing of it touches the machine's. It needs ../bin/creel,
// Chromium ($CHROMIUM or /usr/bin/chromium), unshare and ip. With SCREENSHOTS=DIR each page is kept as a picture.

import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { faultless, watch } from './watched.mjs'

const inside = 'CREEL_TEST_NAMESPACE'
const address = '198.18.0.1' // RFC 2544: for tests of networks

if (process.env[inside]) stories()
else {
  const may = spawnSync('unshare', ['-rn', 'ip', 'link', 'set', 'lo', 'up']).status === 0
  test('with a hub on a network', { skip: !may && 'this machine lets nobody make network namespaces' }, () => {
    const env = { ...process.env, [inside]: 'yes' }
    delete env.NODE_TEST_CONTEXT // it is a test of its own
    const run = spawnSync('unshare', ['-rn', process.execPath, '--test-reporter=spec', import.meta.filename], { env, encoding: 'utf8' })
    assert.equal(run.status, 0, run.stdout + run.stderr)
  })
}

function stories() {
  const creel = process.env.CREEL ?? path.resolve(import.meta.dirname, '../../bin/creel')
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'creel-join-'))
  const patience = 30_000
  const children = []
  let hub, token, browser, page, watched, line, edge

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

  const join = (name) => start(...line.split(' ').slice(1), '-c', path.join(dir, 'edge.yaml'), '--data', path.join(dir, name), '--name', name)

  // another is a page of somebody else.
  const another = async () => {
    const w = await watch(await (await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'light', ignoreHTTPSErrors: true })).newPage(), hub)
    w.page.setDefaultTimeout(patience)
    return w
  }
  const picture = async (name) => process.env.SCREENSHOTS && (await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `join-${name}.png`), fullPage: true }))
  const button = (name) => page.getByRole('button', { name, exact: true })
  const view = (name) => page.locator('.views').getByRole('link', { name }).click()

  before(async () => {
    for (const args of [['link', 'set', 'lo', 'up'], ['addr', 'add', address + '/32', 'dev', 'lo']]) execFileSync('ip', args)
    start('hub', '--data', path.join(dir, 'hub'), '--listen', address + ':0', '--opamp', 'none', '--heartbeat', '200ms')
    const file = path.join(dir, 'hub/hub.json')
    hub = (await until('the hub runs', () => fs.existsSync(file) && JSON.parse(fs.readFileSync(file, 'utf8')))).url
    token = fs.readFileSync(path.join(dir, 'hub/token'), 'utf8').trim()
    fs.writeFileSync(path.join(dir, 'edge.yaml'), 'collectors: {generate: {signal: logs, rate: 5}}\nexporters: {"null": {}}\npipelines: {logs: {from: [generate], to: ["null"]}}\n')
    browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] })
    watched = await another()
    page = watched.page
  })

  after(async () => {
    await browser?.close()
    for (const child of children) child.kill('SIGTERM')
    await Promise.all(children.map((c) => c.ended))
    fs.rmSync(dir, { recursive: true })
  })

  test('somebody signs in over TLS, and is where they wanted to be', async () => {
    assert.match(hub, /^https:/)
    await page.goto(hub + '/access?view=tokens')
    await page.getByLabel('Token').fill(token)
    await page.keyboard.press('Enter')
    await page.getByText('There is no token.').waitFor()
    assert.match(page.url(), /\/access\?view=tokens$/)
  })

  test('a host joins with the line of a token; who uses it again knocks', async () => {
    await button('New token …').click()
    await page.getByLabel('Whose it is').fill('rack 7')
    await page.getByLabel('Labels for agents').fill('site=north')
    await page.keyboard.press('Enter')
    line = await page.getByLabel('Run this on the machine that is to join').textContent()
    assert.ok(line.startsWith(`creel join ${hub} --token creel_`), line)
    await button('Done').click()
    await page.locator('.tokens', { hasText: 'uses left: 1, used: 0' }).waitFor()
    await picture('token')
    edge = join('edge-7')
    await page.keyboard.press('g')
    await page.keyboard.press('f')
    await page.locator('tr[data-row]', { has: page.locator('.label:text("site=north")') }).locator('.status.healthy').waitFor()
    join('edge-8')
    await page.keyboard.press('g')
    await page.keyboard.press('a')
    await page.locator('.knocks tr', { hasText: 'token used up' }).filter({ hasText: address }).waitFor()
    await picture('knocking')
  })

  test('an agent is revoked, knocks, is admitted, and is back; all of it is in the audit log', async () => {
    await page.goto(hub + '/fleet?label=site%3Dnorth')
    await page.locator('tr[data-row] .name').click()
    await button('Revoke …').click()
    await page.getByLabel('Why, for the audit log').fill('stolen')
    await page.keyboard.press('Enter')
    await page.locator('.identity', { hasText: 'by root' }).waitFor()
    await page.locator('.head .status', { hasNotText: 'healthy' }).waitFor()
    await picture('revoked')
    const id = page.url().split('/').at(-1)
    await page.goto(hub + '/access')
    await page.locator('.knocks tr', { hasText: id }).filter({ hasText: 'revoked' }).waitFor()
    await page.locator('.revocations tr', { hasText: id }).getByRole('button', { name: 'Admit …' }).click()
    await page.getByLabel('Why, for the audit log').fill('found again')
    await page.keyboard.press('Enter')
    await page.getByText('No agent is revoked.').waitFor()
    edge.kill('SIGTERM') // it would try again by itself, later
    await edge.ended
    edge = join('edge-7')
    await page.goto(hub + '/agents/' + id)
    await page.locator('.head .status.healthy').waitFor()
    assert.equal(await page.locator('.identity').count(), 0)
    await page.goto(hub + '/access?view=audit')
    for (const [action, of, detail] of [['admitAgent', id, 'found again'], ['revokeAgent', id, 'stolen'], ['enrol', id, ''], ['createToken', '', 'rack 7, agent'], ['signIn', '', '']])
      await page.locator('.audit tbody tr', { hasText: action }).filter({ hasText: of }).filter({ hasText: detail }).locator('.status.running').first().waitFor()
    await picture('audit')
    await page.keyboard.press('/')
    await page.keyboard.type('stolen')
    await until('one entry is left', async () => (await page.locator('.audit tbody tr').count()) === 1)
    await view('Authority')
    await page.getByText('1 of 1 connected').waitFor()
    await page.getByText('of the hub’s own authority').waitFor()
    await picture('authority')
  })

  test('a viewer sees no buttons that change something, and is out when the token is deleted', async () => {
    await page.goto(hub + '/access?view=tokens')
    await button('New token …').click()
    await page.getByLabel('viewer:').check()
    await page.getByLabel('Whose it is').fill('bob')
    await page.keyboard.press('Enter')
    const given = await page.getByLabel('Token', { exact: true }).textContent()
    await button('Done').click()
    const bob = await another()
    await bob.page.goto(hub + '/fleet')
    await bob.page.getByLabel('Token').fill(given)
    await bob.page.keyboard.press('Enter')
    await bob.page.locator('tr[data-row] .label:text("site=north")').waitFor()
    for (const [to, there] of [['/documents', '.empty'], ['/access', '.knocks'], ['/access?view=authority', '.roots'], ['/fleet?label=site%3Dnorth', 'tr[data-row] .name']]) {
      await bob.page.goto(hub + to)
      await bob.page.locator(there).first().waitFor()
      assert.deepEqual(await bob.page.locator('main button').allTextContents(), [], to)
    }
    await bob.page.locator('tr[data-row] .name').click()
    await bob.page.locator('#state .stage').waitFor()
    assert.deepEqual(await bob.page.locator('main button').allTextContents(), [])
    await page.locator('.tokens tr', { hasText: 'bob' }).getByRole('button').click()
    await page.keyboard.press('Enter')
    await bob.page.getByText('The hub does not know you any more').waitFor()
    assert.deepEqual(bob.faults, [])
    await bob.page.context().close()
  })
}
