# Two commands to know:  make lab   and   make image PROMPT="a dog with glasses"
# Everything goes into .venv, at the versions of constraints.txt, by plain pip: its index and proxy settings
# (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, HTTPS_PROXY, pip.conf) are respected.

PYTHON ?= python3
PROMPT  = a dog with glasses
OUT     = image.png
SEED    = 1

JOBS    = 2

# PYTHON=python3.13 has an environment of its own, .venv-3.13; any other name shares .venv.
VENV := $(if $(filter python3.%,$(PYTHON)),.venv-$(PYTHON:python%=%),.venv)
PY := $(VENV)/bin/python
# Tests run in JOBS processes of one thread each, which is quicker than one process of several threads.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadfile

help:
	@echo 'make lab                 open the notebooks in JupyterLab'
	@echo 'make image PROMPT="..."  generate an image and save it as image.png (OUT=other.png, SEED=2)'
	@echo 'make check               lint, types, imports and the tests of the core: the quick checks'
	@echo 'make test                the same, all other tests, and every notebook from top to bottom'
	@echo 'make test-long           the search for bad input and broken files, for much longer'
	@echo 'make test-browser        every notebook and widget in JupyterLab in a browser; needs chromium'
	@echo 'make test-versions       the tests and notebooks with old packages, Colab'"'"'s and the newest'
	@echo 'make test-wheel          build wheel and sdist, and generate an image with the wheel alone'
	@echo 'make site                build the web site in build/site: live page, notebooks, docs; needs Node'
	@echo 'make test-site           build the site, and test the live page in a browser; needs Node and chromium'
	@echo 'make class               students'"'"' copies, teacher'"'"'s booklet, slides and handout in build/class; needs Node'
	@echo 'make address URL=...     move links, badges and setup cells to a fork'"'"'s address, and back'
	@echo 'make format              format code and notebooks, and repair what lint can repair'
	@echo 'make clean               remove caches and build leftovers (make distclean: .venv too)'
	@echo
	@echo 'The first run installs into .venv; PYTHON=python3.13 runs another Python (3.11 or newer), in .venv-3.13.'

# JupyterLab refuses to run as root (in a container, say) unless told.
lab: $(VENV)/.lab
	$(PY) -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_FLAGS) notebooks

# The words go through the environment, unexpanded: quotes, apostrophes and dollars are safe in a prompt.
override PROMPT := $(value PROMPT)
override OUT := $(value OUT)
image: export LDM_PROMPT = $(PROMPT)
image: export LDM_OUT = $(OUT)
image: $(VENV)/.core
	@$(VENV)/bin/ldm-course txt2img --seed $(SEED) -o "$$LDM_OUT" -- "$$LDM_PROMPT"

lint: $(VENV)/.test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

check: lint
	$(PYTEST) -m "not slow" $(addprefix --ignore=tests/,evaluate io lab robustness train)

test: lint
	$(PYTEST)
	$(PYTEST) --nbval-lax --nbval-current-env notebooks

# New random cases each time; those that failed are stored in .hypothesis and tried again first.
test-long: $(VENV)/.test
	HYPOTHESIS_PROFILE=long KILLS=20 $(PY) -m pytest tests/robustness

# The live page, the notebooks and the docs. Nothing of it is committed: it follows from the weights and the notebooks.
site: $(VENV)/.test web/node_modules/.package-lock.json
	$(VENV)/bin/ldm-course export onnx --attention -o build/onnx
	$(VENV)/bin/ldm-course export onnx --attention --int8 -o build/onnx-small
	PYTHON=$(abspath $(PY)) npm --prefix web run build
	rm -rf build/site
	$(PY) -m sphinx -q -W -c docs -b html . build/site
	cp -r web/dist build/site/live
	mkdir -p build/site/_static/mathjax/output/chtml/fonts
	cp web/node_modules/mathjax/es5/tex-chtml.js build/site/_static/mathjax
	cp -r web/node_modules/mathjax/es5/output/chtml/fonts/woff-v2 build/site/_static/mathjax/output/chtml/fonts

web/node_modules/.package-lock.json: web/package-lock.json
	npm --prefix web ci --no-fund --no-audit

# For a teacher: nothing is run, all of it comes from the committed notebooks.
class: $(VENV)/.lab docs/class/node_modules/.package-lock.json
	$(PY) -m ldm_course.classroom.kit

docs/class/node_modules/.package-lock.json: docs/class/package-lock.json
	npm --prefix docs/class ci --no-fund --no-audit

# The course at another address, a fork's:  make address URL=https://github.com/you/your-fork
# (pyproject.toml changes, so the stamp is not asked whether it is new: nothing need be installed for the way back.)
address:
	@test -e $(VENV)/.core || $(MAKE) $(VENV)/.core
	@$(PY) -m ldm_course.classroom.address "$(URL)"

# Some of the tests:  make test-site TESTS="-k offline"
test-site: $(VENV)/.browser site
	PYTHON=$(abspath $(PY)) npm --prefix web test
	$(PY) -m pytest --confcutdir=tests/site tests/site $(TESTS)

# Some of the tests:  make test-browser TESTS="-k 05"
test-browser: $(VENV)/.browser
	$(PY) -m pytest --confcutdir=tests/browser tests/browser $(TESTS)

# One set only:  make test-versions VERSIONS=colab
test-versions:
	VERSIONS="$(VERSIONS)" TESTS="$(TESTS)" $(PYTHON) tests/versions/run.py

# The wheel is built from the sdist and run outside this folder.
test-wheel:
	rm -rf dist build/alone
	$(PYTHON) -m venv build/alone
	build/alone/bin/python -m pip install --quiet build
	build/alone/bin/python -m build --outdir dist .
	build/alone/bin/python -m pip install --quiet --no-compile -c constraints.txt dist/*.whl
	cd build/alone && bin/ldm-course txt2img "a dog with glasses" --seed 1 -o wheel.png

format: $(VENV)/.test
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf build dist test-results *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path './.venv*' -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .venv-*

# Installation. The stamps .core, .lab, .test and .browser say what .venv holds. They are written last, so an
# interrupted installation is resumed; while they are newer than the two files, nothing is installed and no network
# is needed. (--no-compile: Python compiles only what it imports.)
$(VENV)/.core: STAMPS = $(VENV)/.core
$(VENV)/.lab:  STAMPS = $(VENV)/.core $(VENV)/.lab
$(VENV)/.test: STAMPS = $(VENV)/.core $(VENV)/.lab $(VENV)/.test
$(VENV)/.browser: STAMPS = $(VENV)/.core $(VENV)/.lab $(VENV)/.test $(VENV)/.browser
$(VENV)/.lab:  EXTRAS = [lab,train]
$(VENV)/.test: EXTRAS = [lab,train,test]
$(VENV)/.browser: EXTRAS = [lab,train,test,browser]
$(VENV)/.core $(VENV)/.lab $(VENV)/.test $(VENV)/.browser: pyproject.toml constraints.txt $(PY)
	@$(PY) -m pip --version >/dev/null 2>&1 || { \
	  command -v "$(PYTHON)" >/dev/null || { echo "$$NO_PYTHON" >&2; exit 1; }; \
	  "$(PYTHON)" -c "$$CHECK_PYTHON" && "$(PYTHON)" -m venv --clear $(VENV); }
	$(PY) -m pip install --no-compile -c constraints.txt -e ".$(EXTRAS)"
	@touch $(STAMPS)

# No recipe: where .venv is missing, or the Python that it points to, the stamps count as out of date.
$(PY):

export NO_PYTHON = There is no '$(PYTHON)': install Python 3.11 or newer, or name one with PYTHON=...
define CHECK_PYTHON
import sys
if sys.version_info < (3, 11):
    sys.exit("'$(PYTHON)' is older than Python 3.11: install a newer one, or name it with PYTHON=...")
try:
    import ensurepip, venv
except ImportError:
    sys.exit("'$(PYTHON)' lacks the venv module: install it (Debian, Ubuntu: apt install python3-venv).")
endef
export CHECK_PYTHON

.PHONY: help lab image lint check test test-long class address site test-site test-browser test-versions test-wheel format clean distclean
