# Everything a person does with this project; `make help` lists it.
SHELL := /bin/bash
GO ?= go
BIN := bin/external-server
BENCH := bin/bench
EXAMPLE := build/modules/libexample-module.so
ETCD := build/etcd
AXE := build/axe/node_modules/axe-core/axe.min.js
# Every folder with a go.mod whose code is ours.
MODULES := . sdk modules/example-go test
VERSION ?= $(shell scripts/version)

.PHONY: help race-tests repeat build server packages image release site chart nats etcd axe modules demo quick test lint generate cover bench fuzz clean deps sim sim-handover sim-cluster bench-check bench-table bench-plot mutants evidence faults faults-table soak vuln secure boundary
.DEFAULT_GOAL := build

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort

build: server modules ## build the server and the example module

server: ## build the server only
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION) -X main.commit=$$(scripts/version commit) -X main.date=$$(scripts/version date)" -o $(BIN) ./cmd/external-server

# Not a part of what is installed.
.PHONY: $(BENCH)
$(BENCH):
	$(GO) build -trimpath -o $@ ./cmd/bench

modules: $(EXAMPLE) ## build the example module

$(EXAMPLE): modules/example/example_module.c modules/include/fleet_protocol_module.h
	$(MAKE) -C modules/example OUT=$(abspath $@)

demo: build ## run a broker, the server and three simulated cars
	$(BIN) demo --module $(EXAMPLE)

SITE ?= build/site
site: ## render the documents into build/site, static files with a search
	$(GO) -C tools/site run . -root $(CURDIR) -out $(abspath $(SITE))

chart: ## check the Helm chart
	$(GO) -C tools/helm test -count=1 ./...

deps: ## install what the tests need and the machine lacks (Debian, as root)
	@scripts/install-test-deps

# Left out: what needs a browser, the whole server as a process of its own, or servers
# of other programs, and what takes seconds. Tests skip these themselves with -short.
quick: ## run the tests that need nothing but Go and gcc, without the race detector
	$(GO) -C sdk test ./...
	$(GO) test -short -p $(TOGETHER) -parallel $(TOGETHER) ./...
	$(GO) -C test test -short ./sim

# Most tests wait for processes and limits of time, so twice as many run as there are
# processors. The race detector would keep each process of a module a second longer. It makes
# a simulated history many times slower, so most histories are played without it.
TOGETHER := $(shell echo $$((2 * $$(nproc))))
test repeat race-tests: export EXTERNAL_SERVER := $(abspath $(BIN))
test repeat race-tests: export ETCD_SERVER := $(abspath $(ETCD))
test repeat race-tests: export GORACE := atexit_sleep_ms=0
test: deps build lint $(ETCD) axe ## run all tests with the race detector
	@$(MAKE) --no-print-directory race-tests
	$(GO) -C test test ./sim
	$(MAKE) chart
	$(GO) -C tools/site test -count=1 ./...

race-tests:
	@for m in $(MODULES); do echo "== $$m"; REQUIRE_TOOLS=1 CGO_ENABLED=1 $(GO) -C $$m test -race -timeout 20m -p $(TOGETHER) -parallel $(TOGETHER) ./... || exit 1; done

# A test that fails once in twenty runs tells of a fault of the product or of the test.
RUNS ?= 20
repeat: deps build $(ETCD) axe ## run all tests with the race detector RUNS times: which fail how often
	@scripts/repeat $(RUNS)

SEEDS ?= 20000
SEED ?= 1
sim: ## simulate SEEDS histories of the core, from SEED on
	$(GO) -C test test -count=1 -v -timeout 0 -run '^TestHistories$$' ./sim -seeds $(SEEDS) -seed $(SEED)

sim-handover: ## simulate SEEDS histories of several servers that hand a car over, from SEED on
	$(GO) -C test test -count=1 -v -timeout 0 -run '^TestClusterHistories$$' ./sim -cluster-seeds $(SEEDS) -seed $(SEED)

sim-cluster: ## simulate SEEDS histories of the cluster's planner, from SEED on
	$(GO) test -count=1 -v -timeout 0 -run '^TestHistories$$' ./internal/cluster -seeds $(SEEDS) -seed $(SEED)

mutants: ## check that the simulation catches every deliberate bug in the core
	$(GO) -C test test -count=1 -v -timeout 0 -run '^TestMutants$$' ./sim -mutants -1
	$(GO) test -count=1 -v -timeout 0 -run '^TestMutants$$' ./internal/cluster -mutants -1

FAULTS ?= .
faults: deps $(ETCD) ## break things around the real server: FAULTS=expression selects, 50 min for all
	REQUIRE_TOOLS=1 CGO_ENABLED=1 $(GO) -C test test -race -count=1 -v -timeout 0 -run '^TestFaults$$' ./faults -faults '$(FAULTS)'

faults-table: deps $(ETCD) ## the same, and write their rows into the table of docs/reliability.md
	REQUIRE_TOOLS=1 CGO_ENABLED=1 $(GO) -C test test -race -count=1 -v -timeout 0 -run '^TestFaults$$' ./faults -faults '$(FAULTS)' -update

HOURS ?= 0.5
soak: deps ## mixed load with faults for HOURS: nothing grows, nothing is lost
	REQUIRE_TOOLS=1 CGO_ENABLED=1 $(GO) -C test test -race -count=1 -v -timeout 0 -run '^TestSoak$$' ./faults -soak $(HOURS)h

# The database of known vulnerabilities is fetched as the Go module that it is made
# from; VULNDB=latest asks for the newest. Checked is what releases are built with.
VULNDB ?= v0.0.0-20261105234957-e22db6528018
vuln: ## look for known vulnerabilities in what is used
	@export GOTOOLCHAIN=$$(sed -n 's/^toolchain //p' go.mod); \
	db=$$($(GO) mod download -json golang.org/x/vulndb@$(VULNDB)) || { echo "The database could not be fetched: $$db" >&2; exit 1; }; \
	for m in $(MODULES); do echo "== $$m"; $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 -C $$m -db "file://$$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' <<<"$$db")/data/osv" ./... || exit 1; done

# What is left out, and why: docs/security.md.
secure: ## look for insecure code
	$(GO) run github.com/securego/gosec/v2/cmd/gosec@v2.30.0 -quiet -exclude-generated -exclude-dir=internal/tools -exclude-dir=internal/support \
		-exclude=G104,G115,G125,G204,G301,G302,G304,G306,G404,G703,G705 ./cmd/... ./internal/... ./sdk/...

evidence: ## write the table of rules and evidence into docs/reliability.md
	$(GO) run ./internal/tools/evidence

# With the flag of the server target: what is compiled here is what the tests of image
# and packages link.
lint: export GOFLAGS := -trimpath $(GOFLAGS)
lint: ## gofmt, go vet, staticcheck, build without cgo
	@out=$$(gofmt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$')); [ -z "$$out" ] || { echo "gofmt -w these files:"; echo "$$out"; exit 1; }
	@staticcheck=$$($(GO) tool -n staticcheck) && for m in $(MODULES); do echo "== $$m" && \
		$(GO) -C $$m vet ./... && (cd $$m && "$$staticcheck" ./...) && CGO_ENABLED=0 $(GO) -C $$m build -o /dev/null ./... || exit 1; done
	$(GO) vet -tags manual ./cmd/external-server

generate: ## regenerate the protobuf code (needs protoc)
	$(GO) build -o build/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
	cd internal/protocol && protoc --plugin=../../build/protoc-gen-go --go_out=. --go_opt=paths=source_relative -I . internalproto/InternalProtocol.proto externalproto/ExternalProtocol.proto
	protoc --plugin=build/protoc-gen-go --go_out=sdk/module/moduleproto --go_opt=paths=source_relative -I modules/include fleet_module.proto
	protoc --python_out=modules/example-python -I modules/include fleet_module.proto

cover: modules ## write coverage.html
	$(GO) test -timeout 30m -coverpkg=./... -coverprofile=coverage.out ./...
	$(GO) tool cover -html=coverage.out -o coverage.html
	@$(GO) tool cover -func=coverage.out | tail -n 1

bench: ## run the Go benchmarks
	for m in $(MODULES); do $(GO) -C $$m test -timeout 0 -run '^$$' -bench . -benchmem ./... || exit 1; done

boundary: ## measure a call of a module process, beside go-plugin
	$(GO) -C test test -timeout 0 -run '^$$' -bench . ./boundary

FUZZTIME ?= 10s
FUZZ ?= .
fuzz: ## fuzz every parser and entry point for FUZZTIME each: FUZZ=expression selects
	@scripts/fuzz '$(FUZZTIME)' '$(FUZZ)'

PACKAGES ?= build/packages
packages: ## build a deb and an rpm in build/packages
	scripts/release --packages $(PACKAGES)

# The Debian that the tests of packages have fetched, if they have run.
image: ## build the container image without a container engine and try it (as root, with buildah)
	scripts/build-image $(wildcard build/test/debian-bookworm.tar)

RELEASE ?= build/release
ARCHES ?= amd64 arm64
release: ## build archives, packages, SBOM and checksums in build/release, the same bytes each time
	rm -rf $(RELEASE)
	scripts/release $(RELEASE) $(ARCHES)

# A program of its own, for tests and the demo: the server links the client only.
etcd: $(ETCD) ## build the etcd that the tests of clusters start

$(ETCD): tools/etcd/go.mod tools/etcd/go.sum
	$(GO) build -C tools/etcd -o ../../$@ go.etcd.io/etcd/server/v3

axe: $(AXE) ## fetch the accessibility checks of the dashboard's tests, with npm

# The lock file names version and checksum. Without npm, or without a registry, the test
# that needs it is skipped.
$(AXE): tools/axe/package.json tools/axe/package-lock.json
	@mkdir -p build/axe && cp tools/axe/package.json tools/axe/package-lock.json build/axe/
	@npm ci --silent --ignore-scripts --no-audit --no-fund --prefix build/axe && touch $@ || echo "axe-core could not be fetched with npm; the test of accessibility with it is skipped" >&2

nats: ## check kept sessions and access rules at a broker of MQTT 3.1.1 only: NATS
	$(GO) build -C tools/nats -o ../../build/nats-server github.com/nats-io/nats-server/v2
	NATS_SERVER=$(CURDIR)/build/nats-server $(GO) test -tags nats -run 'NATS$$' ./internal/link/mqtt
	NATS_SERVER=$(CURDIR)/build/nats-server $(GO) -C test test -tags nats -run 'NATS$$' ./e2e

bench-check: $(BENCH) ## compare the server with the cheapest responder, briefly, and fail far beyond what is usual
	$(BENCH) check --mosquitto

PERFORMANCE := build/performance
bench-table: $(BENCH) ## measure everything that docs/performance.md shows (some minutes)
	mkdir -p $(PERFORMANCE)
	$(BENCH) --mosquitto --runs 3 --report $(PERFORMANCE)/table.json | tee $(PERFORMANCE)/table.md

bench-plot: $(BENCH) ## measure over the number of cars and draw docs/performance.svg (some minutes)
	mkdir -p $(PERFORMANCE)
	$(BENCH) growth --mosquitto --report $(PERFORMANCE)/growth.json
	$(BENCH) plot $(PERFORMANCE)/growth.json > docs/performance.svg

clean: ## remove what was built
	rm -rf bin build coverage.out coverage.html
