# MeshStor. `make help` lists what there is; everything is a few lines, so that it can be run by hand too.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

LOGS := target/test-logs
# A suite's log is what the closing line is counted from.
logged = mkdir -p $(LOGS); { $(1) ; } 2>&1 | tee $(LOGS)/$(2).log

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: lab
lab: prerequisites ## Build what the lab runs on: kernel, control plane, guests' root (once; about 20 minutes)
	@e2e/lab/build.sh all

.PHONY: lab-info
lab-info: ## Show what the lab has built, how large and how long ago
	@e2e/lab/info.sh

.PHONY: demo
demo: lab build ## Three nodes, one volume, a power cut, no lost write (KEEP=1 leaves the lab running)
	@$${CARGO_TARGET_DIR:-target}/debug/meshstor-lab demo $(if $(KEEP),--keep)

.PHONY: demo-down
demo-down: build ## Take down what `make demo KEEP=1` left
	@$${CARGO_TARGET_DIR:-target}/debug/meshstor-lab demo-down

.PHONY: test
test: prerequisites ## Every test: fast ones, the API, then real kernels; ends with "N passed, N failed"
	@rm -rf $(LOGS); mkdir -p $(LOGS); failed=0; \
	for suite in fast api e2e kernel; do $(MAKE) --no-print-directory test-$$suite || failed=1; done; \
	e2e/tally.sh $$(find $(LOGS) -name '*.log') || failed=1; \
	exit $$failed

.PHONY: test-fast
test-fast: prerequisites lint ## Format, clippy, generated files, unit tests (no root needed)
	@$(call logged,cargo test --locked --no-fail-fast --workspace,fast)

.PHONY: test-api
test-api: prerequisites ## The API's rules, RBAC and admission policies against a real API server
	@e2e/lab/build.sh kube >/dev/null
	@$(call logged,crds/tests/with-api-server.sh,api)

.PHONY: test-e2e
test-e2e: lab build ## Real kernels, a real control plane, faults and a verifying writer
	@rm -rf $${CARGO_TARGET_DIR:-target}/e2e/objects
	@failed=0; $(call logged,cargo test --locked --workspace --test e2e,e2e) || failed=1; \
	$(call logged,config/argocd/tests/run.sh $${CARGO_TARGET_DIR:-target}/e2e/objects,captured) || failed=1; exit $$failed

.PHONY: captured
captured: ## After `make test-e2e`: keep what our objects looked like in it for the tests of config/argocd
	@config/argocd/tests/take.sh $${CARGO_TARGET_DIR:-target}/e2e/objects

# Seeds of `make soak`, and the first of them.
SEEDS ?= 100000
FIRST ?= 10001
.PHONY: soak
soak: ## The simulation with more seeds: SEEDS=100000 FIRST=10001; SEEDS=1 FIRST=n replays one
	@SEEDS=$(SEEDS) FIRST=$(FIRST) cargo test --locked -p meshstor-simulation --test seeds -- --nocapture

# Rounds and first seed of `make chaos-daemon`; without a seed each run has its own.
ROUNDS ?= 200
SEED ?=
# Deadlines are three times those of `make test`: a life that is shot at twice while it starts has to begin three times.
chaos-daemon: export MESHSTOR_PATIENCE ?= 3
.PHONY: chaos-daemon
chaos-daemon: lab build ## Daemons killed at random moments of volumes' lives in every shape: ROUNDS=200 (about an hour), SEED=n replays
	@$(call logged,MESHSTOR_CHAOS_ROUNDS=$(ROUNDS) MESHSTOR_CHAOS_SEED=$(SEED) cargo test --locked --workspace --test e2e -- daemons_killed_at_random_moments,chaos-daemon)

# Which cases of `make chaos`: what their names contain.
CASE ?=
chaos: export MESHSTOR_PATIENCE ?= 3
.PHONY: chaos
chaos: lab build ## Real kernels under every fault of every node at every moment (half an hour): SEED=n replays, CASE=kill/consumer/ chooses
	@$(call logged,MESHSTOR_CHAOS_SEED=$(SEED) MESHSTOR_CHAOS_CASES=$(CASE) cargo test --locked --workspace --test e2e -- chaos_,chaos)

.PHONY: chaos-errors
chaos-errors: lab build ## Errors that MD sees under load, on patched and on stock kernels, with fail-over and without (fifteen minutes)
	@$(call logged,MESHSTOR_LONG=1 MESHSTOR_LABS=1 cargo test --locked --workspace --test e2e -- errors_,chaos-errors)

.PHONY: drain-30
drain-30: lab build ## A node with thirty volumes is emptied, within the budget (ten minutes)
	@$(call logged,MESHSTOR_LONG=1 MESHSTOR_LABS=1 cargo test --locked --workspace --test e2e -- thirty_volumes,drain-30)

# How long `make fuzz` goes on, in seconds, and how many cases each property gets in a round.
CASES ?= 5000
.PHONY: fuzz
fuzz: ## Readers of kernel text against bent and random text: SECONDS=60, CASES=5000 a property and round
	@cargo test --locked -p meshstor-node-daemon --lib --no-run; end=$$(( $$(date +%s) + $(or $(SECONDS),60) )); round=0; \
	while [[ $$(date +%s) -lt $$end ]]; do \
		round=$$((round + 1)); \
		PROPTEST_CASES=$(CASES) cargo test --locked -q -p meshstor-node-daemon --lib -- host::real events ids; \
	done; echo "$$round rounds of $(CASES) cases a property"

.PHONY: test-kernel
test-kernel: prerequisites ## The md patches, in brief: on 7.3, as modules in Debian's own 6.12, and across reboots
	@$(call logged,kernel/tests/brief.sh,kernel)

# Kernels that `make kernel-test` runs the tests on.
KERNELS ?= 7.3-stock 7.3-patched 6.12-stock 6.12-patched
.PHONY: kernel-test
kernel-test: prerequisites ## Tests of the md patches: KERNELS="7.3-stock 7.3-patched 6.12-stock 6.12-patched"
	@failed=0; for kernel in $(KERNELS); do $(call logged,kernel/tests/run.sh $$kernel,kernel-$$kernel) || failed=1; done; \
	$(call logged,kernel/tests/reboot.sh,kernel-reboot) || failed=1; \
	$(call logged,kernel/tests/package.sh,kernel-removal) || failed=1; exit $$failed

.PHONY: kernel-test-debug
kernel-test-debug: prerequisites ## The same on 7.3 with KASAN, lockdep and preemption (builds a kernel: 15 minutes); STRESS=600 seconds each stress
	@$(call logged,MD_TEST_SECONDS=$(or $(STRESS),30) kernel/tests/run.sh 7.3-debug,kernel-7.3-debug)

.PHONY: kernel-bench
kernel-bench: prerequisites ## Measure the md patches against stock kernels; writes target/bench/kernel.json and .md
	@kernel/tests/bench.sh

.PHONY: kernel-steps
kernel-steps: prerequisites ## Compile md after each patch of both series, and test what there is after each feature
	@kernel/build.sh steps
	@$(call logged,kernel/tests/steps.sh,kernel-steps)

.PHONY: kernel-package
kernel-package: prerequisites ## Build the DKMS source package of md, for kernels where md is a module
	@kernel/build.sh package

AREA ?= volume
.PHONY: bench
bench: lab ## Measure AREA (volume, many-legs, api-writes-per-life, operator-300, placement, safety, drain); writes target/bench/<area>.json and .md
	@cargo build --locked --release --workspace --bins
	@$${CARGO_TARGET_DIR:-target}/release/meshstor-lab bench --area $(AREA) $(if $(PART),--part $(PART))

.PHONY: build
build: prerequisites ## Build all programs
	@cargo build --locked --workspace --bins

.PHONY: crds
crds: ## Generate crds/*.yaml and docs/reference/api.md from crds/src
	@cargo run --locked -q -p meshstor-crds --bin crdgen -- crds
	@cargo run --locked -q -p meshstor-crds --bin crdgen -- --reference docs/reference/api.md

.PHONY: fmt
fmt: ## Format the Rust code
	@cargo fmt --all

.PHONY: lint
lint: ## Check the format, clippy, and that what is generated is what the types say
	@cargo fmt --all --check
	@cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	@cargo clippy --locked --workspace --all-features --test e2e -- -D warnings
	@cargo run --locked -q -p meshstor-crds --bin crdgen -- --check crds
	@cargo run --locked -q -p meshstor-crds --bin crdgen -- --check --reference docs/reference/api.md

.PHONY: prerequisites
prerequisites:
	@missing() { echo "make: missing prerequisite: $$1 (see README)" >&2; exit 1; }; \
	at_least() { [[ $$(printf '%s\n' "$$1" "$$2" | sort -V | head -n 1) == "$$1" ]]; }; \
	if [[ "$(MAKECMDGOALS)" != test-fast && $$(id -u) != 0 ]]; then missing "root"; fi; \
	command -v cargo >/dev/null || missing "cargo 1.90 or newer"; \
	at_least 1.90 "$$(cargo --version | cut -d' ' -f2)" || missing "cargo 1.90 or newer"; \
	if [[ "$(MAKECMDGOALS)" != test-fast ]]; then \
		command -v go >/dev/null || missing "go 1.26 or newer"; \
		at_least 1.26 "$$(go env GOVERSION | sed 's/^go//; s/[^0-9.].*//')" || missing "go 1.26 or newer"; \
	fi
