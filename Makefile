# Two commands do everything: `make demo` and `make test`. `make docs` builds the
# documentation into docs/_build/html, and `make fuzz ARGS=-max_total_time=60` looks for
# input that is not expected. Each makes the virtual environment .venv first, with the
# versions in constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test docs lint fuzz clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

demo: $(VENV)/installed
	$(BIN)/python examples/plot_english_french.py $(ARGS)

# A core for each of the two: threads that wait for each other take several times as long.
test: $(VENV)/installed lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=2 --dist=worksteal --cov $(ARGS)

docs: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/sphinx-build -b html -W --keep-going $(ARGS) docs docs/_build/html

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fuzz: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt atheris
	$(BIN)/python tests/fuzz.py load $(ARGS)
	$(BIN)/python tests/fuzz.py input $(ARGS)

clean:
	rm -rf $(VENV)
