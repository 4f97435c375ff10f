# The front door: each target is one line into cargo, xtask or a script.
.DEFAULT_GOAL := help
.PHONY: help setup proto master worker all sample-task run test lint bench chaos sim sim-planted mutants clean install

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

setup: ## Install what is missing: build tools, Docker engine, test tools
	@scripts/setup.sh

proto: ## Generate the Rust code of the protos (committed; needs no protoc)
	@cargo xtask codegen

master: ## Build the master: target/release/master-node
	@scripts/build.sh

worker: ## Build the worker: target/release/worker-node (the same binary)
	@scripts/build.sh

all: master worker sample-task ## Build everything

sample-task: ## Build the sample task's image
	@scripts/with-docker.sh scripts/sample-image.sh

run: ## Run a master and a local worker in this terminal, with the prompt master>
	@scripts/with-docker.sh cargo run --release --locked --package cloudai -- up --repl

test: ## Run every test; what is missing is installed, an engine is started and ended
	@scripts/with-docker.sh scripts/test.sh

lint: ## Check format, clippy, generated code and the rules of the house
	@scripts/lint.sh

bench: ## Measure: overhead over bare Docker, tasks per second, latency, restart, recovery
	@scripts/with-docker.sh scripts/bench.sh

chaos: ## Kill, stop and cut off a cluster under load, then judge (MINUTES=10 SEED=…)
	@scripts/with-docker.sh scripts/chaos.sh "$(MINUTES)" "$(SEED)"

sim: ## Simulate faults: RUNS=1000 seeds from SEED on (default: the clock)
	@scripts/sim.sh --runs $(or $(RUNS),1000) $(if $(SEED),--seed $(SEED))

sim-planted: ## Plant bugs in the simulator: it must find each within 2,000 seeds
	@scripts/sim.sh --planted --runs 2000 $(if $(SEED),--seed $(SEED))

mutants: ## Change the cores one place at a time: a test must notice (WHAT=all for every file)
	@scripts/mutants.sh $(WHAT)

install: ## Install cloudai, master-node and worker-node (PREFIX=/usr/local)
	@scripts/install.sh

clean: ## Remove everything that was built here; end an engine that was started here
	@scripts/stop-docker.sh && cargo clean
