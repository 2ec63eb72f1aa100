# `make` alone lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
APIDIFF     := golang.org/x/exp/cmd/apidiff@v0.0.0-20261113113407-e3970619a1a4
CYCLONEDX   := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
FUZZTIME    ?= 60s
BENCHCOUNT  ?= 5
BENCHTIME   ?= 500ms
RACED       ?= 30
HISTORIES   ?= 50000
APIDIFF_BASE ?= origin/main

MODULE   := github.com/keyturn/keyturn
PORTABLE ?= ./cache ./keystore/... ./middleware/... ./rotation/... ./verifier/...

# Every module of the tree, the root first.
MODULES := $(shell find . -name go.mod -not -path '*/node_modules/*' -exec dirname {} ';' | sort)

# Without the race detector: the frameworks of docs/examples/adapters, which take a minute to compile for it,
# and the two modules that compare tokens and libraries one after the other. What is ours in them has tests
# with the detector in the root.
UNRACED := ./bench/compare ./bench/wycheproof ./docs/examples/adapters

# gin without MessagePack, which takes longer to compile than all of ours.
export GOFLAGS += -tags=nomsgpack

# The race detector needs a C compiler.
race = $(if $(shell command -v $$(go env CC)),-race)

# All packages of a module except those whose tests keep to real time, and run alone, and one that has no
# goroutines: make again tests it.
inTime = `go list ./... | grep -v -e /bench/faults -e /docs/prometheus -e /rotation/internal/protocol`

# The packages of the root whose tests take longest. The go command starts them in this order, before the
# others: a long one that starts last ends with a core to itself, and the other core idle.
longest = ./cmd/keyturn ./rotation/rotationtest ./keystore/jwks ./rotation

# The tests that run once more under GOEXPERIMENT=jsonv2, and their folders: that compiles everything
# again, so the others are left out.
jsonTests = Vector|Fuzz|JSON|Alloc|Million|Thousand|WhileBusy
again = $(sort $(dir $(shell grep -rlE --include='*_test.go' --exclude-dir=bench --exclude-dir=adapters --exclude-dir=node_modules '^func (Fuzz|[A-Z][A-Za-z0-9_]*($(jsonTests)))' .)))

# The tests of keystore/jwks and verifier that do less with the race detector, besides those of jsonTests.
inPart = AgainstModel|LeaveNoTrace|Floods?D|ChangedReal|FaultsCost|ForgedTokensForAllTenants$$

# Packages that start and stop real servers with the signals of Unix.
unixOnly = /internal/(redis|proxy)test$$|/bench/faults$$

# $(call each,COMMAND) runs COMMAND in every module, and names the module; $(call in,MODULES,COMMAND) in some.
each = $(call in,$(MODULES),$(1))
in   = for module in $(1); do echo "== $$module:" '$(2)'; (cd "$$module" && $(2)) || exit 1; done

# How many tests of a package run at once. They mostly wait, so more than there are cores.
WAITING := 4

# $(call tested,FLAGS,FIRST) tests all packages of a module, FIRST before the others.
tested = go test -vet=off $(1) -shuffle=on -parallel $(WAITING) -timeout 15m $(2) $(inTime)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: ## fetch what the tests need: system packages (Debian, root), Go modules, npm packages
	@.ci/setup

.PHONY: lint
lint: ## gofmt, vet, staticcheck, go mod tidy -diff, in every module, and words
	@.ci/setup first
	@echo "== gofmt -l"
	@unformatted=$$(find . -name '*.go' -not -path '*/node_modules/*' -exec gofmt -l {} +); \
		if [ -n "$$unformatted" ]; then echo "not formatted with gofmt:"; echo "$$unformatted"; exit 1; fi
	@$(call each,go mod tidy -diff)
	@$(call each,go vet ./...)
	@$(call each,go run $(STATICCHECK) ./...)
	@go run ./internal/words

.PHONY: words
words: ## how the comments and pages are written: fails above one listed phrase in 1000 words, and lists them
	@go run ./internal/words

# What computes runs beside what waits, at the lowest priority: npm beside lint, and quick or
# repeated tests beside those that wait for Redis, proxies and real time. Each side is one sequence: a barrier
# in the middle would leave a core idle until the slower side is there.
.PHONY: test
test: ## all of CI: lint, all tests with the race detector, the vectors again under GOEXPERIMENT=jsonv2, the alerts
	@$(if $(race),,echo "no C compiler: the tests run WITHOUT the race detector")
	@.ci/setup first
	@.ci/beside '.ci/setup npm' '$(MAKE) --no-print-directory lint'
	@.ci/beside 'nice -n 19 .ci/stages nested again' '.ci/stages root faults-in-time'

# The stages of make test.
.PHONY: root nested faults-in-time again
root:
	@$(call in,.,KEYTURN_HISTORIES=$(RACED) $(call tested,$(race),$(longest)))
nested:
	@$(call in,$(filter-out . $(UNRACED),$(MODULES)),$(call tested,$(race)))
	@$(call in,$(UNRACED),$(call tested,))
faults-in-time:
	@echo "== ./bench/faults by itself, as it keeps to real time"
	@go test -vet=off $(race) -shuffle=on -parallel $(WAITING) -timeout 15m ./bench/faults
	@.ci/beside '$(MAKE) --no-print-directory alerts' "$(if $(race),go test -vet=off -run '^TestFaults$$' -timeout 15m ./bench/faults,true)"
again:
	@echo "== GOEXPERIMENT=jsonv2, without the race detector (which allocates)"
	@GOEXPERIMENT=jsonv2 go test -vet=off -run '$(jsonTests)' -timeout 15m $(again)
	@echo "== the whole of what runs in part with the race detector"
	@go test -vet=off -run '$(inPart)' -timeout 15m ./keystore/jwks ./verifier
	@go test -vet=off -timeout 15m ./rotation/internal/protocol
	@echo "== 2000 histories of rings under faults, all timelines, and all short ones, without the race detector"
	@go test -vet=off -run '^Test(Histories|Timeline)' -timeout 15m ./rotation/rotationtest

.PHONY: bench
bench: setup ## measure, beside other libraries too, and write docs/benchmarks.md (BENCHCOUNT=5 rounds, BENCHTIME=500ms each)
	@BENCHCOUNT=$(BENCHCOUNT) BENCHTIME=$(BENCHTIME) bench/compare/run

.PHONY: edge
edge: ## what one core passes on with serve --upstream, beside Go's bare ReverseProxy, and decides at /authz behind nginx: writes its section of docs/benchmarks.md
	go run ./bench/edge

.PHONY: scale
scale: ## keyrings of up to a million tenants, the largest on a Redis Cluster of three: writes the table of docs/scale.md (4 GiB of memory, ten minutes)
	GOMEMLIMIT=1900MiB go run ./bench/scale -cluster 1000000

.PHONY: jwks-table
jwks-table: ## hostile issuers and a cold start, read by us and by other libraries: writes the tables of docs/jwks.md
	cd bench/compare && KEYTURN_JWKS_TABLE="$(CURDIR)/docs/jwks.md" go test -vet=off -count=1 -run '^(TestHostileIssuers|TestColdStart)$$' .

.PHONY: build
build: ## build for Linux, macOS and Windows, and vet for macOS, without running
	GOOS=linux go build ./...
	GOOS=darwin go vet ./...
	GOOS=windows go build $$(go list -f '{{if .GoFiles}}{{.ImportPath}}{{end}}' ./... | grep -vE '$(unixOnly)')

.PHONY: portable
portable: ## the tests that need Go alone; others are skipped, in CI too (PORTABLE='./cache ./keystore': fewer packages)
	CI= go test -vet=off -shuffle=on $(PORTABLE)

.PHONY: vuln
vuln: ## known vulnerabilities that our code reaches; asks vuln.go.dev
	@$(call each,go run $(GOVULNCHECK) ./...)

.PHONY: sbom
sbom: ## what the command is made of, as CycloneDX: writes sbom.json
	@dir=$$(mktemp -d); trap 'rm -r "$$dir"' EXIT; \
		go build -trimpath -o "$$dir/keyturn" ./cmd/keyturn; \
		go run $(CYCLONEDX) bin -json -std -noserial -notimestamp -version "$$(git describe --tags --always)" -output sbom.json "$$dir/keyturn"

.PHONY: apidiff
apidiff: ## how the public API differs from a commit (APIDIFF_BASE=origin/main); reports, and does not judge
	@base=$$(mktemp -d); trap 'git worktree remove --force "$$base/tree"; rm -r "$$base"' EXIT; \
		git worktree add --quiet --detach "$$base/tree" $(APIDIFF_BASE); \
		(cd "$$base/tree" && go run $(APIDIFF) -m -w "$$base/api" $(MODULE)); \
		go run $(APIDIFF) -m "$$base/api" $(MODULE)

.PHONY: fuzz
fuzz: ## every fuzz target for a minute (FUZZTIME=10s: for ten seconds)
	@for module in $(MODULES); do cd "$(CURDIR)/$$module"; for package in $$(go list ./...); do \
		for target in $$(go test -vet=off -list '^Fuzz' "$$package" | grep '^Fuzz' || true); do \
			echo "== $$package $$target"; \
			go test -vet=off -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" || exit 1; \
		done; done; done

.PHONY: soak
soak: ## ten million verifications while keys and tenants change, the order of changes and verdicts, FIPS mode, a migration of 20 000 live tokens, a fleet with the rights of keys acl for a minute, credentials that fail for 30 s, 50 000 histories of rings under faults (HISTORIES=), and 20 000 of revocations: an hour
	GODEBUG=fips140=only go test -vet=off -shuffle=on -skip '^Example$$' -timeout 5m ./rotation ./rotation/rediskeys
	GODEBUG=fips140=only go test -vet=off -shuffle=on ./rotation/internal/... ./rotation/ring
	SOAK=2500000 go test -vet=off $(race) -run '^TestSoak$$' -timeout 5m -v ./verifier
	SOAK=2500000 go test -vet=off -run '^TestSoakLinearizable$$' -timeout 10m -v ./verifier
	CI= GODEBUG=fips140=only go test -vet=off -shuffle=on $$(go list ./verifier/... | grep -v '/revocations$$') ./cache ./middleware
	GODEBUG=fips140=only go test -vet=off -run '^TestRedis$$' ./verifier/revocations
	GODEBUG=fips140=only go test -vet=off -shuffle=on ./keystore ./keystore/keystoretest ./internal/jwk ./internal/jose ./internal/jwt
	SOAK=1 go test -vet=off -run '^TestNothingIsLost$$' ./keystore/jwks/internal/queue
	GOEXPERIMENT=runtimesecret go test -vet=off -skip Million ./keystore
	GODEBUG=fips140=only go test -vet=off -shuffle=on -timeout 10m ./keystore/jwks/... ./internal/unknown
	KEYTURN_MIGRATED=20000 go test -vet=off -run '^TestMigration$$' -timeout 10m -v ./cmd/keyturn
	KEYTURN_ACL_FOR=60s go test -vet=off $(race) -run '^TestACLFleet$$' -timeout 10m -v ./cmd/keyturn
	KEYTURN_CREDENTIALS_FOR=30s go test -vet=off $(race) -run '^TestReport_CredentialsFailForAWhile$$' -timeout 5m -v ./rotation/rediskeys
	KEYTURN_HISTORIES=2000 KEYTURN_SEED=$${SEED:-50000} go test -vet=off $(race) -run '^TestHistories$$' -timeout 1h ./rotation/rotationtest
	KEYTURN_HISTORIES=$(HISTORIES) KEYTURN_SEED=$${SEED:-100000} go test -vet=off -run '^TestHistories$$' -timeout 3h -v ./rotation/rotationtest
	KEYTURN_HISTORIES=20000 KEYTURN_SEED=$${SEED:-100000} go test -vet=off -run '^TestHistories$$' -timeout 1h ./verifier/revocations

.PHONY: alerts
alerts: setup ## every alert and every panel on a real Prometheus, while a real service is broken and mended: a minute
	go test -vet=off -timeout 15m -v ./docs/prometheus

.PHONY: mutants
mutants: ## the protocol with one mistake at a time: the test that names it must find it, in two minutes (MUTANT=TEXT: those with TEXT in their name)
	go run ./internal/mutants -only "$(MUTANT)"

.PHONY: faults
faults: ## break real Redis servers under a fleet, and write docs/faults.md: about 45 minutes
	go run ./bench/faults

.PHONY: demo
demo: ## the main job: go run ./cmd/keyturn serve
	go run ./cmd/keyturn serve
