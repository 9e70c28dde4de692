"""What holds for every rule, and for the imports of the whole package."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import kubectl_mesh
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.schema import KINDS
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules import BY_CODE, RULES
from kubectl_mesh.rules.rule import Rule
from kubectl_mesh.sources.config import find_mesh_config
from kubectl_mesh.sources.files import load

HERE = Path(__file__).parent
PACKAGE = Path(kubectl_mesh.__file__).parent
MODULES = [file.stem for file in (PACKAGE / "rules").glob("km*.py")]
WITHOUT_CHECK = {"KM900", "KM999"}
"""What the runner reports itself: unreadable input, a crash."""
COMPARING = {"KM105", "KM106"}
"""Rules that compare manifests with the cluster below them: no manifest shows them by itself."""
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)


def test_codes_are_unique_and_in_order() -> None:
    codes = [rule.code for rule in RULES]
    assert codes == sorted(set(codes))
    assert all(re.fullmatch(r"KM[1-9]\d\d", code) for code in codes)
    assert list(BY_CODE) == codes


def test_names_are_unique_and_in_kebab_case() -> None:
    names = [rule.name for rule in RULES]
    assert [name for name, times in Counter(names).items() if times > 1] == []
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) for name in names)


def test_every_module_is_registered_under_its_code() -> None:
    assert sorted(name.partition("_")[0] for name in MODULES) == [
        rule.code.lower() for rule in RULES
    ]


@each_rule
def test_a_rule_is_documented(rule: Rule) -> None:
    assert rule.summary.endswith(".")
    assert "\n" not in rule.summary
    assert len(rule.summary) <= 120
    assert rule.explanation.strip()
    assert rule.fix.strip()
    assert rule.reference.startswith("https://")
    shown = rule.code not in WITHOUT_CHECK | COMPARING
    assert bool(rule.bad) == shown
    assert bool(rule.good) == shown


@each_rule
def test_equivalents_are_codes_of_the_peers(rule: Rule) -> None:
    assert all(re.fullmatch(r"(IST|KIA)\d{4}", code) for code in rule.equivalents)
    assert len(set(rule.equivalents)) == len(rule.equivalents)


@each_rule
def test_declared_kinds_are_kinds_that_the_model_reads(rule: Rule) -> None:
    declared = (*rule.needs, *rule.uses)
    assert len(set(declared)) == len(declared)
    assert set(declared) <= set(KINDS)


@each_rule
def test_a_rule_has_bad_and_good_manifests(rule: Rule) -> None:
    shown = rule.code not in WITHOUT_CHECK | COMPARING
    assert bool(list((HERE / rule.code).glob("bad*.yaml"))) == shown
    assert bool(list((HERE / rule.code).glob("good*.yaml"))) == shown


def test_there_are_no_manifests_of_an_unknown_rule() -> None:
    assert {folder.name for folder in HERE.glob("KM*")} <= set(BY_CODE)


class Recorder(Snapshot):
    """A snapshot that notes in `asked` which kinds it was asked for."""

    def __init__(self, file: Path, read: set[str], before: Snapshot | None = None) -> None:
        resources, unreadable = load([str(file)])
        config = find_mesh_config(resources)
        super().__init__(resources, config, unreadable=unreadable, before=before)
        self.asked = read

    def of(self, kind: str) -> tuple[Resource, ...]:
        self.asked.add(kind)
        return super().of(kind)

    def get(self, kind: str, namespace: str, name: str) -> Resource | None:
        self.asked.add(kind)
        return super().get(kind, namespace, name)


@each_rule
def test_a_rule_reads_the_kinds_that_it_declares(rule: Rule, tmp_path: Path) -> None:
    read: set[str] = set()
    shown = BY_CODE["KM101"] if rule.code in COMPARING else rule
    (tmp_path / "bad.yaml").write_text(shown.bad)
    (tmp_path / "good.yaml").write_text(shown.good)
    for manifest in (*tmp_path.glob("*.yaml"), *(HERE / rule.code).glob("*.yaml")):
        list(rule.check(Recorder(manifest, read)))
    for below, above in (("bad", "good"), ("good", "bad")):
        before = Recorder(tmp_path / f"{below}.yaml", read)
        list(rule.check(Recorder(tmp_path / f"{above}.yaml", read, before)))
    declared = {*rule.needs, *rule.uses}
    assert read - declared == set(), "read, and neither in needs nor in uses"
    assert declared - read == set(), "declared, and read on none of its manifests"


_MODEL = {"routing", "mesh", "errors"}
_CHANGES = {"sources", "rules", "proof", "kube"} | _MODEL
LAYERS = {
    "errors": set[str](),
    "term": set[str](),
    "mesh": {"errors"},
    "kube": {"errors"},
    "sources": {"mesh", "kube", "errors"},
    "routing": {"mesh", "errors"},
    "nginx": {"mesh", "errors"},
    "proof": _MODEL,
    "rules": {"proof", "nginx"} | _MODEL,
    "changes": _CHANGES,
    "fixing": {"changes"} | _CHANGES,
    "merging": {"changes", "fixing"} | _CHANGES,
    "rollout": {"changes"} | _CHANGES,
    "report": {"changes", "rules", "proof", "term"} | _MODEL,
    "flags": {"mesh", "errors"},
    "commands": {"flags", "report", "changes", "fixing", "merging", "rollout", "term"} | _CHANGES,
    "completion": {"commands", "changes", "sources", "rules", "flags", "term"},
    "cli": {"completion", "commands", "flags", "errors", "term"},
    "__main__": {"cli"},
    "api": {"fixing", "changes", "report"} | _CHANGES,
    "__init__": {"api", "errors"},
}
"""Which parts of the package each part may import, besides itself."""

KNOWS_RULES = {"rules/__init__.py", "rules/examine.py", "report/junit.py"}
"""What lists the rules, and what tells unreadable input (KM900) apart."""

ONLY_IMPORTER = {"kubernetes": "kube/config.py", "tabulate": "report/table.py"}


def imports(file: Path) -> Iterator[str]:
    """The dotted names that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and re.fullmatch(
            r"kubectl_mesh(\.\w+)+", str(node.value)
        ):
            yield str(node.value)


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_imports_go_one_way(file: Path) -> None:
    place = file.relative_to(PACKAGE)
    layer = place.parts[0].removesuffix(".py")
    parts = {name.split(".")[1] for name in imports(file) if name.startswith("kubectl_mesh.")} - {
        "__version__"
    }
    assert parts - LAYERS[layer] - {layer} == set()
    for package, importer in ONLY_IMPORTER.items():
        if any(name.split(".")[0] == package for name in imports(file)):
            assert place.as_posix() == importer


def test_flags_are_turned_into_values_at_once() -> None:
    """Only what runs a command, and `of` of the values, is given all that argparse has found."""
    takers = {
        node.name
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        for argument in ast.walk(node.args)
        if isinstance(argument, ast.arg) and argument.annotation
        if ast.unparse(argument.annotation) == "argparse.Namespace"
    }
    assert takers == {"run", "_run", "of"}


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.stem)
def test_no_rule_takes_anything_from_another(file: Path) -> None:
    """What rules share is in rules/shared/."""
    if file.relative_to(PACKAGE).as_posix() not in KNOWS_RULES:
        found = [name for name in imports(file) if name.startswith("kubectl_mesh.rules.km")]
        assert found == []
