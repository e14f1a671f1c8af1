// Who may come in, who was refused, and what somebody sees who may not do everything: in a real browser on the built pages,
// with an API that answers what is set here. browser.test.mjs has stories with a real hub. It needs Chromium ($CHROMIUM or
// /usr/bin/chromium). With SCREENSHOTS=DIR each page is kept as a picture, wide and narrow.

import assert from 'node:assert/strict'
import path from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import { chromium } from 'playwright-core'
import { serve } from './served.mjs'
import { faultless, watch } from './watched.mjs'

const now = Date.now()
const time = (secondsAgo) => new Date(now - secondsAgo * 1000).toISOString()
const ids = ['0b6f0d5e-1c1a-4b7e-9a55-5f0a5f0a5f0a', '7d1c2b3a-90ab-4cde-8f01-23456789abcd', 'c0ffee00-1111-4222-8333-444455556666']
const root = { name: 'root', role: 'admin' }
const secret = 'creel_k3j9x2aa_0f8w7c6v5b4n3m2q1p0o9i8u7y_sha256t5r4e3w2q1'
let hub, browser, page, watched

faultless(() => watched)

const knocks = {
  knocks: [
    { agent: ids[1], name: 'edge-7', address: '192.0.2.7', reason: 'cloned', text: 'somebody else has renewed this identity', remedy: 'if this one is the right one, admit it; else give it an identity of its own: creel join', first: time(4000), last: time(3), count: 812 },
    { name: 'build-3', address: '2001:db8:17:0:9d2c:11ff:fe3a:77e0', reason: 'token_spent', text: 'the token k3j9x2aa was used as often as it may be', remedy: 'make another: creel token create --role agent', first: time(60), last: time(50), count: 2 },
    { agent: ids[0], name: 'edge-2', address: '192.0.2.9', reason: 'revoked', text: 'root has revoked it: stolen', remedy: 'creel admit ' + ids[0], first: time(9000), last: time(300), count: 30 },
  ],
  revoked: [{ agent: ids[0], name: 'edge-2', by: 'root', cause: 'stolen', time: time(9100) }],
}
const tokens = {
  tokens: [
    { id: 'aaaaaaaa', name: 'rack 7', role: 'agent', labels: { site: 'north' }, uses: 18, used: 2, by: 'root', created: time(600), ends: time(-3000) },
    { id: 'bbbbbbbb', name: 'shop', role: 'ingest', signals: ['logs', 'traces'], records: 5000, by: 'root', created: time(90_000) },
    { id: 'cccccccc', name: 'ann', role: 'operator', within: 'site == "north" && tier != "core"', by: 'root', created: time(90_000), ends: time(-8e6) },
    { id: 'dddddddd', name: 'bob', role: 'viewer', by: 'root', created: time(90_000) },
  ],
}
const fingerprints = ['t5r4e3w2q1', 'z9y8x7w6v5'].map((s) => s.repeat(5).slice(0, 43))
const authority = {
  phase: 'steady', roots: [{ fingerprint: fingerprints[0], begins: time(9e6), ends: time(-3e8), issues: true }], ends: time(-3e7), root_key: true, confirmed: 12, warnings: [],
  tls: { names: ['hub.example', '192.0.2.1', 'creel://hub/5f0a'], ends: time(-5e5), own: true },
}
const entries = Array.from({ length: 40 }, (_, i) => ({
  number: 240 - i, time: time(i * 50), who: i % 3 ? 'root' : 'ann', role: i % 3 ? 'admin' : 'operator', address: '192.0.2.3', hub: 'hub', hash: '0'.repeat(64),
  action: ['applyDocument', 'orderAgent', 'createToken', 'signIn', 'enrol'][i % 5], target: ['web', ids[0], 'aaaaaaaa', '', ids[1]][i % 5], outcome: i % 7 === 3 ? 'unauthorized' : 'done',
  detail: i % 5 === 0 ? 'changed, version ' + (9 - i / 5) : '',
}))
const agent = {
  id: ids[0], name: 'edge-2', type: 'creel', version: '0.6.0', labels: { 'host.name': 'edge-2', site: 'north' }, connection: 'connected', health: 'healthy', config: 'abcdef012345', in: 10, out: 10,
  totals: { in: 1, out: 1, dropped: 0, queued: 0, dead_lettered: 0, spooled: 0 }, queue_bytes: 0, queue_limit: 0, hub: 'hub', first_seen: time(9000), last_seen: time(0), started: time(9000), heartbeat_seconds: 5,
  effective: '{}', timeline: [], components: [], routes: [], ledger: { pipelines: [], spools: [] }, hops: [], intended: { life: { state: 'running', since: time(9000), holds: [] }, documents: [], configuration: {} },
}
const document = { name: 'web', version: 3, selector: 'tier == "web"', within: 'site == "north"', place: 'all', hash: 'abcdef012345', by: 'ann', time: time(500), agents: { selected: 1, running: 1, waiting: 0, failed: 0 } }
const schema = { properties: { document: { type: 'string', description: 'The name of the document.' }, selector: { type: 'string', description: 'A condition on labels.' }, exporters: { type: 'object', description: 'Where records go.' } } }
const attributes = { 'host.name': 'edge-2', 'http.route': '/cart' }
const spans = [0, 1, 2].map((i) => ({ span_id: 'b'.repeat(15) + i, parent_id: i ? 'b'.repeat(15) + '0' : undefined, name: 'GET /cart', service: 'shop' + i, kind: 'server', status: i === 2 ? 'error' : 'ok', start: time(10), duration_ms: 30 - 9 * i, attributes, resource: attributes }))
const spool = { bytes: 300 << 20, limit_bytes: 1 << 30, waiting: 1_234_567, oldest: time(200), replaying: false, in_rate: 1000, out_rate: 0, full: false, full_in: 725 }
const books = { accepted: 30, created: 0, filtered: 10, absorbed: 0, routed: 0, held: 5, delivered: 20, dropped: { queue_full: 40 }, dead_lettered: 3, spooled: 9, queued: 0, in_work: 0, sent: 5000, taken: 4988, repeats: 12, unexplained: 12 }

before(async () => {
  hub = await serve()
  hub.set('/hub', { id: 'hub', version: '0.6.0', started: time(9000), agents: { healthy: 1 }, listen: [], quick_look: { bytes: 0, series: 0 } })
  hub.set('/authority', authority)
  hub.set('/audit', { entries, next: 201 })
  hub.set('/agents/watch', { agents: [agent], total: 1, counts: { healthy: 1 } }, 'agents')
  hub.set(`/agents/${ids[0]}/watch`, agent, 'agent')
  hub.set('/documents', { documents: [document] })
  hub.set('/documents/web', { ...document, text: 'document: web\nselector: tier == "web"\n', placed: [] })
  hub.set('/documents/web/history', { versions: [{ ...document, text: 'document: web\n' }, { ...document, version: 2, text: 'document: web\n# as it was\n' }] })
  hub.set('/schema', schema)
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] })
  watched = await watch(await (await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'light' })).newPage(), hub.url)
  page = watched.page
  page.setDefaultTimeout(10_000)
})

beforeEach(() => {
  hub.set('/me', root)
  hub.set('/knocks', knocks)
  hub.set('/tokens', tokens)
  hub.asked.length = 0
})

after(async () => {
  await browser?.close()
  await hub?.close()
})

const go = (to) => page.goto(hub.url + to)
const button = (name, exact = true) => page.getByRole('button', { name, exact })
const changes = () => hub.asked.filter((a) => a.method !== 'GET').map(({ method, at, body }) => [`${method} ${at}`, body])
const gone = (selector) => page.locator(selector).first().waitFor({ state: 'detached' })

async function picture(name) {
  if (!process.env.SCREENSHOTS) return
  const shoot = (n) => page.screenshot({ path: path.join(process.env.SCREENSHOTS, n + '.png'), fullPage: true, animations: 'disabled' })
  await shoot('access-' + name)
  await page.setViewportSize({ width: 400, height: 800 })
  await shoot(`access-${name}-narrow`)
  await page.setViewportSize({ width: 1280, height: 900 })
}

test('who knocks is told with reason and remedy, and admitted where that helps', async () => {
  await go('/fleet')
  await page.locator('tr[data-row]').waitFor()
  await page.keyboard.press('g')
  await page.keyboard.press('a')
  await page.locator('h1:text("Access")').waitFor()
  const rows = page.locator('.knocks tbody tr')
  await rows.nth(2).waitFor()
  assert.match(await rows.nth(1).textContent(), /build-3.*2001:db8.*token used up.*used as often as it may be.*make another.*2/s)
  assert.deepEqual(await Promise.all([0, 1, 2].map((i) => rows.nth(i).getByRole('button').count())), [1, 0, 1], 'there is nothing to admit of who has no identity')
  await picture('knocking')
  hub.on('POST', `/agents/${ids[1]}/admit`, undefined, 204)
  await rows.nth(0).getByRole('button').click()
  await page.locator('dialog', { hasText: 'becomes its holder' }).waitFor()
  await picture('admit')
  await page.getByLabel('Why, for the audit log').fill('the new disk is the right one')
  hub.set('/knocks', { knocks: [], revoked: knocks.revoked })
  await page.keyboard.press('Enter')
  await gone('dialog')
  await page.locator('.joining', { hasText: 'Nobody was refused.' }).waitFor()
  hub.on('POST', `/agents/${ids[0]}/admit`, undefined, 204)
  await page.locator('.revocations').getByRole('button', { name: 'Admit …' }).click()
  hub.set('/knocks', { knocks: [], revoked: [] })
  await page.keyboard.press('Enter')
  await page.getByText('No agent is revoked.').waitFor()
  await picture('nobody')
  assert.deepEqual(changes(), [[`POST /agents/${ids[1]}/admit`, { cause: 'the new disk is the right one' }], [`POST /agents/${ids[0]}/admit`, { cause: '' }]])
})

test('a token is made, shown once, and nowhere afterwards; one is deleted', async () => {
  await go('/access?view=tokens')
  await page.locator('.tokens .group').nth(3).waitFor()
  await picture('tokens')
  await button('New token …').click()
  const below = await page.locator('dialog select').boundingBox()
  await picture('new-token')
  await page.getByLabel('Whose it is').fill('rack 8')
  await page.getByLabel('How many agents may enrol with it').fill('20')
  await page.getByLabel('Labels for agents').fill('site')
  await button('Make it').click()
  await page.locator('dialog [role=alert]', { hasText: 'site is no label' }).waitFor()
  await page.getByLabel('Labels for agents').fill('site=north, tier=edge')
  assert.deepEqual(await page.locator('dialog option').allTextContents(), ['10 minutes', '1 hour'])
  const join = `creel join https://hub.example:4380 --token ${secret}`
  hub.on('POST', '/tokens', { ...tokens.tokens[0], id: 'k3j9x2aa', name: 'rack 8', text: secret, join })
  await button('Make it').click()
  assert.equal(await page.getByLabel('Run this on the machine that is to join').textContent(), join)
  assert.equal(await page.getByLabel('Token', { exact: true }).textContent(), secret)
  await page.keyboard.press('Escape')
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write'])
  await button('Copy').first().click()
  await page.getByText('Copied').waitFor()
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), join)
  await picture('made-token')
  await button('Done').click()
  await gone('dialog')
  const kept = await page.evaluate(() => [document.documentElement.outerHTML, location.href, JSON.stringify({ ...localStorage, ...sessionStorage }), JSON.stringify(history.state)].join('\n'))
  assert.ok(!kept.includes(secret), 'the secret is nowhere any more')

  await button('New token …').click()
  for (const [role, label] of [['ingest', 'Records in any ten seconds, at most'], ['viewer', 'Sees only agents that meet'], ['agent', 'How many agents'], ['operator', 'Sees only agents that meet']]) {
    await page.getByLabel(role + ':').check()
    await page.getByLabel(label).waitFor()
    assert.deepEqual(await page.locator('dialog select').boundingBox(), below, `nothing moves for ${role}`)
  }
  await page.getByLabel('Whose it is').fill('ann')
  await page.getByLabel('Sees only agents that meet').fill('site ==')
  hub.on('POST', '/tokens', { code: 'bad_request', message: 'within: expected a value after ==' }, 400)
  await button('Make it').click()
  await page.locator('dialog [role=alert]', { hasText: 'expected a value' }).waitFor()
  await button('Cancel').click()
  hub.on('DELETE', '/tokens/cccccccc', undefined, 204)
  await page.locator('tr', { hasText: 'cccccccc' }).getByRole('button').click()
  await page.locator('dialog', { hasText: 'signed out within seconds' }).waitFor()
  await page.keyboard.press('Enter')
  await gone('dialog')
  assert.deepEqual(changes(), [
    ['POST /tokens', { name: 'rack 8', role: 'agent', seconds: 3600, uses: 20, labels: { site: 'north', tier: 'edge' } }],
    ['POST /tokens', { name: 'ann', role: 'operator', seconds: 90 * 86_400, within: 'site ==' }],
    ['DELETE /tokens/cccccccc', undefined],
  ])
})

test('the authority is told with what is to be done first, and changed step by step', async () => {
  await go('/access?view=authority')
  await page.getByText('12 of 12 connected').waitFor()
  await button('Rotate the root …').click()
  await page.locator('dialog', { hasText: 'this can be taken back' }).waitFor()
  hub.on('POST', '/authority', authority)
  const roots = [{ ...authority.roots[0], issues: false }, { ...authority.roots[0], fingerprint: fingerprints[1], issues: true }]
  hub.set('/authority', { ...authority, phase: 'issuing', roots, confirmed: 10, behind: ids.slice(0, 2), root_key: false, warnings: ['the new root is not signed by the old, whose key was not here'] })
  await page.keyboard.press('Enter')
  await gone('dialog')
  await page.locator('.notice', { hasText: 'not signed by the old' }).waitFor()
  await picture('authority')
  await button('Next: forget the old root …').click()
  await page.locator('dialog .bad', { hasText: '2 do not trust yet' }).waitFor()
  await picture('authority-next')
  await page.getByLabel('Leave them behind').check()
  await button('Forget it').click()
  await gone('dialog')
  assert.deepEqual(changes(), [['POST /authority', { step: 'rotate' }], ['POST /authority', { step: 'next', force: true }]])
  hub.set('/authority', authority)
})

test('the audit log is found, paged, and loud when it is not what was written', async () => {
  await go('/access?view=audit')
  await page.locator('.audit tbody tr').nth(39).waitFor()
  await picture('audit')
  await page.getByRole('link', { name: 'Older' }).click()
  assert.match(page.url(), /before=201/)
  await page.keyboard.press('/')
  hub.set('/audit', { entries: entries.slice(5, 7), broken: entries[6].number })
  await page.keyboard.type('edge')
  await page.locator('.broken[role=alert]', { hasText: 'Entry 234, or one before it' }).waitFor()
  await page.locator('tr.broken', { hasText: '234' }).waitFor()
  await picture('audit-broken')
  assert.match(page.url(), /search=edge/)
  assert.doesNotMatch(page.url(), /before/)
  assert.ok(hub.asked.some((a) => a.at === '/audit' && a.search === '?search=edge&limit=100'))
  hub.set('/audit', { entries, next: 201 })
})

test('an agent is revoked on its page, and what is wrong with its identity is told there', async () => {
  hub.set('/knocks', { knocks: [], revoked: [] })
  await go('/agents/' + ids[0])
  hub.on('POST', `/agents/${ids[0]}/revoke`, undefined, 204)
  await button('Revoke …').click()
  await page.getByLabel('Why, for the audit log').fill('stolen')
  hub.set('/knocks', knocks)
  await page.keyboard.press('Enter')
  await page.locator('.identity', { hasText: 'by root' }).getByRole('button', { name: 'Admit …' }).waitFor()
  assert.equal(await button('Revoke …').count(), 0)
  await picture('agent-revoked')
  assert.deepEqual(changes(), [[`POST /agents/${ids[0]}/revoke`, { cause: 'stolen' }]])
})

test('a viewer sees no buttons that change something', async () => {
  hub.set('/me', { name: 'bob', role: 'viewer' })
  await go('/documents')
  await page.locator('tr[data-row]', { hasText: 'site == "north"' }).waitFor()
  assert.equal(await page.getByRole('link', { name: 'New document' }).count(), 0)
  await page.getByRole('link', { name: 'web' }).click()
  await page.locator('.cm-content').click()
  await page.keyboard.type('t')
  assert.match(await page.locator('.cm-content').innerText(), /^document: web\n/, 'the text stays')
  await page.getByText('It needs the role operator').waitFor()
  const none = async () => assert.deepEqual(await page.locator('main button').allTextContents(), [])
  await none()
  await picture('viewer-document')
  await page.getByRole('link', { name: 'History', exact: true }).click()
  await page.locator('.rows.history').waitFor()
  await none()
  await go('/documents/-new')
  await page.getByText('This page is not for you.').waitFor()
  await go('/agents/' + ids[0])
  await page.locator('#state .stage').waitFor()
  await page.locator('.identity').waitFor()
  await none()
  await go('/access')
  await page.locator('.knocks').waitFor()
  await none()
  await page.getByRole('link', { name: 'Authority' }).click()
  await page.locator('.roots').waitFor()
  await none()
  for (const view of ['Tokens', 'Audit']) {
    await page.getByRole('link', { name: view }).click()
    await page.getByText('It needs the role admin, and bob has the role viewer.').waitFor()
  }
  assert.ok(!hub.asked.some((a) => a.at === '/tokens' || a.at === '/audit'), 'what would be refused is not asked for')
})

test('who sees some agents only is told so, and which pages are for others', async () => {
  hub.set('/me', { name: 'ann', role: 'operator', within: 'site == "north" && tier != "core"', ends: time(-3600) })
  await go('/agents/' + ids[0])
  await page.locator('.bar .within', { hasText: 'site == "north"' }).waitFor()
  await page.locator('#state .acts button').nth(3).waitFor()
  assert.equal(await page.getByRole('link', { name: 'Its logs' }).count(), 0)
  for (const name of ['Ledger', 'Metrics', 'Logs', 'Traces', 'Access']) {
    await page.locator('.bar nav').getByRole('link', { name }).click()
    await page.getByText('ann sees only those that meet').waitFor()
  }
  await button('ann ▾').click()
  await page.locator('#me', { hasText: 'Signed in until' }).waitFor()
  await picture('bounded')
  await page.keyboard.press('Escape')
  await page.locator('#me').waitFor({ state: 'hidden' })
  assert.deepEqual([...new Set(hub.asked.map((a) => a.at))].sort(), [`/agents/${ids[0]}/watch`, '/hub', '/me'])
})

test('who is not known any more signs in, and goes on where they were', async () => {
  await go('/documents/web')
  await page.locator('.cm-content').click()
  await page.keyboard.press('Control+End')
  await page.keyboard.type('# mine')
  const all = ['/documents/web', '/me', '/hub', '/schema', '/agents/watch']
  for (const at of all) hub.refuse(at, 401, 'unauthorized', 'the token has ended')
  await page.getByText('The hub does not know you any more').waitFor()
  await picture('sign-in')
  const field = page.getByLabel('Token')
  assert.deepEqual([await field.getAttribute('type'), await field.getAttribute('autocomplete')], ['password', 'off'])
  for (let i = 0; i < 3; i++) await page.keyboard.press('Escape')
  hub.on('POST', '/login', { code: 'unauthorized', message: 'the token is not known here' }, 401)
  await field.fill('wrong')
  await page.keyboard.press('Enter')
  await page.locator('dialog [role=alert]', { hasText: 'not known here' }).waitFor()
  hub.on('POST', '/login', { token: 'x', seconds: 600 })
  hub.set('/me', root)
  hub.set('/hub', { id: 'hub', version: '0.6.0', agents: {}, listen: [], quick_look: {} })
  hub.set('/schema', schema)
  hub.set('/documents/web', { ...document, text: 'document: web\nselector: tier == "web"\n', placed: [] })
  hub.set('/agents/watch', { agents: [agent], total: 1, counts: { healthy: 1 } }, 'agents')
  await page.keyboard.press('Enter')
  await gone('dialog')
  assert.match(await page.locator('.cm-content').innerText(), /# mine/, 'what was written is still there')
  page.once('dialog', (d) => d.accept())
  await page.locator('.bar nav').getByRole('link', { name: 'Fleet' }).click()
  await page.locator('tr[data-row]').waitFor()
  const before = hub.asked.filter((a) => a.at === '/agents/watch').length
  hub.refuse('/agents/watch', 401, 'unauthorized', 'the token was deleted')
  await page.getByText('The hub does not know you any more').waitFor() // within two seconds, for the stream is asked for again
  assert.ok(hub.asked.filter((a) => a.at === '/agents/watch').length > before)
  hub.set('/agents/watch', { agents: [{ ...agent, name: 'edge-9' }], total: 1, counts: { healthy: 1 } }, 'agents')
  await field.fill('right')
  await page.keyboard.press('Enter')
  await page.locator('tr[data-row]', { hasText: 'edge-9' }).waitFor()
})

// All pages with all that they draw, under a policy that forbids styles but those of files.
test('no page does what a strict policy forbids', async () => {
  hub.set('/ledger', { total: books, agents: [{ id: ids[0], name: 'edge-2', ...books }] })
  hub.set('/logs', { logs: [{ id: '1', time: time(5), severity: 'ERROR', service: 'shop', body: 'x', attributes, resource: attributes, trace_id: 'a'.repeat(32) }] })
  hub.set('/logs/histogram', { interval: 60, buckets: [{ start: time(120), counts: { ERROR: 3, INFO: 9 } }] })
  hub.set('/services', { services: ['shop'] })
  hub.set('/traces', { traces: [{ trace_id: 'a'.repeat(32), name: 'GET /cart', service: 'shop', services: { shop: 3 }, spans: 3, errors: 1, start: time(10), duration_ms: 30 }] })
  hub.set('/traces/' + 'a'.repeat(32), { trace_id: 'a'.repeat(32), spans })
  hub.set('/agents/' + ids[2] + '/watch', {
    ...agent, id: ids[2],
    components: [{ component: 'collectors.file/app', plugin: 'file', healthy: true, records: 7 }, { component: 'exporters.otlp/far', plugin: 'otlp', queued_bytes: 5, queue_limit_bytes: 16 << 20, healthy: false, error: 'down', breaker: 'open', spool }],
    routes: [{ pipeline: 'logs', from: ['file/app'], through: [], to: ['otlp/far'], in: 1000, from_rates: { 'file/app': 1000 }, to_rates: { 'otlp/far': 1000 } }],
  }, 'agent')
  const values = [0, 30, 60].map((s) => [Math.round(now / 1000) - 60 + s, String(s)])
  const series = { status: 'success', data: { resultType: 'matrix', result: ['user', 'system'].map((m) => ({ metric: { cpu_mode: m }, values })) } }
  hub.on('POST', '/prom/api/v1/query_range', series)
  hub.on('POST', '/prom/api/v1/query', { status: 'success', data: { resultType: 'vector', result: [] } })
  for (const at of ['/prom/api/v1/labels', '/prom/api/v1/label/__name__/values', '/prom/api/v1/label/host_name/values']) hub.set(at, { status: 'success', data: ['host_name'] })
  for (const [to, drawn] of [
    ['/fleet', 'tr[data-row]'], ['/agents/' + ids[2], '.graph .moving'], ['/ledger', 'tr.total'], ['/explore/metrics?query=up', '.legend-table canvas, .legend-table i'], ['/explore/metrics', '.tile canvas'],
    ['/explore/logs', '.bars rect.severity'], ['/explore/traces', '.duration i'], ['/explore/traces/' + 'a'.repeat(32), '.lane i'], ['/documents', '.shares i'], ['/documents/-new', '.cm-content'],
  ]) {
    await go(to)
    await page.locator(drawn).first().waitFor({ state: 'attached' })
    await page.locator('.bar .who').waitFor()
  }
  // The editor with all that it opens: help, problems, proposals, the search panel.
  hub.on('PUT', '/documents', { code: 'bad_request', message: 'wrong', problems: [{ line: 1, column: 1, message: 'is wrong' }] }, 400)
  await page.locator('.cm-content').click()
  await page.keyboard.press('Control+End')
  await page.keyboard.insertText('\n')
  await page.keyboard.press('Control+Space')
  await page.locator('.cm-tooltip-autocomplete li').first().waitFor()
  await page.keyboard.press('Escape')
  await page.locator('.cm-lintRange-error').waitFor()
  await page.locator('.cm-content').getByText('document', { exact: true }).first().hover()
  await page.locator('.cm-tooltip').first().waitFor()
  await page.keyboard.press('Control+f')
  await page.locator('.cm-search input').first().waitFor()
  const style = await page.locator('.cm-content').evaluate((c) => [getComputedStyle(c.closest('.cm-scroller')).display, getComputedStyle(c.closest('.cm-editor')).borderRadius, c.getRootNode() instanceof ShadowRoot])
  assert.deepEqual(style, ['flex', '8px', true], 'the styles of the editor, and those for it, are there')
  await picture('editor')
  // That a breach would be seen at all.
  await page.evaluate(() => document.head.append(Object.assign(document.createElement('style'), { textContent: 'p {}' })))
  await page.evaluate(() => new Promise(requestAnimationFrame))
  assert.equal(watched.faults.splice(0).length, 1, 'a style element is refused')
})
