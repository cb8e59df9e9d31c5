# Bare `make` explains itself. Each target sets up what it needs and says what is missing.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

BIN := $(CURDIR)/bin
TOOLS := $(BIN)/tools
BUF := tools/node/node_modules/.bin/buf
SERVICES := authserver tokenbroker gateway
MODULES := deploy e2e examples internal proto services/authserver services/gateway services/tokenbroker
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X chatelaine.dev/internal/process.version=$(VERSION)
PACKAGES := $(addsuffix /...,$(addprefix ./,$(MODULES)))

## Run it

.PHONY: up
up: build check-postgres ## Start the demo: Postgres, two identity providers, three MCP servers, the three services
	@$(BIN)/chatelaine-dev up $(if $(PORT_OFFSET),--port-offset $(PORT_OFFSET))

.PHONY: demo
demo: build check-postgres ## Start the same, walk one login and three tool calls through it, print each step, stop
	@$(BIN)/chatelaine-dev demo $(if $(PORT_OFFSET),--port-offset $(PORT_OFFSET))

.PHONY: clean-data
clean-data: build ## Forget what `make up` keeps between runs: database, keys, logins
	@$(BIN)/chatelaine-dev clean

## Build and check

.PHONY: build
build: check-go ## Build the services and the demo's programs into bin/
	@for s in $(SERVICES); do go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/$$s ./services/$$s/cmd/$$s; done
	@go build -trimpath -o $(BIN)/ ./examples/cmd/...

.PHONY: build-alone
build-alone: check-go ## Build each module without the workspace, as images do
	@for m in $(MODULES); do (cd $$m && GOWORK=off go build ./...); done

.PHONY: test
test: check-go check-cc check-postgres check-browser check-pages e2e-deps ## Run all tests, end-to-end tests included, with the race detector
	go test -race -shuffle=on -timeout 20m $$(go list $(PACKAGES) | grep -v /e2e/vault)
	@# Those kill and suspend brokers within leases of seconds, so nothing else runs beside them.
	go test -race -shuffle=on -timeout 20m ./e2e/vault
	@tools/deps check browser

.PHONY: test-fast
test-fast: check-go check-postgres ## Run the tests of the packages alone, without race detector and end-to-end tests
	go test $(filter-out ./e2e/...,$(PACKAGES))

.PHONY: fuzz
fuzz: check-go ## Run each fuzzer for FUZZTIME (10s)
	@FUZZTIME=$${FUZZTIME:-10s} tools/fuzz

.PHONY: soak
soak: check-go check-cc check-postgres ## Run each fuzzer for ten minutes and the race tests twenty times
	@FUZZTIME=10m tools/fuzz
	go test -race -count=20 -timeout 3h $(filter-out ./e2e/...,$(PACKAGES))

.PHONY: vault-test
vault-test: check-go check-postgres ## Kill and suspend brokers in fifty rounds of 3,000 calls at once that meet expired tokens (about 15 minutes)
	CHATELAINE_VAULT_ROUNDS=50 CHATELAINE_VAULT_CALLS=3000 go test -count=1 -timeout 90m -v -run 'TestOneRefresh' ./e2e/vault

.PHONY: bench
bench: build check-postgres ## Compare the gateway with a plain reverse proxy and a direct call; measure GetCredential
	@$(BIN)/chatelaine-dev bench

.PHONY: images
images: check-docker ## Build the container images, tagged with VERSION
	@CHATELAINE_VERSION=$(VERSION) CHATELAINE_REVISION=$$(git rev-parse HEAD) docker compose build

.PHONY: compose-test
compose-test: check-go check-docker check-browser e2e-deps ## Run the end-to-end tests against containers, one and two replicas of each service
	go test -tags compose -count=1 -timeout 60m -v ./e2e/compose

.PHONY: mixed-test
mixed-test: check-go check-postgres ## Upgrade from the newest release (or BASE=…) one service at a time and back, and log in with every mix
	@tools/mixed $(BASE)

.PHONY: lint
lint: $(TOOLS)/golangci-lint $(BUF) ## Check formatting, vet, lint, protocol definitions and module files
	@$(TOOLS)/golangci-lint run $(PACKAGES)
	@$(BUF) lint
	@$(BUF) format --diff --exit-code proto
	@tools/breaking $(BASE)

.PHONY: breaking
breaking: $(BUF) ## Compare the protocol definitions with the newest release or main (or BASE=…)
	@tools/breaking $(BASE)

.PHONY: generate
generate: $(BUF) $(TOOLS)/protoc-gen-go ## Write generated code again: protocol, OpenAPI, JSON Schema
	@$(BUF) generate
	@for m in $(MODULES); do (cd $$m && go generate ./...); done

.PHONY: check-generated
check-generated: generate tidy ## Fail when generating or tidying changes a committed file
	@tools/check-clean

.PHONY: tidy
tidy: ## Tidy every module, and bring all to the workspace's versions
	@go work sync
	@for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy); done

.PHONY: ci
ci: ## What .ci/run runs
	@.ci/run

## Kubernetes

.PHONY: k8s-keys
k8s-keys: build ## Make the keys and passwords that the Kubernetes demo puts into Secrets
	@$(BIN)/chatelaine-dev init --dir deploy/kubernetes/components/world/material

.PHONY: k8s-test
k8s-test: k8s-keys ## Apply both overlays to the cluster of KUBECONFIG, log in, replace and kill every kind of pod and Postgres under load (docs/kubernetes.md)
	go test -tags=k8s -count=1 -timeout=60m -v ./deploy/kubernetes/cluster

## Set-up

.PHONY: deps
deps: ## Install what is missing: PostgreSQL, Chromium, Node.js, a C compiler, openssl, curl (Debian and Ubuntu, as root or with sudo)
	@tools/deps install

.PHONY: check-go
check-go:
	@tools/deps check go

.PHONY: check-cc
check-cc:
	@tools/deps check cc

.PHONY: check-postgres
check-postgres:
	@tools/deps check postgres

.PHONY: check-docker
check-docker:
	@docker compose version >/dev/null && docker info >/dev/null || { echo 'this needs a Docker engine with Compose v2' >&2; exit 1; }

.PHONY: check-browser
check-browser:
	@tools/deps check browser

.PHONY: check-pages
check-pages:
	@tools/deps check pages

.PHONY: e2e-deps
e2e-deps:
	@tools/deps check node
	@cd e2e/clients && tools=node_modules/.package-lock.json; if [ ! -e $$tools ] || [ package-lock.json -nt $$tools ]; then \
	  npm ci --no-audit --no-fund --loglevel=error || { echo 'npm could not install the packages of the end-to-end tests (e2e/clients): see its message above; it needs the registry that npm is configured for' >&2; exit 1; }; fi

$(BUF): tools/node/package-lock.json
	@tools/deps check node
	@cd tools/node && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error || \
	  { echo 'npm could not install buf (tools/node): see its message above; it needs the registry that npm is configured for' >&2; exit 1; }
	@touch $@

$(TOOLS)/protoc-gen-go: tools/proto/go.sum
	@cd tools/proto && GOWORK=off GOBIN=$(TOOLS) go install tool
	@touch $@

$(TOOLS)/golangci-lint: tools/lint/go.sum
	@cd tools/lint && GOWORK=off GOBIN=$(TOOLS) go install tool
	@touch $@

.PHONY: help
help:
	@printf 'Chatelaine: one login, every key.\n'
	@awk 'BEGIN {FS = ":.*## "} /^## / {printf "\n%s\n", substr($$0, 4)} /^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
