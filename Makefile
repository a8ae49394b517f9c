# `make demo` on a fresh Debian 12 or 13 does everything; `make help` lists the rest.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
.PHONY: help setup build demo test test-vm conformance escapes fuzz soak sanitize deny results compatibility lint check-arm bench bench-build bench-quick bench-shim bless install uninstall clean

PREFIX ?= /usr/local
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH):/usr/sbin:/sbin

TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)
# ORLOP=/path/to/runtime makes demo, test and bench use another one.
ORLOP ?= $(CURDIR)/out/orlop
SUDO = $(if $(filter-out 0,$(shell id -u)),sudo -E)

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what all the rest needs, where it is missing (apt, rustup; asks sudo for root)
	@integration/setup.sh

SHIM := containerd-shim-orlop-v2

# One value for all that is built as a release: with another, cargo builds every crate anew.
RELEASE_FLAGS = RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-T,$(CURDIR)/runtime/cold.ld"

# One after the other: together they would share their features, and the shim has no use for the command line's.
build: ## build out/orlop and out/containerd-shim-orlop-v2, two static binaries
	@integration/setup.sh build
	target=$$(integration/setup.sh target) && \
	for bin in orlop $(SHIM); do \
		package=$${bin%-v2} && \
		$(RELEASE_FLAGS) cargo build --release --locked -p $$package --bin $$bin --target $$target && \
		install -D -m 0755 $(TARGET_DIR)/$$target/release/$$bin out/.$$bin && mv out/.$$bin out/$$bin || exit; \
	done
	@ls -l out/orlop out/$(SHIM)

demo: build ## run an OCI bundle and Docker containers on this machine, and clean up
	@integration/setup.sh demo
	@ORLOP=$(ORLOP) integration/demo/demo.sh

test: build ## unit, conformance and Docker tests, against out/orlop
	@integration/setup.sh test
	@ORLOP=$(ORLOP) integration/suites.sh

# VM_BACKEND=uml|tcg|kvm, of which tcg runs what uml cannot (CRIU, cpusets, time namespaces), and kvm all; the other variables are in integration/testhost/settings.sh. SUITES="conformance docker-shim": these alone
test-vm: build ## the same on a virtual Debian 13: cgroup v2, systemd, AppArmor; made, booted and ended by this
	@integration/setup.sh vm $(if $(filter-out uml,$(VM_BACKEND)),qemu)
	@ORLOP=$(ORLOP) integration/testhost/suites.sh $(SUITES)

# RUNTIME=/path/to/another, FILTER=name, FORMAT=tap|json|markdown
conformance: build ## the conformance checks alone, against out/orlop or RUNTIME=
	@integration/setup.sh conformance
	cargo build -q --locked -p orlop-conformance
	$(SUDO) $(TARGET_DIR)/debug/conformance --runtime $(or $(RUNTIME),$(ORLOP)) $(if $(FILTER),--filter $(FILTER)) $(if $(FORMAT),--format $(FORMAT))

# ESCAPES_RUNTIME=/path/to/another
escapes: build ## the known ways out of a container (integration/ESCAPES.md), against out/orlop or ESCAPES_RUNTIME=
	@integration/setup.sh conformance
	cargo build -q --locked -p orlop-conformance
	$(SUDO) $(TARGET_DIR)/debug/conformance --runtime $(or $(ESCAPES_RUNTIME),$(ORLOP)) $(if $(CREATES),--creates $(CREATES)) --filter safety:: --filter escapes:: --filter races::

# SECONDS_EACH=600, FUZZ="config dbus": these targets alone. TMPDIR: one of them makes files for each input. What is found lies in runtime/fuzz/artifacts, the corpus in runtime/fuzz/corpus.
FUZZ ?= $(basename $(notdir $(wildcard runtime/fuzz/fuzz_targets/*.rs)))
fuzz: ## feed each parser with bytes of libFuzzer's for 60 s (needs cargo-fuzz and a C++ compiler)
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	@cd runtime/fuzz && export RUSTC_BOOTSTRAP=1 TMPDIR=/dev/shm && cargo fuzz build && for target in $(FUZZ); do \
		echo "fuzz: $$target" && mkdir -p corpus/$$target && \
		cargo fuzz run $$target corpus/$$target seeds/$$target -- -max_total_time=$(or $(SECONDS_EACH),60) -timeout=20 -rss_limit_mb=4096 -verbosity=0 || exit; \
	done

# PERCENT=10: a tenth of it. It takes ten minutes and more, and tells how far it is.
soak: build ## load (1,000 containers, 5,000 cycles, 20,000 execs, raced commands), then the races with 2,000 containers each
	@integration/setup.sh conformance
	cargo build -q --locked -p orlop-conformance
	$(SUDO) $(TARGET_DIR)/debug/conformance soak --runtime $(or $(RUNTIME),$(ORLOP)) --percent $(or $(PERCENT),100)
	$(SUDO) $(TARGET_DIR)/debug/conformance --runtime $(or $(RUNTIME),$(ORLOP)) --creates $$((20 * $(or $(PERCENT),100))) --threads 2 --filter races::

sanitize: ## the tests of the crate of system calls, with its unsafe code, under AddressSanitizer
	@host=$$(rustc -vV | sed -n 's/^host: //p') && \
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=$(TARGET_DIR)/sanitize cargo test -q --locked -p orlop-sys --target $$host

# ADVISORIES=1 asks RustSec's database on GitHub, too.
deny: ## what the workspace may be built of (deny.toml): licences, sources, duplicates (installs cargo-deny, for minutes)
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --all-features --locked check $(if $(ADVISORIES),advisories) bans licenses sources

RUNC ?= runc
CRUN ?= crun
results: build ## conformance/RESULTS.md: orlop, RUNC= and CRUN= side by side
	@integration/setup.sh conformance
	cargo build -q --locked -p orlop-conformance
	@conformance/results.sh $(TARGET_DIR)/debug/conformance $(ORLOP) $(RUNC) $(CRUN)

compatibility: ## docs/COMPATIBILITY.md, of what the last make test and make test-vm have left in out/results
	@integration/compatibility.sh

lint: ## formatting, clippy, shellcheck, the rules of the tree, aarch64
	@integration/setup.sh build lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	grep -rlE --exclude-dir=.git --exclude-dir=target --exclude-dir=out --exclude-dir=corpus --exclude-dir=artifacts '^(#!/.*\b(ba)?sh\b|# shellcheck shell=)' . | xargs -r shellcheck
	! find . \( -path ./target -o -path ./.git \) -prune -o -regextype egrep -regex '.*/(utils?|common|helpers?)(\.[a-z]+)?' -print | grep .
	! grep -rnE --include=*.rs --exclude-dir=target '\bunsafe\s*(\{|fn\b|impl\b|trait\b|extern\b|\()' . | grep -v '^\./runtime/sys/'
	integration/compatibility.sh --check
	$(MAKE) check-arm

check-arm: ## does it compile for aarch64?
	cargo check --workspace --locked --target aarch64-unknown-linux-musl

# Built as the runtime is, since it times a part of that in itself.
BENCH = $(SUDO) env ORLOP=$(ORLOP) RUNC=$(RUNC) CRUN=$(CRUN) $(TARGET_DIR)/$$(integration/setup.sh target)/release/orlop-bench
bench-build: build
	@integration/setup.sh bench
	@target=$$(integration/setup.sh target) && \
	$(RELEASE_FLAGS) cargo build --release --locked -p orlop-bench --target $$target

bench: bench-build ## time it beside runc and crun: bench/RESULTS.md (ROUNDS=, RUNC=, CRUN=, ARGS=--check)
	@$(BENCH) --out bench $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

bench-quick: bench-build ## the commands alone, in a minute; writes nothing
	@$(BENCH) --quick $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

bless: build ## write this host's counts of system calls to bench/syscalls.txt
	@integration/setup.sh test
	@BLESS=1 ORLOP=$(ORLOP) cargo test -q -p orlop-bench --test budget $(if $(SUDO),--config 'target."cfg(unix)".runner = "$(SUDO)"')

bench-shim: build ## integration/benches/RESULTS.md: the shim beside containerd's Go shim (some minutes)
	@integration/setup.sh test
	@host=$$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_') && \
	env $(if $(SUDO),CARGO_TARGET_$${host}_RUNNER="$(SUDO)") ORLOP=$(ORLOP) \
		cargo bench -q --profile dev --locked -p orlop-integration --bench shim >$(TARGET_DIR)/bench-shim.md
	mv $(TARGET_DIR)/bench-shim.md integration/benches/RESULTS.md && cat integration/benches/RESULTS.md

install: ## install the binary and its documents under $(DESTDIR)$(PREFIX)
	@test -x out/orlop -a -x out/$(SHIM) || { echo "nothing to install yet: run \`make build\` first, as yourself" >&2; exit 1; }
	install -D -m 0755 out/orlop $(DESTDIR)$(PREFIX)/bin/orlop
	install -D -m 0755 out/$(SHIM) $(DESTDIR)$(PREFIX)/bin/$(SHIM)
	install -D -m 0644 contrib/completions/bash/orlop $(DESTDIR)$(PREFIX)/share/bash-completion/completions/orlop
	install -d $(DESTDIR)$(PREFIX)/share/doc/orlop
	install -m 0644 README.md SECURITY.md CHANGELOG.md LICENSE $(DESTDIR)$(PREFIX)/share/doc/orlop

uninstall: ## remove what install has put there
	rm -f $(DESTDIR)$(PREFIX)/bin/orlop $(DESTDIR)$(PREFIX)/bin/$(SHIM)
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/orlop
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/orlop

clean: ## remove everything built
	cargo clean
	rm -rf out
