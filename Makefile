# sidestep: everything that a person or CI runs. `make check` and `make test` are what .ci/run calls.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help deps build install progs xdp xdp-check check core core-none unit sim fuzz test e2e soak ctest demo bench goodput clean

CARGO ?= cargo
PYTHON ?= python3
export CARGO_TARGET_DIR ?= $(CURDIR)/target
OUT := $(CARGO_TARGET_DIR)/release

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install what is missing for the demo and the tests (Debian packages, root)
	@tests/deps.sh

build: ## sidestep, libsidestep.so and the rig's tools, optimised
	$(CARGO) build --release --workspace

PREFIX ?= /usr/local
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
install: $(if $(BUILT),,build) ## into PREFIX (and DESTDIR): the command, the library, the header, and sidestep.pc for pkg-config
	install -D -m 755 $(OUT)/sidestep $(DESTDIR)$(PREFIX)/bin/sidestep
	install -D -m 644 $(OUT)/libsidestep.so $(DESTDIR)$(PREFIX)/lib/sidestep/libsidestep.so
	install -D -m 644 include/sidestep.h $(DESTDIR)$(PREFIX)/include/sidestep.h
	install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' include/sidestep.pc.in >$(DESTDIR)$(PREFIX)/lib/pkgconfig/sidestep.pc

progs: ## the small C programs of tests and benchmarks
	@mkdir -p $(OUT)/e2e $(OUT)/bench
	@for source in tests/e2e/progs/*.c; do \
	  case $$source in */static_*) static=-static;; *) static=;; esac; \
	  $(CC) -O2 -Wall -Wextra -Werror $$static -o $(OUT)/e2e/$$(basename $$source .c) $$source || exit 1; done
	@$(CC) -O2 -Wall -Wextra -Werror -o $(OUT)/bench/stream bench/stream.c
	@$(CC) -O2 -Wall -Wextra -Werror -pthread -o $(OUT)/bench/waits bench/waits.c
	@$(CC) -O2 -Wall -Wextra -Werror -shared -fPIC -o $(OUT)/bench/kernel_spin.so bench/kernel_spin.c

xdp: ## rebuild the committed XDP object from source (installs its own toolchain)
	xdp-prog/build.sh

xdp-check: ## rebuild it aside and fail if it differs from the committed one
	xdp-prog/build.sh --check

check: ## formatting, lints, the core without an OS, unit tests: no root needed
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(MAKE) --no-print-directory core unit

core: ## the protocol core alone, no_std
	$(CARGO) build -p sidestep-stack --no-default-features

# No standard library for this target can be fetched, so the BPF toolchain of `make xdp` builds one: `core` alone, without `alloc`.
core-none: export PATH := /usr/bin:/bin
core-none: export CARGO_TARGET_DIR := $(CARGO_TARGET_DIR)/none
core-none: ## the protocol core for a machine that has no operating system (after `make xdp` or `make xdp-check`)
	RUSTC_BOOTSTRAP=1 /usr/bin/cargo build -Z build-std=core --target x86_64-unknown-none -p sidestep-stack --no-default-features

# The first seed, how many, and the seconds after which no other is begun. SIM_ARGS=--verbose prints every frame.
SEED ?= 1
N ?= 6000
SIM_SECONDS ?= 110
sim: ## the network simulation, seed by seed (SEED=first N=how many; SEED=x N=1 SIM_ARGS=--verbose to see one)
	$(CARGO) run --quiet --profile sim -p sidestep-stack --features testing --example sim -- \
	  --seed $(SEED) --count $(N) --seconds $(SIM_SECONDS) $(SIM_ARGS)

FUZZ_SECONDS ?= 60
fuzz: ## every fuzz target for a while, from the committed corpus (FUZZ_SECONDS=all told; FUZZ_ARGS=--help)
	fuzz/run.sh --seconds $(FUZZ_SECONDS) $(FUZZ_ARGS)

unit: ## unit tests
	$(CARGO) test --workspace --quiet

test: unit e2e ## everything: unit tests, then end to end (as root; otherwise it says what it skipped)

ctest: deps build ## the parity cases: calls on the kernel and under sidestep, compared (CASE=family.name, * and ? allowed; CT_ARGS=--help)
	set -f; $(PYTHON) ctests/run.py $(CT_ARGS) $(CASE)

e2e: deps build progs ## end-to-end tests; CASE=name (* and ? allowed) for one, E2E_MODE=kernel to test the tests
	set -f; $(PYTHON) tests/e2e/run.py $(CASE)

# Reloads, upgrades, kills and switches, many times over. Not in CI.
SOAK := reload_* reopen_and_quit upgrade switched_under_load killed_worker killed_daemon_while_reloading \
	accept_mutex_* buckets_move_on_four_queues killed_at_random killed_children killed_clients killed_daemons
soak: deps build progs ## the end-to-end cases of processes that come and go, for a long time (LONGER=times)
	set -f; E2E_LONGER=$${LONGER:-10} $(PYTHON) tests/e2e/run.py $(or $(CASE),$(SOAK))

demo: deps build ## redis and nginx on the kernel and under sidestep: one table and the proof (DEMO_ARGS=--help)
	$(PYTHON) bench/demo.py $(DEMO_ARGS)

bench: deps build progs ## the long table, with kernel-spin and CPU per request; kept in bench/results (BENCH_ARGS=--help)
	$(PYTHON) bench/bench.py $(BENCH_ARGS)

goodput: deps build progs ## bytes that arrive over loss and delay, beside the kernel; a full run writes bench/goodput.md (GOODPUT_ARGS=--help)
	$(PYTHON) bench/goodput.py $(GOODPUT_ARGS)

clean: ## remove what was built
	$(CARGO) clean
	rm -rf bench/results
