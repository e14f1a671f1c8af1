// Whether the hub still knows who asks. That may end at any time: then nothing is asked until somebody has signed in again.

import { useSyncExternalStore } from 'react'

export interface Session {
  out: boolean // the hub has said that it does not know who asks
  round: number // grows whenever somebody has signed in: what is shown is asked for again
  doubts: number // grows whenever the hub has said that somebody may not do what the pages thought they may
}

let now: Session = { out: false, round: 0, doubts: 0 }
const changed = new EventTarget()

function set(next: Session): void {
  now = next
  changed.dispatchEvent(new Event('changed'))
}

export const session = {
  ended: () => now.out || set({ ...now, out: true }),
  begun: () => set({ ...now, out: false, round: now.round + 1 }),
  doubted: () => set({ ...now, doubts: now.doubts + 1 }),
}

function subscribe(f: () => void): () => void {
  changed.addEventListener('changed', f)
  return () => changed.removeEventListener('changed', f)
}

export function useSession(): Session {
  return useSyncExternalStore(subscribe, () => now)
}
