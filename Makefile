# Everything one does with creel's source. Go is all that is needed; the rest is fetched.

.DEFAULT_GOAL := help
GO ?= go
STATIC := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w'

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## make bin/creel and bin/creel-agent
	$(STATIC) -o bin/creel ./cmd/creel
	$(STATIC) -o bin/creel-agent ./cmd/creel-agent

run: build ## run an agent that shows this machine's metrics and new log lines
	@mkdir -p run
	@echo "This machine's metrics and the lines of run/*.log and /var/log go out over OTLP, come in again, and are printed."
	@echo "In another terminal: echo hello >> run/demo.log    and: bin/creel status --data run/data    (ctrl-C ends it)"
	@touch run/demo.log
	bin/creel agent -c examples/this-machine.yaml --data run/data

test: ## run the tests
	$(GO) test ./...

check: ## run what else must be green before a change lands
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@test -z "$$(gofmt -l .)" || { echo "not formatted; run gofmt -w on:"; gofmt -l .; exit 1; }
	GOOS=linux GOARCH=arm64 $(STATIC) -o bin/linux-arm64/creel-agent ./cmd/creel-agent
	GOOS=windows GOARCH=amd64 $(STATIC) -o bin/windows-amd64/creel-agent.exe ./cmd/creel-agent
	$(GO) test -race -short ./...

bench: ## measure the agent against what this machine can do at all
	$(GO) run ./bench

docs: ## write the reference pages anew
	$(GO) test ./cli ./api -run Reference -rewrite

fuzz: ## look for input that breaks a parser, a minute each
	$(GO) test ./config -fuzz FuzzParse -fuzztime 1m
	for f in FuzzParseLogs FuzzParseMetrics FuzzParseTraces FuzzParseJSON; do $(GO) test ./otlp -run '^$$' -fuzz "^$$f$$" -fuzztime 1m || exit 1; done

.PHONY: help build run test check bench docs fuzz
