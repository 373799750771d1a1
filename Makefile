# The short names of every command a person needs; `make` alone lists them.
# DATA chooses the data: full, sample, or a copy of your own.
PYTHON ?= python3
BIN = .venv/bin
READY = .venv/ready
SERIES = $(BIN)/python tools/series.py $(if $(DATA),--data '$(DATA)')
TEST_DATA = $(if $(wildcard $(DATA)),$(abspath $(DATA)),$(or $(DATA),sample))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

run: $(READY) ## run Part I, chapters 00 to 03, and print what they measured  [DATA=full|sample|/your/copy]
	$(SERIES)

all: $(READY) ## run every chapter  [DATA=...]
	$(SERIES) --all

test: $(READY) ## test every notebook and the package, on the sample unless DATA says otherwise
	OMP_NUM_THREADS=1 MNIST_FOUNDATIONS_DATA='$(TEST_DATA)' $(BIN)/python -m pytest -q -n 2 --dist loadgroup tests

lab: $(READY) ## open JupyterLab on a copy of the notebooks in my_notebooks/, which is yours and never overwritten
	@mkdir -p my_notebooks
	@for f in nbs/[0-9a]*.ipynb nbs/glossary.md; do [ -e my_notebooks/$${f##*/} ] || cp $$f my_notebooks/; done
	$(BIN)/jupyter lab my_notebooks/00_data.ipynb

draw: $(READY) ## open the page on which you draw a digit and four nets read it
	@mkdir -p _run
	@$(BIN)/python -c "from mnist_foundations.drawing import open_page; open_page('_run/draw.html')"

progress: $(READY) ## which exercises you have solved in my_notebooks/, and a hint for the next ones
	@$(BIN)/python -m mnist_foundations.exercises my_notebooks

site: .venv/site ## build the web site in _site/, and the same as a book, from the notebooks as they are committed
	$(BIN)/python tools/site.py

experiments: $(READY) ## rebuild the committed results of long experiments: those of another version, and rows that are missing
	$(BIN)/python tools/experiments.py

bench: $(READY) ## time our code against its peers and the bare matrix multiplies, as ratios
	$(BIN)/python tools/experiments.py --bench

write: $(READY) ## run every chapter on all of MNIST and keep the outputs in nbs/, for a commit
	$(SERIES) --all --write
	$(SERIES) --write nbs/index.ipynb
	$(MAKE) sync

sync: $(READY) ## bring package, README and notebook metadata in step with nbs/
	$(BIN)/nbdev_export
	$(BIN)/python tools/metadata.py
	$(BIN)/nbdev_clean
	$(BIN)/python tools/readme.py

diff: $(READY) ## show what changed in the notebooks since the last commit, sources only
	$(BIN)/nbdiff -s HEAD nbs/

hooks: $(READY) ## for this clone: check each commit before it is made, and let git compare and merge notebooks cell by cell
	$(BIN)/pre-commit install
	git config diff.jupyternotebook.command '$(BIN)/git-nbdiffdriver diff -s'
	git config merge.jupyternotebook.driver '$(BIN)/git-nbmergedriver merge %O %A %B %L %P'

pins: $(READY) ## renew constraints.txt for Python 3.11 to 3.14 on Linux, macOS and Windows
	$(BIN)/python tools/pins.py
	$(BIN)/python tools/pins.py --check

clean: ## remove the environment and everything that a run leaves behind, except my_notebooks/
	rm -rf .venv _run _site build *.egg-info

$(READY): constraints.txt settings.ini setup.py pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here; install Python 3.11.5 to 3.14, or name one: make PYTHON=/its/path" >&2; exit 1; }
	@$(PYTHON) tools/before_setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

.venv/site: $(READY)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[site]'
	@touch $@

.PHONY: help run all test lab draw progress site experiments bench write sync diff hooks pins clean
