// The hubs that share a control state, as the pages know them.

import { createContext, useContext } from 'react'
import type { Absent, ClusterHub, Hub } from '../api/types'
import { Link } from '../router'
import { text } from '../text'

const t = text.hubs

// HubContext is what the hub that is asked says of itself and of the others; undefined before it has.
export const HubContext = createContext<Hub | undefined>(undefined)

// useHubs are all hubs, none if there is one only.
export const useHubs = (): ClusterHub[] => useContext(HubContext)?.hubs ?? []

// hubName is what a hub is called, with the end of its id where others of its host are.
export function hubName(hubs: ClusterHub[], id: string): string {
  const name = hubs.find((h) => h.id === id)?.name
  if (!name) return id
  return hubs.some((h) => h.name === name && h.id !== id) ? `${name} …${id.slice(-4)}` : name
}

// HubLink is what a hub is called, and leads to all of them.
export function HubLink({ id }: { id: string }) {
  return (
    <Link to="/cluster" title={id}>
      {hubName(useHubs(), id)}
    </Link>
  )
}

// Lacking tells which hubs did not answer, so that what only they have is not there.
export function Lacking({ list }: { list: Absent[] | undefined }) {
  const hubs = useHubs()
  return <Missing list={(list ?? []).map((a) => t.absent(hubs.some((h) => h.id === a.hub) ? hubName(hubs, a.hub) : a.name || a.hub, a.error))} />
}

// Missing tells why something is not all of it.
export function Missing({ list }: { list: string[] }) {
  if (list.length === 0) return null
  return (
    <div className="missing" role="status">
      {list.map((why) => (
        <p key={why}>{why}</p>
      ))}
    </div>
  )
}

// A Departed hub was there while somebody looked.
export interface Departed {
  hub: ClusterHub
  at: number // when it was missed, milliseconds
}

export interface Roll {
  there: ClusterHub[]
  gone: Departed[]
}

const remembered = 60_000 // milliseconds that a hub is shown that has gone

// roll returns which hubs are there now, and which have gone lately.
export function roll(before: Roll, there: ClusterHub[], now: number): Roll {
  const absent = (h: ClusterHub) => !there.some((x) => x.id === h.id)
  const fresh = before.there.filter(absent).map((hub) => ({ hub, at: now }))
  return { there, gone: [...before.gone.filter((d) => absent(d.hub) && now - d.at < remembered), ...fresh] }
}
