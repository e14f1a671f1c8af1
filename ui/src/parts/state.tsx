import type { ReactNode } from 'react'
import type { Failure } from '../api/client'
import type { Absent, Agent } from '../api/types'
import type { Answer } from '../api/use'
import { text } from '../text'
import { Lacking } from './hubs'

export type StatusName = keyof typeof text.status

// statusOf is an agent's one word: its connection, or its health while it is connected.
export function statusOf(a: Agent): StatusName {
  return (a.connection === 'connected' ? a.health : a.connection) as StatusName
}

export function Status({ name }: { name: StatusName }) {
  return <span className={'status ' + name}>{text.status[name] ?? name}</span>
}

// Stage is where an agent is in its life, when that is not running as it should.
export function Stage({ name }: { name: string | undefined }) {
  if (!name || name === 'running' || name === 'unknown') return null
  return <span className={'stage ' + name}>{text.agent.states[name] ?? name}</span>
}

// Trouble says why an answer is not there, or is old.
export function Trouble({ failure }: { failure?: Pick<Failure, 'code' | 'message'> | undefined }) {
  if (!failure) return null
  return (
    <p className="warn" role="alert">
      {failure.code === 'unreachable' ? text.state.offline : failure.message}
    </p>
  )
}

// Known shows what is known of an answer: its value, with what that lacks because a hub did not answer, else why there is none.
export function Known<T>({ answer, children }: { answer: Answer<T>; children: (value: T) => ReactNode }) {
  return (
    <>
      <Trouble failure={answer.failure} />
      <Lacking list={(answer.value as { absent?: Absent[] } | null | undefined)?.absent} />
      {answer.value !== undefined ? children(answer.value) : answer.loading && !answer.failure && <p className="empty">{text.state.loading}</p>}
    </>
  )
}

export function Partial({ why }: { why?: string | undefined }) {
  return why ? (
    <p className="warn" role="alert">
      {text.state.partial}
      {why}
    </p>
  ) : null
}
