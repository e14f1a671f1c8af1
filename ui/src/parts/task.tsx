// What agents have of documents that are to be on some of them only.

import { useState } from 'react'
import type { Task, TaskChange } from '../api/types'
import { type Answer, useWatch } from '../api/use'
import { ago, stamp } from '../format'
import { Link } from '../router'
import { text } from '../text'
import { documentPath, PlacedStatus } from './placed'
import { changed, groups } from './tasks'

const t = text.tasks

// useTasks are all tasks, as they change.
export function useTasks(): Answer<Task[]> {
  const [state, set] = useState<Answer<Task[]>>({ loading: true })
  const take = (c: TaskChange) => set((s) => ({ value: changed(s.value ?? [], c), loading: false }))
  useWatch<TaskChange>('/watch/tasks', {}, 'tasks', take, (failure) => set((s) => ({ ...s, failure, loading: s.loading && !failure })))
  return state
}

export function TaskSince({ of: x, now }: { of: Task; now: number }) {
  return x.since ? <span title={stamp(x.since)}>{ago(x.since, now)}</span> : null
}

// TasksOf are the tasks of an agent; nothing if it has none. Who has no document has none, and is not asked about.
export function TasksOf({ agent, some, now }: { agent: string; some: boolean; now: number }) {
  return some ? <Owned agent={agent} now={now} /> : null
}

function Owned({ agent, now }: { agent: string; now: number }) {
  const list = groups((useTasks().value ?? []).filter((x) => x.agent === agent)).flatMap((g) => g.tasks)
  if (list.length === 0) return null
  return (
    <section id="tasks">
      <h2>{t.ofAgent}</h2>
      <div className="scroll">
        <table className="rows" aria-label={t.ofAgent}>
          <thead>
            <tr>
              <th>{t.document}</th>
              <th className="number" title={t.epochHelp}>
                {t.epoch}
              </th>
              <th>{t.since}</th>
              <th>{t.status}</th>
            </tr>
          </thead>
          <tbody>
            {list.map((x) => (
              <tr key={`${x.document} ${x.epoch}`}>
                <td>
                  <Link to={documentPath(x.document)} className="name">
                    {x.document}
                  </Link>
                </td>
                <td className="number">{x.epoch}</td>
                <td className="nowrap">
                  <TaskSince of={x} now={now} />
                </td>
                <td>
                  <PlacedStatus status={x.status} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  )
}
