# Everything one does with creel's source. Go is all that is needed; the rest is fetched.

.DEFAULT_GOAL := help
GO ?= go

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: ## run the tests
	$(GO) test ./...

check: ## run what else must be green before a change lands
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@test -z "$$(gofmt -l .)" || { echo "not formatted; run gofmt -w on:"; gofmt -l .; exit 1; }
	$(GO) test -race -short ./...

.PHONY: help test check
