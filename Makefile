# The front door: every target is one script, so that all of them can be read, and run, on their own.
# PG_CONFIG=/path/to/pg_config chooses another PostgreSQL than the packaged version 17.

.PHONY: help demo demo-stop test soak lint bench install image up scale-down clean

IMAGE ?= citus_fleet:0.1.0-citus13.2-pg17

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

demo: ## set this machine up, build, and show a cluster that registers its own workers
	@scripts/demo start

demo-stop: ## stop the demo and remove what it left
	@scripts/demo stop

test: ## run every test; the last line counts them
	@scripts/test

soak: ## let the nemesis play for TIME=10m, seed after seed, and print the one that fails
	@scripts/soak $(TIME)

lint: ## formatting, clippy, shellcheck and the rules of this code base
	@scripts/lint

bench: ## measure against the named baselines
	@scripts/bench

install: ## build for release and install into PostgreSQL, with sudo where needed
	@scripts/setup build
	@scripts/install

image: ## build the image that docker/README.md describes; IMAGE names it
	docker build -f docker/Dockerfile -t $(IMAGE) .

up: ## start a Compose cluster, with WORKERS=N workers (see compose/README.md)
	docker compose -f compose/docker-compose.yml up --detach --build --wait $(if $(WORKERS),--scale worker=$(WORKERS))

scale-down: ## drain the last worker of the Compose cluster, then remove it
	@compose/scale-down

clean: ## stop the demo and remove everything that was built
	@scripts/demo stop
	rm -rf target tests/logs bench/results
