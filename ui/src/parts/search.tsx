import { useEffect, useState } from 'react'
import { change, navigate, type Place } from '../router'

const pause = 250 // milliseconds without a key

// Search is a field whose words are in the address. They lead to the first page again.
export function Search({ place, label }: { place: Place; label: string }) {
  const value = place.params.get('search') ?? ''
  const [typed, setTyped] = useState(value)
  useEffect(() => setTyped(value), [value])
  useEffect(() => {
    if (typed === value) return
    const timer = setTimeout(() => navigate(change(place, { search: typed, before: undefined }), true), pause)
    return () => clearTimeout(timer)
  }, [typed]) // eslint-disable-line -- what is typed counts
  return <input type="search" data-search className="search" placeholder={label} aria-label={label} value={typed} onChange={(e) => setTyped(e.target.value)} />
}
