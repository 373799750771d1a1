# The short names of every command a person needs; `make` alone lists them.
# DATA chooses the data: full, sample, a folder or a .tgz.
PYTHON ?= python3
BIN = .venv/bin
READY = .venv/ready
TEST_DATA = $(if $(wildcard $(DATA)),$(abspath $(DATA)),$(or $(DATA),sample))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s %s\n", $$1, $$2}' Makefile

run: $(READY) ## run the chapters in order and print what they measured  [DATA=full|sample|/some/folder]
	$(BIN)/python tools/series.py $(if $(DATA),--data '$(DATA)')

test: $(READY) ## test every notebook and the package, on the sample unless DATA says otherwise
	cd nbs && OMP_NUM_THREADS=1 MNIST_FOUNDATIONS_DATA='$(TEST_DATA)' ../$(BIN)/nbdev_test --n_workers 2 --do_print
	OMP_NUM_THREADS=1 MNIST_FOUNDATIONS_DATA='$(TEST_DATA)' $(BIN)/python -m pytest -q -n 2 --dist worksteal tests

lab: $(READY) ## open JupyterLab on the first chapter
	$(BIN)/jupyter lab nbs/00_data.ipynb

bench: $(READY) ## time our code against its peers and the bare matrix multiplies, as ratios
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

write: $(READY) ## run the chapters on all of MNIST and keep their outputs in nbs/, for a commit
	$(BIN)/python tools/series.py --write $(if $(DATA),--data '$(DATA)')
	$(BIN)/python tools/series.py --write $(if $(DATA),--data '$(DATA)') nbs/index.ipynb
	$(MAKE) sync

sync: $(READY) ## bring package, README and notebook metadata in step with nbs/
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python tools/readme.py

clean: ## remove the environment and everything that a run leaves behind
	rm -rf .venv _run build *.egg-info

$(READY): constraints.txt settings.ini setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

.PHONY: help run test lab bench write sync clean
