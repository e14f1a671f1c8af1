// The types of the hub's API. Generated from package api by `make docs`; not to be changed by hand.

export interface Absent {
  /** Why there is no answer of it. */
  error: string
  /** Its id. */
  hub: string
  /** Of its host. */
  name?: string
}

export interface AccessToken {
  /** Who has made it. */
  by: string
  created: string
  /** When it is worth nothing any more; none is never. */
  ends?: string
  /** Its public part, which its text has as well. */
  id: string
  /** Of the role agent: what agents that enrol with it are labelled with, whatever they say of themselves. */
  labels?: Record<string, string>
  /** Whose it is, for people and the audit log. */
  name: string
  /** Of the role ingest: records that are taken in any ten seconds; 0 is no limit. */
  records?: number
  /** viewer, operator, admin, agent, ingest or hub. */
  role: string
  /** Of the role ingest: logs, metrics, traces. None is all of them. */
  signals?: string[]
  /** Of the roles agent and hub: how many have. */
  used?: number
  /** Of the roles agent and hub: how many may still join with it. */
  uses?: number
  /** Of a viewer, operator or admin: a condition on labels that bounds what is seen and changed. */
  within?: string
}

export interface AccessTokenCreated {
  /** Who has made it. */
  by: string
  created: string
  /** When it is worth nothing any more; none is never. */
  ends?: string
  /** Its public part, which its text has as well. */
  id: string
  /** Of the roles agent and hub: what to run on the host that is to join. */
  join?: string
  /** Of the role agent: what agents that enrol with it are labelled with, whatever they say of themselves. */
  labels?: Record<string, string>
  /** Whose it is, for people and the audit log. */
  name: string
  /** Of the role ingest: records that are taken in any ten seconds; 0 is no limit. */
  records?: number
  /** viewer, operator, admin, agent, ingest or hub. */
  role: string
  /** Of the role ingest: logs, metrics, traces. None is all of them. */
  signals?: string[]
  /** The secret itself: the hub keeps only its hash. */
  text: string
  /** Of the roles agent and hub: how many have. */
  used?: number
  /** Of the roles agent and hub: how many may still join with it. */
  uses?: number
  /** Of a viewer, operator or admin: a condition on labels that bounds what is seen and changed. */
  within?: string
}

export interface AccessTokenList {
  tokens: AccessToken[]
}

export interface AccessTokenRequest {
  labels?: Record<string, string>
  /** Whose it is: at most 100 characters. */
  name: string
  records?: number
  role: string
  /** How long it is worth something. Of the roles agent and hub an hour at most, and that if not given; of others for ever if not given. */
  seconds?: number
  signals?: string[]
  /** Of the role agent: 1 if not given, 10 000 at most. */
  uses?: number
  within?: string
}

export interface Agent {
  /** Why it is not connected or not healthy: the first cause. */
  cause?: string
  /** The configuration that it runs: the first 12 digits of the SHA-256 of its configuration. */
  config: string
  /** connected, lost or disconnected. */
  connection: string
  /** Its disk queues together; none if no exporter has one. */
  disk?: Disk
  first_seen: string
  /** healthy, degraded or unknown. */
  health: string
  /** The hub that it is or was connected to. */
  hub: string
  /** The agent's id, a UUID; it survives restarts. */
  id: string
  /** Records accepted per second. */
  in: number
  /** What this hub let in of it; none if it has never sent anything here. */
  intake?: Intake
  /** What agent.labels says, creel.role and attributes of the machine. */
  labels: Record<string, string>
  /** When the hub heard from it last, by the hub's clock. */
  last_seen: string
  /** The host's name, or what a foreign agent calls itself. */
  name: string
  /** Records delivered per second. */
  out: number
  /** Bytes in the queues of its exporters. */
  queue_bytes: number
  /** Bytes that these queues can hold. */
  queue_limit: number
  /** Where it is in its life: initializing, running, paused, stopping, stopped or unknown. */
  state: string
  /** Records since the agent was started. */
  totals: ReportTotals
  /** creel, or the service.name of a foreign OpAMP agent. */
  type: string
  /** Records that it calls delivered to this hub, and that the hub never took. */
  unexplained?: number
  version: string
}

export interface AgentBooks {
  absorbed: number
  accepted: number
  created: number
  /** Refused for good, and kept. */
  dead_lettered: number
  /** By exporters, at once or out of their disk queues. */
  delivered: number
  /** By reason. */
  dropped: Record<string, number>
  filtered: number
  /** By processors, now. */
  held: number
  id: string
  /** What the agents' own books left over when they were read: records that were just being worked on. */
  in_work: number
  name: string
  /** In memory, now. */
  queued: number
  repeats: number
  /** Sent on from one pipeline to another, where they are accepted once more. */
  routed: number
  /** Of delivered, what went to this hub: sums of the hops. */
  sent: number
  /** Waiting in disk queues, now. */
  spooled: number
  taken: number
  /** Records that agents call delivered to this hub, and that it never took. */
  unexplained: number
}

export interface AgentDetail {
  /** Hubs that did not answer in time: what only they know is lacking. */
  absent?: Absent[]
  /** Why it is not connected or not healthy: the first cause. */
  cause?: string
  components: ReportComponent[]
  /** The configuration that it runs: the first 12 digits of the SHA-256 of its configuration. */
  config: string
  /** connected, lost or disconnected. */
  connection: string
  /** Its disk queues together; none if no exporter has one. */
  disk?: Disk
  /** The configuration that runs, secrets redacted: JSON or YAML, as the agent reports it. */
  effective: string
  first_seen: string
  /** healthy, degraded or unknown. */
  health: string
  /** The interval that the hub has asked for. */
  heartbeat_seconds: number
  /** What of its records has arrived at this hub, for each exporter that has sent here in this run. */
  hops: Hop[]
  /** The hub that it is or was connected to. */
  hub: string
  /** The agent's id, a UUID; it survives restarts. */
  id: string
  /** Records accepted per second. */
  in: number
  /** What this hub let in of it; none if it has never sent anything here. */
  intake?: Intake
  /** What the hub wants of it, and what it says to that. */
  intended: Intended
  /** What agent.labels says, creel.role and attributes of the machine. */
  labels: Record<string, string>
  /** When the hub heard from it last, by the hub's clock. */
  last_seen: string
  ledger: ReportLedger
  /** The host's name, or what a foreign agent calls itself. */
  name: string
  /** Records delivered per second. */
  out: number
  /** Bytes in the queues of its exporters. */
  queue_bytes: number
  /** Bytes that these queues can hold. */
  queue_limit: number
  /** Its pipelines, with rates. */
  routes: Flow[]
  started?: string
  /** Where it is in its life: initializing, running, paused, stopping, stopped or unknown. */
  state: string
  /** What happened to it, newest first. */
  timeline: Event[]
  /** Records since the agent was started. */
  totals: ReportTotals
  /** creel, or the service.name of a foreign OpAMP agent. */
  type: string
  /** Records that it calls delivered to this hub, and that the hub never took. */
  unexplained?: number
  version: string
}

export interface AgentList {
  /** Hubs that did not answer in time: what only they know is lacking. */
  absent?: Absent[]
  /** Worst first: by status, then those with a full disk queue, with one that fills, the rest; then by name and id. */
  agents: Agent[]
  /** Agents of the whole fleet by status: lost, degraded, disconnected, unknown, healthy. */
  counts: Record<string, number>
  /** The cursor of the next page; none on the last. */
  next?: string
  /** Agents that match, on all pages. */
  total: number
}

export interface AuditEntry {
  /** The id of the operation, or what happened: applyDocument, orderAgent, createToken, enrol, signIn… */
  action: string
  /** Where the request came from, without the port. */
  address?: string
  detail?: string
  /** SHA-256 over this entry and the hash of the one before, hexadecimal: nobody can take one out unseen. */
  hash: string
  /** The hub that did it. */
  hub: string
  /** From 1, without gaps. */
  number: number
  /** done, or the code of the error that it was refused with. */
  outcome: string
  role?: string
  /** What was changed: a document's name, an agent's id. */
  target?: string
  time: string
  /** The name of the token that was shown. */
  who: string
}

export interface AuditList {
  /** The newest entry on this page whose hash is wrong: it, or one before it, is not what was written. */
  broken?: number
  entries: AuditEntry[]
  /** Before of the next page; none on the last. */
  next?: number
}

export interface Authority {
  /** The ids of those that do not yet; a hundred at most. */
  behind?: string[]
  /** Connected agents that trust what is trusted now. */
  confirmed: number
  /** When the authority's certificate in use ends: long before, it is to be renewed with the root's key. */
  ends: string
  /** steady; or of a change: announced, when the new root is trusted beside the old; issuing, when certificates come from the new one. */
  phase: string
  /** Whether the root's key is at this hub. It is needed to renew, and may be kept elsewhere meanwhile. */
  root_key: boolean
  /** Those that are trusted, the older one first. */
  roots: Root[]
  /** The certificate that the hub shows; none without TLS. */
  tls?: Certificate
  /** What somebody should do something about. */
  warnings?: string[]
}

export interface AuthorityChange {
  /** Go on though agents have not confirmed; those are left behind. */
  force?: boolean
  /** rotate: begin, and announce a new root. next: go on, from announced to issuing and from there to steady, without the old root. back: one phase back. renew: a new certificate of the same root. */
  step: string
}

export interface Because {
  /** For the audit log; at most 1 000 characters. */
  cause?: string
}

export interface Books {
  absorbed: number
  accepted: number
  created: number
  /** Refused for good, and kept. */
  dead_lettered: number
  /** By exporters, at once or out of their disk queues. */
  delivered: number
  /** By reason. */
  dropped: Record<string, number>
  filtered: number
  /** By processors, now. */
  held: number
  /** What the agents' own books left over when they were read: records that were just being worked on. */
  in_work: number
  /** In memory, now. */
  queued: number
  repeats: number
  /** Sent on from one pipeline to another, where they are accepted once more. */
  routed: number
  /** Of delivered, what went to this hub: sums of the hops. */
  sent: number
  /** Waiting in disk queues, now. */
  spooled: number
  taken: number
  /** Records that agents call delivered to this hub, and that it never took. */
  unexplained: number
}

export interface Bucket {
  /** By severity: TRACE, DEBUG, INFO, WARN, ERROR, FATAL, or unknown. */
  counts: Record<string, number>
  /** Its beginning. */
  time: string
}

export interface Certificate {
  ends: string
  names: string[]
  /** Whether it is of the hub's own authority; else of a file. */
  own: boolean
}

export interface Cluster {
  /** The id of the hub that answers. */
  hub: string
  /** By name. */
  hubs: ClusterHub[]
  /** The id of the hub that places documents; none if none is elected at present. */
  leader?: string
  /** Since when it leads. */
  since?: string
  state: ControlState
}

export interface ClusterHub {
  /** About how many are connected to it. */
  agents: number
  /** Its agents are asked to go to other hubs, until that is taken back. */
  draining?: boolean
  id: string
  /** Of its host. */
  name: string
  /** Where it takes OTLP over gRPC: host:port. */
  otlp_grpc?: string
  /** Where it takes OTLP over HTTP: host:port. */
  otlp_http?: string
  /** How its store is: only of getHub, if it answers and that is for who asks. */
  quick_look?: QuickLook
  started: string
  /** Where others reach it; none if they cannot. */
  url?: string
  version: string
}

export interface Configuration {
  /** Hubs that did not answer in time: what only they know is lacking. */
  absent?: Absent[]
  /** The agents that run it. */
  agents: string[]
  /** The first 12 digits of the SHA-256 of its text. */
  id: string
  /** Only when one configuration is asked for. Secrets are redacted. */
  text?: string
}

export interface ConfigurationList {
  /** Hubs that did not answer in time: what only they know is lacking. */
  absent?: Absent[]
  configurations: Configuration[]
}

export interface ControlState {
  /** When it has answered last. */
  answered?: string
  /** It lies in the hubs themselves, not in a cluster outside. */
  embedded: boolean
  /** Why it does not. */
  error?: string
  /** It answers, and the hub's lease is kept. */
  healthy: boolean
  /** The hub has a lease: others see it. */
  leased: boolean
  /** Of etcd. */
  members: StateMember[]
  /** How long that took, seconds. */
  took: number
}

export interface Difference {
  /** added, removed or changed. */
  kind: string
  new?: string
  old?: string
  /** Such as exporters.otlp/hub.endpoint. */
  path: string
}

export interface Directory {
  /** By kind, service and id. */
  entries: DirectoryEntry[]
  /** What to watch after, at any hub, to hear of all that changes from here. */
  id: string
  /** Of the control state. */
  revision: number
}

export interface DirectoryEntry {
  /** Of a service: host:port. */
  address?: string
  /** The id of the hub that the agent is connected to. */
  hub?: string
  /** Of the hub, or of the agent, which may offer several services. */
  id: string
  /** hub, agent or service. */
  kind: string
  /** Of the agent. */
  labels?: Record<string, string>
  /** Of a service: what else others are to know. */
  meta?: Record<string, string>
  /** Of the host, or what a foreign agent calls itself. */
  name?: string
  /** Of the control state, when this entry changed last. All hubs give the same. */
  revision: number
  /** Of a service, its name. */
  service?: string
  /** When the hub was started, the agent has connected, or the service was offered first by that connection. */
  since: string
  /** Of a service: words that others choose by. */
  tags?: string[]
  /** Of a hub; none if others cannot reach it. */
  url?: string
  /** Of a service: its share of what there is to do, against the others'. */
  weight?: number
}

export interface DirectoryEvent {
  /** Of all: what there is, by kind, service and id. */
  entries?: DirectoryEntry[]
  /** Of put: as it is now. Of delete: as it was last. */
  entry?: DirectoryEntry
  /** The same as the event's: all, put, delete, or at, which says that nothing has changed up to there. */
  event: string
  /** The same as the event's: what to watch after. None if another event of the same revision follows. */
  id?: string
  /** Of the control state. */
  revision: number
}

export interface Disk {
  /** On disk, of all of them. */
  bytes: number
  /** Seconds until all is delivered; none if something waits that does not become less. */
  empty_in?: number
  /** Whose disk queue is full, or full first; none if none fills. */
  exporter?: string
  /** One has no room. */
  full: boolean
  /** Seconds until the first has no room; none if one is full already, or none fills. */
  full_in?: number
  /** Bytes that they may hold. */
  limit_bytes: number
  /** What waits in one is being delivered. */
  replaying: boolean
  /** Records that are to be delivered later. */
  waiting: number
}

export interface Document {
  /** How many agents run it. */
  agents: DocumentAgents
  /** Who has changed it last. */
  by: string
  /** Only in a history: this version is a deletion. */
  deleted?: boolean
  /** The first 12 digits of the SHA-256 of its text. */
  hash: string
  /** As the key document in its text says: letters, digits, '-', '_' and '.'. */
  name: string
  /** What was said of the change, such as: rolled back to version 3. */
  note?: string
  /** all: every agent that is selected runs it. A number: so many of them do. */
  place: string
  /** A condition on an agent's labels; none selects all agents but hubs' own. */
  selector?: string
  /** Not in a list. */
  text?: string
  /** When it was changed last. */
  time: string
  /** From 1; every change makes the next, a rollback as well. */
  version: number
  /** What an agent must meet beside the selector, because who wrote the document sees no others; none if they see all. */
  within?: string
}

export interface DocumentAgents {
  /** They have refused it or gone back. */
  failed: number
  /** They run this version. */
  running: number
  selected: number
  /** They are not connected, or have not said yet. */
  waiting: number
}

export interface DocumentApplied {
  differences: Difference[]
  document: Document
  /** created, changed or unchanged. */
  outcome: string
  /** Names of the agents that get it, at most 100. */
  selected: string[]
  warnings?: string[]
}

export interface DocumentChange {
  /** Only tell what would happen. */
  dry_run?: boolean
  note?: string
  /** YAML or JSON, at most 1 MiB. It says the document's name, and whom it is for. */
  text: string
  /** The version that is changed, 0 for none; the change is refused when it is another. Left out, whichever it is. */
  version?: number
}

export interface DocumentDetail {
  /** How many agents run it. */
  agents: DocumentAgents
  /** Who has changed it last. */
  by: string
  /** Only in a history: this version is a deletion. */
  deleted?: boolean
  /** The first 12 digits of the SHA-256 of its text. */
  hash: string
  /** As the key document in its text says: letters, digits, '-', '_' and '.'. */
  name: string
  /** What was said of the change, such as: rolled back to version 3. */
  note?: string
  /** all: every agent that is selected runs it. A number: so many of them do. */
  place: string
  /** The agents that it selects. */
  placed: Placed[]
  /** A condition on an agent's labels; none selects all agents but hubs' own. */
  selector?: string
  /** Not in a list. */
  text?: string
  /** When it was changed last. */
  time: string
  /** From 1; every change makes the next, a rollback as well. */
  version: number
  /** What an agent must meet beside the selector, because who wrote the document sees no others; none if they see all. */
  within?: string
}

export interface DocumentHistory {
  versions: Document[]
}

export interface DocumentList {
  documents: Document[]
}

export interface ErrorBody {
  /** A word for programs: bad_request, unauthorized, forbidden, not_found, too_much, timeout, conflict, unavailable or internal. */
  code: string
  /** What is wrong, why, and what to do. */
  message: string
  /** Of a text that was refused. */
  problems?: Problem[]
}

export interface Event {
  cause?: string
  /** connected, disconnected, lost, degraded, healthy, started, configured, refused, rolled_back, paused, resumed, ordered or cloned. */
  kind: string
  time: string
}

export interface Flow {
  from: string[]
  /** Sent by each collector, to all its pipelines. */
  from_rates: Record<string, number>
  /** Accepted by the pipeline. */
  in: number
  outputs?: string[]
  pipeline: string
  through: string[]
  to: string[]
  /** Delivered by each exporter for this pipeline. */
  to_rates: Record<string, number>
}

export interface Histogram {
  /** Hubs that did not answer in time: what only they know is lacking. */
  absent?: Absent[]
  /** From oldest to newest, empty ones included. */
  buckets: Bucket[]
  /** Seconds per bucket. */
  interval: number
  partial?: string
  total: number
}

export interface Hop {
  /** The exporter's id, such as otlp/hub. */
  exporter: string
  /** Records that came once more, for their answer was lost; they are not in taken. */
  repeats: number
  /** Records that the agent calls delivered. */
  sent: number
  /** The hub has not known this run of the agent from its beginning: for a minute, sent is not counted. */
  settling?: boolean
  /** When sent and taken began to be counted. */
  since: string
  /** Records that the hub took, each batch once. */
  taken: number
  /** Records that the agent calls delivered, and the hub has not taken: sent - taken if that is above 0. */
  unexplained: number
}

export interface Hub {
  /** Hubs that did not answer in time: what only they know is lacking. */
  absent?: Absent[]
  /** The fleet by status. */
  agents: Record<string, number>
  /** All hubs of the control state, this one first; none if it is alone. */
  hubs?: ClusterHub[]
  id: string
  listen: ReportEndpoint[]
  quick_look: QuickLook
  started: string
  /** What is wrong with the control state: that it is full, so that nothing can be changed. None if nothing is. */
  state?: string
  version: string
}

export interface HubDrain {
  /** Why, for the audit log. */
  cause?: string
  drain: boolean
}

export interface Intake {
  /** Of the requests, as OTLP, uncompressed. */
  bytes: number
  records: number
  requests: number
  /** In them; each time they come they count again. */
  throttled_records: number
  /** They were over the limit for one agent, and the agent was told when to come back. */
  throttled_requests: number
}

export interface Intended {
  /** What it says of its configuration: receipts, probation, what has failed. */
  configuration: ReportConfiguration
  /** Why they cannot be merged: then none of them is offered. */
  conflict?: string
  /** The documents that select it. */
  documents: Placed[]
  life: ReportLife
  /** The last one. */
  order?: Order
}

export interface Knock {
  /** Where it came from, without the port. */
  address: string
  /** The id that it gave; none if it gave none. */
  agent?: string
  count: number
  first: string
  last: string
  /** The host's name, as it says. */
  name?: string
  /** A word for programs, such as token_spent, revoked, cloned or unknown_authority. */
  reason: string
  /** What to do about it. */
  remedy: string
  /** What is wrong and why. */
  text: string
}

export interface KnockList {
  /** Hubs that did not answer in time: what only they know is lacking. */
  absent?: Absent[]
  knocks: Knock[]
  /** Agents that may not come in any more, newest first. */
  revoked: Revocation[]
}

export interface Ledger {
  /** Hubs that did not answer in time: what only they know is lacking. */
  absent?: Absent[]
  /** Those with unexplained, dropped and dead-lettered records first, then by name and id. */
  agents: AgentBooks[]
  /** Agents that are not listed. */
  left_out?: number
  /** Of all agents, listed or not. */
  total: Books
}

export interface Log {
  /** An object. */
  attributes: unknown
  /** A string as a rule; any JSON. */
  body: unknown
  event?: string
  /** Unique, and a cursor. */
  id: string
  /** An object. */
  resource: unknown
  scope?: string
  service?: string
  /** TRACE to FATAL with a step, such as INFO or WARN2. */
  severity?: string
  severity_number?: number
  span_id?: string
  /** When it happened; when it was observed if that is unknown. */
  time: string
  trace_id?: string
}

export interface LogResult {
  /** Hubs that did not answer in time: what only they know is lacking. */
  absent?: Absent[]
  logs: Log[]
  /** Cursor of what follows, if more matches. */
  next?: string
  /** Why the answer may lack records: a damaged file, the time ran out. */
  partial?: string
}

export interface LoginRequest {
  token: string
}

export interface LoginResponse {
  /** What to trust at this hub from now on, PEM: its own authority, which may be about to change; none if its certificate was brought. */
  authorities?: string
  /** How long it is worth something. */
  seconds: number
  token: string
}

export interface Me {
  /** When the token that was shown ends. */
  ends?: string
  name: string
  /** viewer, operator or admin. */
  role: string
  /** A condition on labels: only agents that meet it are seen and changed, and what is not of one agent is not seen at all. */
  within?: string
}

export interface Order {
  by: string
  cause?: string
  do: string
  /** The agent has said so. */
  done: boolean
  id: string
  time: string
}

export interface OrderRequest {
  /** Why; it stands in the agent's history. */
  cause?: string
  /** pause (collect nothing), resume, drain (pause, and deliver what there is), restart or stop. */
  do: string
}

export interface Placed {
  /** Its id. */
  agent: string
  error?: string
  /** Its name. */
  name: string
  /** running, waiting, refused or rolled_back. */
  status: string
  /** That the agent speaks of. */
  version?: string
}

export interface Problem {
  /** From 1. */
  column?: number
  hint?: string
  /** From 1. */
  line?: number
  message: string
  path?: string
}

export interface QuickLook {
  /** On disk. */
  bytes: number
  /** Files that were set aside because they could not be read. */
  damaged?: string[]
  /** Records that were not stored, by reason. */
  dropped?: Record<string, number>
  /** Of logs and spans. */
  oldest?: string
  /** Metric series in memory. */
  series: number
  /** Why nothing is being stored. */
  stopped?: string
}

export interface ReportChange {
  close: string[]
  keep: string[]
  open: string[]
  reopen: string[]
}

export interface ReportComponent {
  breaker?: string
  component: string
  error?: string
  healthy: boolean
  plugin: string
  queue_limit_bytes?: number
  queued_bytes?: number
  records?: number
  since?: string
  spool?: ReportSpool
}

export interface ReportConfiguration {
  documents?: ReportDocument[]
  error?: string
  failed?: ReportFailed[]
  good?: string
  hash: string
  probation_until?: string
  receipts?: ReportReceipt[]
  since?: string
  wanted?: string
}

export interface ReportDocument {
  cost?: number
  ended?: string
  epoch?: number
  error?: string
  hash: string
  name: string
  source: string
  status: string
  version?: string
}

export interface ReportEndpoint {
  address: string
  component: string
  network: string
  protocol?: string
}

export interface ReportExporter {
  dead_lettered: number
  delivered: number
  dropped?: Record<string, number>
  exporter: string
  in: number
  queued: number
  spooled: number
  unexplained: number
}

export interface ReportFailed {
  hash: string
  reason: string
  time: string
}

export interface ReportHold {
  by: string
  cause: string
  since: string
}

export interface ReportLedger {
  pipelines: ReportPipeline[]
  spools?: ReportSpoolAccount[]
}

export interface ReportLife {
  history?: ReportTransition[]
  holds?: ReportHold[]
  since: string
  state: string
}

export interface ReportPipeline {
  absorbed: number
  accepted: number
  created: number
  dropped?: Record<string, number>
  exporters: ReportExporter[]
  filtered: number
  held: number
  passed: number
  pipeline: string
  routed: number
  unexplained: number
}

export interface ReportReceipt {
  change?: ReportChange
  error?: string
  hash: string
  in_hand: number
  leaked?: string[]
  outcome: string
  source: string
  still: number
  time: string
  took: number
  trace?: string
}

export interface ReportSpool {
  bytes: number
  empty_in?: number
  error?: string
  full: boolean
  full_in?: number
  in_rate: number
  limit_bytes: number
  oldest?: string
  out_rate: number
  replaying: boolean
  waiting: number
}

export interface ReportSpoolAccount {
  dead_lettered: number
  delivered: number
  dropped?: Record<string, number>
  exporter: string
  in: number
  recovered: number
  unexplained: number
  waiting: number
}

export interface ReportTotals {
  dead_lettered: number
  dropped: number
  in: number
  out: number
  queued: number
  spooled: number
}

export interface ReportTransition {
  cause?: string
  event: string
  from: string
  time: string
  to: string
}

export interface Revocation {
  agent: string
  by: string
  cause?: string
  name?: string
  time: string
}

export interface Rollback {
  /** The version; 0 is the one before the newest. */
  to: number
}

export interface Root {
  begins: string
  ends: string
  /** As tokens have it. */
  fingerprint: string
  /** Whether certificates come from it now. */
  issues: boolean
}

export interface Service {
  name: string
  /** Names of spans, at most 200. */
  operations: string[]
}

export interface ServiceList {
  /** Hubs that did not answer in time: what only they know is lacking. */
  absent?: Absent[]
  services: Service[]
}

export interface Span {
  /** An object. */
  attributes: unknown
  duration_ms: number
  events?: SpanEvent[]
  /** internal, server, client, producer, consumer or unspecified. */
  kind: string
  links?: SpanLink[]
  /** Of the status. */
  message?: string
  name: string
  parent_id?: string
  /** An object. */
  resource: unknown
  scope?: string
  service: string
  span_id: string
  start: string
  /** unset, ok or error. */
  status: string
}

export interface SpanEvent {
  attributes: unknown
  name: string
  time: string
}

export interface SpanLink {
  attributes: unknown
  span_id: string
  trace_id: string
}

export interface StateMember {
  /** Its database is as large as it may be: nothing can be written until there is room. */
  full?: boolean
  /** It answers; of the one within the hub that answers: it knows who leads. */
  healthy: boolean
  /** It leads etcd, which need not be where the hub is that leads. */
  leader?: boolean
  /** It is new and has no vote yet. */
  learner?: boolean
  name: string
  /** Where the others reach it. */
  peer?: string
  /** It is the one within the hub that answers. */
  self?: boolean
  /** Of its database, bytes; none if it is not known. Within another hub about, as that has said last. */
  size?: number
}

export interface Task {
  /** The id of its owner; none if it has none. Of one that is done, who has done it. */
  agent?: string
  /** The document's name. */
  document: string
  /** Grows each time that a task of the document is placed on an agent. */
  epoch?: number
  /** Why it does not run, or why it is placed nowhere. */
  error?: string
  /** The share of a slot that it takes at its owner, as measured over minutes: it stays until it has doubled or halved. None if it is not known yet, or does not work in rounds. */
  measured?: number
  /** The agent's name. */
  name?: string
  /** On how many agents the document is to be: it has so many tasks. */
  place: number
  /** From 0 to 9: higher ones are placed first. */
  priority: number
  /** When it was placed there, or done. */
  since?: string
  /** running, waiting, refused, rolled_back, unplaced, or parked: it has failed on several agents, and waits for another version of the document or to be retried. Of a document that is to be done once also done, failed and cancelled. */
  status: string
  /** Of the document. */
  version: number
}

export interface TaskChange {
  /** These are all tasks: forget what was known. */
  all: boolean
  /** Those whose tasks have changed: forget what was known of these. One of which there is no task here has none any more. */
  documents: string[]
  /** All of these documents', as they are now. */
  tasks: Task[]
}

export interface TaskDetail {
  /** What each of its tasks takes of an agent's capacity: 1 unless the document says otherwise. How even agents are is reckoned from what is measured where it does not. */
  cost: number
  /** The document's name. */
  document: string
  /** No two agents ever work on the same task. */
  exclusive: boolean
  /** Where this version has failed. */
  failed: TaskFailure[]
  /** The last of what has become of it, newest first. */
  history: TaskEvent[]
  /** A task is done when a round of each of its collectors is. */
  once: boolean
  /** It has failed on several agents, and waits for another version or to be retried. */
  parked: boolean
  /** On how many agents it is to be. */
  place: number
  /** From 0 to 9: higher ones are placed first. */
  priority: number
  /** Which agents may have it. */
  selector?: string
  /** The label over whose values these are spread. */
  spread?: string
  tasks: Task[]
  /** Of the document. */
  version: number
  /** Why it is on fewer agents than it is to be. */
  waits?: string
}

export interface TaskEvent {
  epoch?: number
  /** The id of the agent that had it. */
  from?: string
  /** Which of the tasks, from 1; none: all. */
  place?: number
  time: string
  /** The id of the agent that has it since. */
  to?: string
  /** placed, taken, leaving, let_go, failed, parked, done, cancelled, retried or run. */
  what: string
  why?: string
}

export interface TaskFailure {
  /** Its id. */
  agent?: string
  error?: string
  /** Its name. */
  name?: string
  version: number
}

export interface TaskList {
  tasks: Task[]
}

export interface Trace {
  /** Hubs that did not answer in time: what only they know is lacking. */
  absent?: Absent[]
  partial?: string
  spans: Span[]
  trace_id: string
}

export interface TraceList {
  /** Hubs that did not answer in time: what only they know is lacking. */
  absent?: Absent[]
  partial?: string
  traces: TraceSummary[]
}

export interface TraceSummary {
  /** From the first start to the last end. */
  duration_ms: number
  errors: number
  /** Likewise. */
  name: string
  /** No root is here. */
  rootless?: boolean
  /** Of the root, or of the earliest span when no root is here. */
  service: string
  /** Spans by service. */
  services: Record<string, number>
  spans: number
  start: string
  trace_id: string
}
