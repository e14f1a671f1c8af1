package full

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/api"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.Local)

// TestTokens: what is asked of the hub, and that a secret is printed once, alone.
func TestTokens(t *testing.T) {
	c := newCounter(t)
	var r api.AccessTokenCreated
	c.answer("POST /tokens", func([]byte) any { return r })
	r = api.AccessTokenCreated{AccessToken: api.AccessToken{ID: "aaaaaaaa", Role: api.Enrol, Ends: noon}, Text: theToken, Join: "creel join https://hub.example:4380 --token " + theToken}
	c.run(t, 0, `
creel_aaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbb
token aaaaaaaa, role agent, worth something until 2026-11-26 12:00:00. It is shown this one time
on the host that is to join, run:
  creel join https://hub.example:4380 --token creel_aaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbb
`, "token", "create", "--role", "agent", "--labels", "site=north,rack=b7", "--uses", "50", "--for", "30m")
	r = api.AccessTokenCreated{AccessToken: api.AccessToken{ID: "aaaaaaaa", Role: api.Ingest}, Text: theToken}
	c.run(t, 0, `
creel_aaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbb
token aaaaaaaa, role ingest, worth something until it is deleted. It is shown this one time
an application of OpenTelemetry sends it with: OTEL_EXPORTER_OTLP_HEADERS='authorization=Bearer%20TOKEN'
`, "token", "create", "--role", "ingest", "--name", "shop", "--signals", "logs,traces", "--limit", "100000", "-o", "name")
	r.Role = api.Operator
	c.run(t, 0, `
creel_aaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbb
token aaaaaaaa, role operator, worth something until it is deleted. It is shown this one time
whoever gets it signs in with: creel login URL, and the address of this machine in URL
`, "token", "create", "--role", "operator", "--name", "ann", "--within", `site == "north"`)
	c.run(t, 2, "creel: which role? Say --role agent, hub, ingest, viewer, operator or admin\n", "token", "create")
	c.run(t, 2, "creel: read --for: must be whole seconds, such as 30m\n", "token", "create", "--role", "agent", "--for", "1500ms")
	want := []string{
		`POST /tokens {"name":"agents","role":"agent","labels":{"rack":"b7","site":"north"},"uses":50,"seconds":1800}`,
		`POST /tokens {"name":"shop","role":"ingest","signals":["logs","traces"],"records":100000}`,
		`POST /tokens {"name":"ann","role":"operator","within":"site == \"north\""}`,
	}
	if got := c.asked(); !slices.Equal(got, want) {
		t.Errorf("asked %s", strings.Join(got, "\n"))
	}

	c.set("GET /tokens", api.AccessTokenList{Tokens: []api.AccessToken{
		{ID: "aaaaaaaa", Name: "agents", Role: api.Enrol, Labels: map[string]string{"site": "north"}, Uses: 49, Used: 1, By: "root", Created: noon, Ends: noon.Add(time.Hour)},
		{ID: "cccccccc", Name: "shop\x1b[31m", Role: api.Ingest, Signals: []string{"logs"}, Records: 10, By: "ann", Created: noon},
	}})
	c.run(t, 0, `
ID        ROLE    NAME       ENDS                 MADE BY  MADE                 BOUNDS
aaaaaaaa  agent   agents     2026-11-26 13:00:00  root     2026-11-26 12:00:00  49 uses left, 1 used; site=north
cccccccc  ingest  shop [31m  never                ann      2026-11-26 12:00:00  logs; 10 records in 10 s
`, "token", "ls")
	c.run(t, 0, "aaaaaaaa\ncccccccc\n", "token", "list", "-o", "name")
	c.set("DELETE /tokens/aaaaaaaa", nil)
	c.run(t, 0, "token aaaaaaaa is worth nothing any more\n", "token", "delete", "aaaaaaaa")
	c.run(t, 0, "token aaaaaaaa is worth nothing any more\n", "token", "rm", theToken)
	c.run(t, 5, "creel: there is no DELETE /tokens/none\n", "token", "delete", "none")
}

// TestKnocks: somebody is let in again who is not of the fleet any more, by the beginning of the id or by name.
func TestKnocks(t *testing.T) {
	c := newCounter(t)
	const first, second, third = "0193b7c5-0000-7d0e-8000-00000000000a", "0193b7c5-1111-7d0e-8000-00000000000b", "0193b7c5-2222-7d0e-8000-00000000000c"
	c.set("GET /agents/edge-1", api.AgentDetail{Agent: api.Agent{ID: first, Name: "edge-1"}})
	c.set("GET /knocks", api.KnockList{
		Knocks: []api.Knock{
			{Agent: second, Name: "edge-2", Address: "192.0.2.2", Reason: "cloned", Text: "somebody else has renewed this identity", Remedy: "creel admit lets this one in", Last: noon, Count: 7},
			{Address: "192.0.2.9", Reason: "token_unknown", Last: noon, Count: 1},
		},
		Revoked: []api.Revocation{{Agent: third, Name: "edge-3", By: "ann", Cause: "stolen", Time: noon}},
	})
	c.run(t, 0, `
LAST                 TIMES  NAME    AGENT                                 FROM       WHY                                      WHAT TO DO
2026-11-26 12:00:00  7      edge-2  0193b7c5-1111-7d0e-8000-00000000000b  192.0.2.2  somebody else has renewed this identity  creel admit lets this one in
2026-11-26 12:00:00  1                                                    192.0.2.9  token_unknown

REVOKED              BY   NAME    AGENT                                 CAUSE
2026-11-26 12:00:00  ann  edge-3  0193b7c5-2222-7d0e-8000-00000000000c  stolen
`, "get", "knocks")
	c.run(t, 0, second+"\n192.0.2.9\n", "get", "knocks", "-o", "name")
	for _, id := range []string{first, second, third} {
		c.set("POST /agents/"+id+"/revoke", nil)
		c.set("POST /agents/"+id+"/admit", nil)
	}
	c.run(t, 0, "edge-1 is let in no more\n", "revoke", "edge-1", "--cause", "ticket 17")
	c.run(t, 0, "edge-2 is let in again\n", "admit", "0193b7c5-1")
	c.run(t, 0, "edge-3 is let in again\n", "admit", "edge-3")
	c.run(t, 2, "creel: \"0193\" means several agents: "+second+", "+third+"; say more of the id\n", "admit", "0193")
	c.run(t, 5, "creel: there is no GET /agents/edge-9\n", "admit", "edge-9")
	want := []string{`POST /agents/` + first + `/revoke {"cause":"ticket 17"}`, `POST /agents/` + second + `/admit {}`, `POST /agents/` + third + `/admit {}`}
	if got := c.asked(); !slices.Equal(got, want) {
		t.Errorf("asked %s", strings.Join(got, "\n"))
	}
}

func entries(from, to int64) []api.AuditEntry {
	list := []api.AuditEntry{}
	for n := from; n >= to; n-- {
		list = append(list, api.AuditEntry{Number: n, Time: noon, Who: "ann", Role: api.Admin, Action: "createToken", Target: "aaaaaaaa", Outcome: "done", Hash: "hash"})
	}
	return list
}

// TestAudit: the log is read to its end, and what is missing or broken is found.
func TestAudit(t *testing.T) {
	c := newCounter(t)
	c.set("GET /audit?limit=3&search=ann", api.AuditList{Entries: entries(3, 2), Next: 2})
	c.set("GET /audit?before=2&limit=1&search=ann", api.AuditList{Entries: entries(1, 1)})
	c.run(t, 0, `
NUMBER  TIME                 WHO  ROLE   FROM  ACTION       TARGET    OUTCOME  DETAIL
3       2026-11-26 12:00:00  ann  admin        createToken  aaaaaaaa  done
2       2026-11-26 12:00:00  ann  admin        createToken  aaaaaaaa  done
1       2026-11-26 12:00:00  ann  admin        createToken  aaaaaaaa  done
`, "audit", "--search", "ann", "--limit", "3")
	verify := func(code int, want string, pages ...api.AuditList) {
		t.Helper()
		c.set("GET /audit?limit=1000", pages[0])
		if len(pages) > 1 {
			c.set("GET /audit?before=2&limit=1000", pages[1])
		}
		c.run(t, code, want, "audit", "--verify")
	}
	verify(0, "3 entries, without a gap, and all hashes are right. The newest is hash\n", api.AuditList{Entries: entries(3, 2), Next: 2}, api.AuditList{Entries: entries(1, 1)})
	verify(0, "the audit log is empty\n", api.AuditList{})
	verify(1, "creel: entry 1 of the audit log, or one before it, is not what was written; compare with a backup, or with what was copied elsewhere\n",
		api.AuditList{Entries: entries(3, 2), Next: 2}, api.AuditList{Entries: entries(1, 1), Broken: 1})
	verify(1, "creel: entry 3 of the audit log is missing: 2 comes instead\n", api.AuditList{Entries: append(entries(4, 4), entries(2, 1)...)})
	verify(1, "creel: the first 2 entries of the audit log are missing\n", api.AuditList{Entries: entries(4, 3)})
	c.run(t, 2, "creel: read --limit: must be at least 1\n", "audit", "--limit", "0")
}

func TestAuthority(t *testing.T) {
	c := newCounter(t)
	a := api.Authority{
		Phase: "announced", Ends: noon, RootKey: true, Confirmed: 1, Behind: []string{"0193b7c5"}, Warnings: []string{"the root's key lies at the hub"},
		Roots: []api.Root{{Fingerprint: "old", Begins: noon, Ends: noon, Issues: true}, {Fingerprint: "new", Begins: noon, Ends: noon}},
		TLS:   api.Certificate{Names: []string{"hub.example", "192.0.2.1"}, Ends: noon, Own: true},
	}
	c.set("GET /authority", a)
	table := `
phase         announced
ends          2026-11-26 12:00:00
root's key    at this hub
TLS           of this authority, ends 2026-11-26 12:00:00, for hub.example, 192.0.2.1
confirmed by  1 agent
not by        0193b7c5
warning       the root's key lies at the hub

ROOT  BEGINS               ENDS                 ISSUES
old   2026-11-26 12:00:00  2026-11-26 12:00:00  yes
new   2026-11-26 12:00:00  2026-11-26 12:00:00  no
`
	c.run(t, 0, table, "authority")
	c.run(t, 0, "announced\n", "authority", "-o", "name")
	c.answer("POST /authority", func(body []byte) any {
		if strings.Contains(string(body), "next") && !strings.Contains(string(body), "force") {
			return &api.Error{Code: "conflict", Message: "1 agent has not confirmed"}
		}
		return a
	})
	c.run(t, 0, table, "authority", "rotate")
	c.run(t, 1, "creel: 1 agent has not confirmed\n", "authority", "next")
	c.run(t, 0, table, "authority", "next", "--force")
	c.run(t, 2, "creel: unknown command \"forward\" for \"creel authority\"\n", "authority", "forward")
	want := []string{`POST /authority {"step":"rotate"}`, `POST /authority {"step":"next"}`, `POST /authority {"step":"next","force":true}`}
	if got := c.asked(); !slices.Equal(got, want) {
		t.Errorf("asked %s", strings.Join(got, "\n"))
	}
}
