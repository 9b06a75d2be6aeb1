# Every target sets the machine up first (deploy/setup), which takes no time when nothing changed.
# `make demo SEED=7 CARDS=5000 OUT=out/other FRESH=1`; `make test ARGS='tests/ledger -k fence'`.

SEED = 1
CARDS = 3000
OUT = out/demo
# Not empty: a finished demo in OUT is thrown away and run anew.
FRESH =
# How many processes `make chaos` kills.
KILLS = 50
# postgresql or sqlite: where its ledger lives.
LEDGER = postgresql
# Handed on to pytest.
ARGS =
# Simulated hours of a simulation (make simulate), and minutes for which make soak goes on.
HOURS = 8
MINUTES = 30

python = .venv/bin/python

.PHONY: demo chaos test simulate soak planted-bugs bench bench-history lint format types setup lock clean

demo: setup
	@.venv/bin/centre demo --seed $(SEED) --cards $(CARDS) --out "$(OUT)" $(if $(FRESH),--fresh)

# SIGKILL at random moments of a run; `make chaos CARDS=300 KILLS=6 SEED=7`. Every SEED is good.
chaos: CARDS = 20000
chaos: OUT = out/chaos
chaos: setup
	@$(python) -m proof.chaos --seed $(SEED) --cards $(CARDS) --kills $(KILLS) \
		--ledger $(LEDGER) --out "$(OUT)" $(if $(FRESH),--fresh)

test: setup
	@$(python) -m pytest $(ARGS)

# A simulated working day from a seed (docs/proof.md); exit 1 and the story if a promise breaks.
simulate: setup
	@$(python) -m proof.simulate --seed $(SEED) --hours $(HOURS)

# One simulated day after another, from SEED on.
soak: setup
	@$(python) -m proof.simulate --seed $(SEED) --hours $(HOURS) --soak $(MINUTES)

# One safeguard after another is switched off: the simulator must find each.
planted-bugs: setup
	@$(python) -m proof.planted --seed $(SEED)

# Writes bench/results.json and bench/RESULTS.md. Alone on the machine, if the figures are to mean
# something.
bench: setup
	@$(python) -m bench

# 10 million cards of history, once: an hour or more and 60 GB in out/; writes bench/HISTORY.md.
# `make bench-history CARDS=1000000`.
bench-history: CARDS = 10000000
bench-history: setup
	@$(python) -m bench.years --cards $(CARDS)

lint: setup
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .

format: setup
	@$(python) -m ruff check --fix .
	@$(python) -m ruff format .

types: setup
	@$(python) -m mypy

setup:
	@deploy/setup

# After a change of the dependencies in pyproject.toml: keeps the versions that still fit, writes
# hashes, and names no registry. `make lock ARGS=--upgrade` takes the newest of everything.
lock: setup
	@CUSTOM_COMPILE_COMMAND="make lock" $(python) -m piptools compile --quiet --generate-hashes \
		--extra dev --strip-extras --allow-unsafe --no-emit-options --no-emit-index-url \
		--no-emit-find-links --no-emit-trusted-host \
		--output-file requirements.lock pyproject.toml $(ARGS)

# What `make setup` makes anew. Homes of demos (out/) stay: they hold ledgers.
clean:
	@rm -rf .venv stubs build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -path ./out -prune -o -name __pycache__ -type d -exec rm -rf {} +
