# Every thing one does here, one line each. `make` lists them.

CARGO ?= cargo
DATA  ?= .posthorn

.DEFAULT_GOAL := help
.PHONY: help run build test lint fmt proto reference docs tools proto-lint clean

help: ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: tools ## Build and start everything here: private Postgres and Redis, all five services
	$(CARGO) build --release --bin posthorn
	./target/release/posthorn dev --data $(DATA) $(ARGS)

build: ## Build the release binary
	$(CARGO) build --release --bin posthorn

test: tools ## Run every test
	$(CARGO) build --bin posthorn
	$(CARGO) test --workspace

lint: ## Formatting, and clippy with warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

fmt: ## Format the code
	$(CARGO) fmt --all

proto: ## Generate the gRPC code anew from proto/
	$(CARGO) run -q -p posthorn-api --example generate

reference: ## Put the compiled-in defaults into docs/CONFIGURATION.md
	$(CARGO) build -q --bin posthorn
	target/debug/posthorn config defaults > target/defaults.toml
	sed -n '1,/^```toml/p' docs/CONFIGURATION.md > target/reference.md
	{ cat target/reference.md target/defaults.toml; echo '```'; } > docs/CONFIGURATION.md

proto-lint: ## Check the protos' style with buf (from PyPI: pip install buf-bin)
	cd proto && buf lint

docs: ## The code's documentation, with warnings denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

tools: ## Install what is missing: Postgres and Redis, on Debian and its kin
	@deploy/install-stores

clean: ## Remove what was built and the development data
	$(CARGO) clean
	rm -rf $(DATA)
