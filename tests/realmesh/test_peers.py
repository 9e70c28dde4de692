"""What the README says of istioctl analyze beside kubectl mesh, tried on our examples."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from kubectl_mesh.cli import main
from kubectl_mesh.rules import RULES

from . import build
from .apiserver import ApiServer
from .conftest import built

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("[1-5]-*.yaml"))
OURS = {"1": "KM101", "2": "KM201", "3": "KM303", "4": "KM401", "5": "KM501"}
ISTIOCTL_LIVE = {"1": {"IST0101"}}
"""What it finds of the troubles themselves; of the second it misses the pods of the gateway."""
SAME = {"KM102": "IST0173", "KM104": "IST0174"}
"""Rules whose own bad example it finds, too, by its newest analyzers."""


def istioctl(*arguments: str | Path, server: ApiServer | None = None) -> set[str]:
    """The codes that `istioctl analyze` finds, of VirtualServices, Services and ConfigMaps."""
    command = [built(lambda: build.binary("istioctl")), "analyze", *arguments]
    environment = server.environment() if server else None
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    kinds = r"\((?:VirtualService|Service|ConfigMap|DestinationRule) "
    return set(re.findall(rf"\[(IST\d+)\] {kinds}", done.stdout + done.stderr))


def ours(capsys: pytest.CaptureFixture[str], *arguments: str) -> set[str]:
    main(["doctor", *arguments, "-o", "json"])
    return {each["code"] for each in json.loads(capsys.readouterr().out)["findings"]}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_on_manifests(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert istioctl("--use-kube=false", file) == set()
    assert ours(capsys, "-f", str(file)) == {OURS[file.stem[0]]}


def applied(server: ApiServer, text: str) -> set[str]:
    """Applies manifests, with a pod of each workload; returns their namespaces."""
    server.apply(text.replace("istio.io/v1\n", "istio.io/v1beta1\n"))
    objects = [each for each in yaml.safe_load_all(text) if each]
    for item in objects:
        if "template" in item.get("spec", {}):
            metadata = {**item["metadata"], **item["spec"]["template"]["metadata"]}
            metadata["name"] += "-0"
            spec = item["spec"]["template"]["spec"]
            server.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return {each["metadata"].get("namespace", "default") for each in objects}


def live(server: ApiServer, namespaces: set[str]) -> set[str]:
    return set[str]().union(*(istioctl("-n", name, server=server) for name in namespaces))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_on_a_cluster(
    new_apiserver: Callable[..., ApiServer], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = new_apiserver()
    namespaces = applied(server, file.read_text())
    number = file.stem[0]
    assert live(server, namespaces) == ISTIOCTL_LIVE.get(number, set())
    assert OURS[number] in ours(capsys, "-A", "--kubeconfig", str(server.kubeconfig))


@pytest.mark.parametrize("code", SAME)
def test_what_both_find(
    new_apiserver: Callable[..., ApiServer], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a cluster alone: of manifests istioctl finds neither."""
    server = new_apiserver()
    rule = next(rule for rule in RULES if rule.code == code)
    assert SAME[code] in rule.equivalents
    assert live(server, applied(server, rule.bad)) == {SAME[code]}
    assert code in ours(capsys, "-A", "--kubeconfig", str(server.kubeconfig))
    assert live(server, applied(server, rule.good)) == set()


def test_the_readme_gives_these_figures() -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    figures = f"none of the {len(EXAMPLES)} in manifests, and {len(ISTIOCTL_LIVE)} of them in a"
    print(figures)
    assert f"istioctl {build.NEWEST} was run on our examples: it finds {figures}" in text
