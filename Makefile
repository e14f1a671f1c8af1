# Everything one does with creel's source. Go is all that is needed; the rest is fetched. Only the web UI's own build and
# tests want Node.js and Chromium.

.DEFAULT_GOAL := help
GO ?= go
MODULE := github.com/creelhq/creel
# Packages that share nothing between goroutines, and those that only put others together: make race looks at them as well.
ALONE := api|bench|cli|cmd|config|hub/internal/(simulation|quicklook)|otlp|plugins/(diagnose|filter|null|redact|sample|transform)|report|test|ui
# What runs where nobody watches: without symbols, and without the page of traces that grpc would bring.
STATIC := CGO_ENABLED=0 $(GO) build -trimpath -tags grpcnotrace -ldflags '-s -w'

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## make bin/creel and bin/creel-agent
	$(STATIC) -o bin/creel ./cmd/creel
	$(STATIC) -o bin/creel-agent ./cmd/creel-agent

run: build ## show this machine in a browser: hub, agent, store and UI
	bin/creel up --data run/data

test: ## run the tests, those first that wait the longest
	$(GO) test -p 3 ./test ./pipeline ./...

test-ui: build ui/node_modules ## test the web UI: its parts, in a browser, and that dist is what its source makes
	cd ui && npm run -s test
	cd ui && npm run -s build
	@test -z "$$(git status --porcelain ui/dist)" || { echo "ui/dist is not what the source makes; commit:"; git status --short ui/dist; exit 1; }
	cd ui && npm run -s test:browser

ui: ui/node_modules ## build the web UI
	cd ui && npm run -s build

ui/node_modules: ui/package-lock.json
	cd ui && npm ci --no-audit --no-fund
	@touch $@

check: ## run what else must be green before a change lands; the race detector where goroutines meet
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@test -z "$$(gofmt -l .)" || { echo "not formatted; run gofmt -w on:"; gofmt -l .; exit 1; }
	GOOS=windows GOARCH=amd64 $(STATIC) -o bin/windows-amd64/creel-agent.exe ./cmd/creel-agent
	$(GO) test -race -short ./pipeline $$($(GO) list ./... | grep -vE '^$(MODULE)/($(ALONE))(/|$$)')

race: ## run the tests of all packages with the race detector
	$(GO) test -race -short ./...

dist: ## make the agent for other systems
	GOOS=linux GOARCH=arm64 $(STATIC) -o bin/linux-arm64/creel-agent ./cmd/creel-agent
	GOOS=windows GOARCH=amd64 $(STATIC) -o bin/windows-amd64/creel-agent.exe ./cmd/creel-agent

torture: ## kill, fill, flip and reload for as long as it takes to believe in it; half an hour and more
	$(GO) test ./spool ./pipeline ./hub/internal/quicklook -run 'Kill|Crash|Flip|Full|Damage|Model|Reload' -torture -timeout 2h
	$(GO) test ./hub/internal/simulation -torture -timeout 2h -v
	$(MAKE) race
	$(GO) test ./test -run 'Killed|Outage|Poison|Misbehaves|DiskQueue|DiskDamage|Churn|Oddities|Placed|Cluster|Etcd' -torture -timeout 2h -v

bench: ## measure the agent against what this machine can do at all
	$(GO) run ./bench

docs: ## write the reference pages anew
	$(GO) test ./cli ./api ./plugins/parse -run Reference -rewrite

fuzz: ## look for input that breaks a parser, a minute each
	@$(GO) test ./... -list '^Fuzz' | awk '/^Fuzz/ {f[n++] = $$1} /^ok/ {for (i = 0; i < n; i++) print $$2, f[i]; n = 0}' | \
		while read -r p f; do $(GO) test $$p -run '^$$' -fuzz "^$$f$$" -fuzztime 1m || exit 1; done

.PHONY: help build run test test-ui ui check race dist torture bench docs fuzz
