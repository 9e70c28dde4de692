PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test realmesh realmesh-1.22 mesh archive
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/kubectl-mesh doctor -f examples --fail-on never

test: $(VENV)/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python $(if $(COVERAGE),-m slipcover --source kubectl_mesh --skip-covered) -m pytest

archive: $(VENV)/installed
	$(BIN)/python -m krew.build

realmesh: $(VENV)/installed-for-realmesh
	$(BIN)/python -m tests.realmesh build
	KUBECTL_MESH_REQUIRE_REALMESH=1 $(BIN)/python -m pytest tests/realmesh

realmesh-1.22: $(VENV)/installed-for-realmesh
	$(BIN)/python -m tests.realmesh build
	KUBECTL_MESH_ISTIO=1.22 KUBECTL_MESH_REQUIRE_REALMESH=1 \
		$(BIN)/python -m pytest -m each_istio tests/realmesh

mesh: $(VENV)/installed-for-realmesh
	$(BIN)/python -m tests.realmesh build
	$(BIN)/python -m tests.realmesh shell

$(VENV)/installed: EXTRAS =
$(VENV)/installed-for-tests: EXTRAS = [test]
$(VENV)/installed-for-realmesh: EXTRAS = [test,realmesh]

$(VENV)/installed $(VENV)/installed-for-tests $(VENV)/installed-for-realmesh: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.$(EXTRAS)'
	@touch $@
