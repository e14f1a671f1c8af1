// Who may do what, so that pages need not offer what the hub would refuse. The hub decides; a test holds this against what it
// says of its API.

import type { Me } from './types'

const roles = ['viewer', 'operator', 'admin']

interface Needs {
  role: string
  all?: boolean // not for those who see only some agents
}

export const operations = {
  listAgents: { role: 'viewer' },
  getAgent: { role: 'viewer' },
  orderAgent: { role: 'operator' },
  revokeAgent: { role: 'admin', all: true },
  admitAgent: { role: 'admin', all: true },
  listDocuments: { role: 'viewer' },
  applyDocument: { role: 'operator' },
  deleteDocument: { role: 'operator' },
  rollBackDocument: { role: 'operator' },
  listTasks: { role: 'viewer' },
  getLedger: { role: 'viewer', all: true },
  searchLogs: { role: 'viewer', all: true },
  searchTraces: { role: 'viewer', all: true },
  getCluster: { role: 'viewer', all: true },
  drainHub: { role: 'admin', all: true },
  listKnocks: { role: 'viewer', all: true },
  listTokens: { role: 'admin', all: true },
  createToken: { role: 'admin', all: true },
  deleteToken: { role: 'admin', all: true },
  getAuthority: { role: 'viewer', all: true },
  changeAuthority: { role: 'admin', all: true },
  listAudit: { role: 'admin', all: true },
} satisfies Record<string, Needs>

export type Operation = keyof typeof operations

// lack is what somebody lacks for an operation: a role, or to see all agents.
export type Lack = { role: string } | { within: string }

export function lack(me: Me, operation: Operation): Lack | undefined {
  const needs: Needs = operations[operation]
  if (roles.indexOf(me.role) < roles.indexOf(needs.role)) return { role: needs.role }
  if (needs.all && me.within) return { within: me.within }
  return undefined
}
