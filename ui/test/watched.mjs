// What no page may do, in any test.

import assert from 'node:assert/strict'
import { afterEach } from 'node:test'

// watch has the test fail in which a page fails itself, does what its policy forbids, or asks anybody but its own hub.
export async function watch(page, hub) {
  const faults = []
  page.on('pageerror', (e) => faults.push(`the page has failed: ${e.stack}`))
  page.on('request', (r) => r.url().startsWith(hub) || r.url().startsWith('data:') || faults.push(`the page asks ${r.url()}`))
  await page.exposeFunction('forbidden', (what) => faults.push(what))
  await page.addInitScript(() =>
    document.addEventListener('securitypolicyviolation', (e) => {
      // Chromium's own editing writes attributes of style into what one edits. They are refused, and the editor draws it anew.
      if (e.effectiveDirective === 'style-src-attr' && e.target.matches?.('.editor')) return
      window.forbidden(`${location.href}: ${e.effectiveDirective} forbids ${e.blockedURI} ${e.sourceFile}:${e.lineNumber}`)
    }),
  )
  return { page, faults }
}

// faultless checks after each test what watch has returned, which is not there before the first.
export function faultless(watched) {
  afterEach(() => assert.deepEqual(watched()?.faults.splice(0) ?? [], []))
}
