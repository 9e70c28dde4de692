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

from . import build
from .apiserver import ApiServer
from .conftest import built

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("[1-5]-*.yaml"))
OURS = {"1": "KM101", "2": "KM201", "3": "KM303", "4": "KM401", "5": "KM501"}
ISTIOCTL_LIVE = {"1": {"IST0101"}}
"""What it finds of the troubles themselves; of the second it misses the pods of the gateway."""


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


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_on_a_cluster(
    new_apiserver: Callable[..., ApiServer], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = new_apiserver()
    server.apply(file.read_text().replace("istio.io/v1\n", "istio.io/v1beta1\n"))
    objects = [each for each in yaml.safe_load_all(file.read_text()) if each]
    namespaces = {each["metadata"].get("namespace", "default") for each in objects}
    found = set[str]().union(*(istioctl("-n", name, server=server) for name in namespaces))
    number = file.stem[0]
    assert found == ISTIOCTL_LIVE.get(number, set())
    assert OURS[number] in ours(capsys, "-A", "--kubeconfig", str(server.kubeconfig))
