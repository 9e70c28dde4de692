"""Mutated manifests: types swapped, fields dropped, deep nesting, odd Unicode. Nothing crashes.

`KUBECTL_MESH_MUTATIONS` sets how many are tried; CI tries 10,000.
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_mesh.cli import main
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.report import FORMATS, Layout
from kubectl_mesh.rules import RULES
from kubectl_mesh.rules.examine import examine
from kubectl_mesh.sources.config import find_mesh_config
from kubectl_mesh.sources.files import load

HERE = Path(__file__).parent
TRIES = int(os.environ.get("KUBECTL_MESH_MUTATIONS", "300"))
FILES = sorted(
    file
    for folder in ("troubles", "rules", "../examples")
    for file in (HERE / folder).rglob("*.yaml")
    if "broken-indentation.bad" not in file.name
)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    10**30,
    1.5,
    "",
    "*",
    "*.",
    ".",
    "/",
    "a/b/c",
    "mesh",
    "~",
    "\u202e\u0000x".replace("\u0000", ""),
    "\U0001f600" * 3,
    "x" * 5000,
    "null",
    "${x}",
    [],
    {},
    [[]],
    [None],
    {"": ""},
    {"a": None},
    [{}],
)


def mutate(value: Any, random: random.Random) -> Any:
    """`value` with one place of it changed."""
    places: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            places += [(node, key) for key in node]
            pending += node.values()
        elif isinstance(node, list):
            places += [(node, index) for index in range(len(node))]
            pending += node
    if not places:
        return value
    owner, key = random.choice(places)
    change = random.randrange(6)
    if change == 0:
        del owner[key]
    elif change == 1:
        owner[key] = copy.deepcopy(random.choice(ODD))
    elif change == 2:
        owner[key] = [owner[key]]
    elif change == 3:
        owner[key] = {"x": owner[key]}
    elif change == 4:
        nested: Any = owner[key]
        for _ in range(random.randrange(1, 120)):
            nested = [nested] if random.random() < 0.5 else {"spec": nested}
        owner[key] = nested
    else:
        other_owner, other_key = random.choice(places)
        owner[key] = copy.deepcopy(other_owner[other_key])
    return value


@pytest.fixture(scope="module")
def manifests() -> list[list[Any]]:
    return [
        [document for document in yaml.load_all(file.read_text(), LOADER) if document]
        for file in FILES
    ]


@given(seed=st.integers(0, 2**64))
@settings(max_examples=TRIES)
def test_no_mutation_makes_the_doctor_or_fix_crash(
    seed: int, manifests: list[list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = random.Random(seed)
    documents = copy.deepcopy(data.choice(manifests))
    for _ in range(data.randrange(1, 5)):
        documents = mutate(documents, data)
    file = tmp_path_factory.getbasetemp() / "mutated.yaml"
    documents = documents if isinstance(documents, list) else [documents]
    file.write_text(yaml.dump_all(documents, Dumper=DUMPER))
    resources, unreadable = load([str(file)])
    assert all(isinstance(resource, Resource) for resource in resources)
    report = examine(Snapshot(resources, find_mesh_config(resources), unreadable=unreadable), RULES)
    assert not report.crashes, report.crashes[0]
    text = FORMATS[data.choice(list(FORMATS))](report, Layout())
    assert "\u202e" not in text
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        assert main(["fix", "-f", str(file), "--unsafe", "--write"]) in (0, 1, 3)
    assert "it is not what it was" not in told.getvalue()
