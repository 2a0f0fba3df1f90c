# Every thing one does here, one line each. `make` lists them.

CARGO ?= cargo
DATA  ?= .posthorn
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
# The defaults of each section of the settings, in the order of `posthorn config defaults`.
DEFAULTS = crates/queue/defaults.toml crates/router/defaults.toml crates/local-delivery/defaults.toml \
	crates/remote-relay/defaults.toml crates/ingress/defaults.toml crates/service/src/telemetry.toml \
	crates/posthorn/src/migrate.toml

.DEFAULT_GOAL := help
.PHONY: help run build image compose-up test chaos test-compose bench bench-peers manifests lint fmt proto reference docs tools proto-lint clean

help: ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: tools ## Build and start everything here: private Postgres and Redis, all five services
	$(CARGO) build --release --bin posthorn
	./target/release/posthorn dev --data $(DATA) $(ARGS)

build: ## Build the release binary
	$(CARGO) build --release --bin posthorn

image: ## Build the container image of all services
	docker build -f deploy/Dockerfile --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) -t posthorn:local .

compose-up: image ## Start everything in containers, with example.test, alice and bob
	$(COMPOSE) --profile tools up -d --no-build

test: tools manifests ## Run every test
	$(CARGO) build --bin posthorn
	$(CARGO) test --workspace

chaos: tools ## Kill, cut, stop and fill up everything under load, and account for every message (20 min)
	@deploy/install-stores libfaketime
	$(CARGO) build --bin posthorn
	$(CARGO) test --workspace --test chaos -- --test-threads=1 --nocapture

test-compose: ## Test the system of containers: replicas killed, cut off and rolled under load
	deploy/compose/test/run

bench: tools ## Measure throughput, latency, CPU and memory end to end (ARGS="--cases mailbox,relayed")
	$(CARGO) build --release --bin posthorn --bin posthorn-bench
	./target/release/posthorn-bench run $(ARGS)

bench-peers: ## The same beside Postfix and Dovecot, by turns in the same run; as root, installs them if need be
	@deploy/install-stores postfix dovecot-lmtpd
	$(CARGO) build --release --bin posthorn --bin posthorn-bench
	./target/release/posthorn-bench run --peers $(ARGS)

manifests: ## Hold the Kubernetes manifests to the schemas, the restricted profile and R6
	@deploy/kubernetes/validate

lint: ## Formatting, and clippy with warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

fmt: ## Format the code
	$(CARGO) fmt --all

proto: ## Generate the gRPC code anew from proto/
	$(CARGO) run -q -p posthorn-api --example generate

reference: ## Put the commented defaults of each section into docs/CONFIGURATION.md
	mkdir -p target
	{ sed '/^## /,$$d' docs/CONFIGURATION.md | sed '$$d'; for file in $(DEFAULTS); do \
	  echo; sed -n 's/^\[\([a-z_]*\).*/## `[\1]`/p' $$file | head -n 1; echo; echo '```toml'; cat $$file; echo '```'; \
	done; } > target/CONFIGURATION.md
	mv target/CONFIGURATION.md docs/CONFIGURATION.md

proto-lint: ## Check the protos' style with buf (from PyPI: pip install buf-bin)
	cd proto && buf lint

docs: ## The code's documentation, with warnings denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

tools: ## Install what is missing: Postgres and Redis, on Debian and its kin
	@deploy/install-stores

clean: ## Remove what was built and the development data
	$(CARGO) clean
	rm -rf $(DATA)
