# Two commands do everything on a fresh machine: `make demo` and `make test`.

# One target folder for work, checks and clean clones, so that RocksDB is compiled once.
CACHE_HOME ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
export CARGO_TARGET_DIR ?= $(CACHE_HOME)/underpass/target
PREFIX ?= $(HOME)/.local
UNDERPASS = $(CARGO_TARGET_DIR)/debug/underpass

.PHONY: demo test check bench bench-log fuzz torture bootstrap install build generate deny help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: ## install what is missing, build, run the whole story, leave the docs to browse
	@scripts/bootstrap demo
	cargo build --locked
	@$(UNDERPASS) demo

test: build ## install what is missing, start the servers the tests need, run all tests
	@scripts/bootstrap test
	cargo test --locked --workspace --all-features

check: ## formatting, lints, layers, generated files
	@scripts/bootstrap build
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	cargo xtask layers
	cargo xtask generated --check

generate: ## write schemas, the OpenAPI document and the generated docs anew
	@scripts/bootstrap build
	cargo xtask generated

torture: build ## the same tests with larger counts: more kills, more flips, more sequences
	@scripts/bootstrap test
	TORTURE=$(or $(TORTURE),10) cargo test --locked --workspace --all-features -- --nocapture

bench: ## stand beside bare splice hops and the peers on PATH, in one run; writes target/bench
	@scripts/bootstrap build
	cargo build --locked --release -p underpass-cli --no-default-features
	cargo build --locked --release -p underpass-benches --bins
	$(CARGO_TARGET_DIR)/release/side-by-side --underpass $(CARGO_TARGET_DIR)/release/underpass

bench-log: ## the event log beside raw RocksDB and raw etcd, in one run; writes target/bench
	@scripts/bootstrap test
	cargo build --locked --release -p underpass-benches --features log --bin log-figures
	$(CARGO_TARGET_DIR)/release/log-figures

fuzz: ## one minute for each decoder (needs a nightly toolchain and cargo-fuzz)
	@scripts/fuzz $(or $(SECONDS_EACH),60)

deny: ## licences and advisories of the dependencies (needs cargo-deny)
	cargo deny --locked check

build: ## the binary as `make demo` uses it
	@scripts/bootstrap build
	cargo build --locked

bootstrap: ## install everything that any of the other targets needs
	@scripts/bootstrap all

install: ## an optimised build into PREFIX/bin (default ~/.local/bin)
	@scripts/bootstrap build
	cargo build --locked --release -p underpass-cli
	install -d $(PREFIX)/bin
	install -m 0755 $(CARGO_TARGET_DIR)/release/underpass $(PREFIX)/bin/underpass
