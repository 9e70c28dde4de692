"""`kubectl mesh compare`: what it reads, prints and exits with."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from kubectl_mesh.cli import main
from kubectl_mesh.commands import compare
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.sources.files import load

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
"""
RULES = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - name: first
    match:
    - uri: {prefix: /a}
      headers: {x-user: {exact: tester}}
    directResponse: {status: 201}
  - route: [{destination: {host: web}}]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KUBECONFIG", os.devnull)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    Path("service.yaml").write_text(SERVICE)
    Path("one.yaml").write_text(RULES)
    Path("two.yaml").write_text(RULES.replace("/a", "/b"))
    Path("broken.yaml").write_text(RULES + "  x: [")
    return tmp_path


ONE, TWO = "one.yaml,service.yaml", "two.yaml,service.yaml"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([ONE, ONE], 0),
        ([ONE, TWO], 1),
        ([".", "."], 3),
        ([ONE, "missing.yaml"], 3),
        (["-", "service.yaml,-"], 2),
        ([ONE, f"{ONE},broken.yaml"], 3),
        ([ONE, f"{TWO},broken.yaml"], 1),
        (["missing.yaml", "missing.yaml"], 3),
        ([ONE], 2),
        ([ONE, TWO, ONE], 2),
        ([ONE, ","], 2),
        ([], 2),
        ([ONE, TWO, "-f", "one.yaml"], 2),
        (["-f", "one.yaml"], 3),
    ],
)
def test_exit_status(arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *arguments]) == status
    assert "Traceback" not in capsys.readouterr().err


def test_the_table_names_request_decisions_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", ONE, TWO])
    output = capsys.readouterr().out
    assert output.startswith(
        """\
1. GET http://web.shop.svc.cluster.local/a
   header  x-user: tester
   from    pods of namespace default, port 80
   before  direct response {"status": 201} by VirtualService shop/web http[0] (first) match[0]
   after   web.shop.svc.cluster.local:80 by VirtualService shop/web http[1]
"""
    )
    assert output.endswith("\ndiffers (2 classes)\n")


def test_json_and_yaml_hold_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", ONE, TWO, "-o", "json"])
    document = json.loads(capsys.readouterr().out)
    main(["compare", ONE, TWO, "-o", "yaml"])
    assert yaml.safe_load(capsys.readouterr().out) == document
    assert document["verdict"] == "differs (2 classes)"
    first = document["classes"][0]
    assert first["request"] == {
        "method": "GET",
        "url": "http://web.shop.svc.cluster.local/a",
        "port": 80,
        "headers": {"x-user": "tester"},
        "curl": "curl -X GET -H 'x-user: tester' http://web.shop.svc.cluster.local/a",
    }
    assert first["before"]["rule"] == {
        "object": "VirtualService shop/web",
        "index": 0,
        "name": "first",
    }
    assert (first["before"]["match"], first["after"]["match"]) == (0, None)
    assert first["differsIn"] == ["directResponse", "destinations"]


def test_what_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", ONE, f"{ONE},broken.yaml"]) == 3
    assert "NOT COMPARED\n  broken.yaml:" in capsys.readouterr().out


def test_with_f_the_live_state_comes_before(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Snapshot(load(["service.yaml", "one.yaml"])[0])
    applied = Snapshot(load(["service.yaml", "two.yaml"])[0], before=live)
    monkeypatch.setattr(compare, "take_snapshot", lambda args, kinds: (applied, None))
    assert main(["compare", "-f", "two.yaml", "--no-headers"]) == 1
    assert "differs (" not in capsys.readouterr().out


def test_nothing_from_a_manifest_reaches_the_terminal_raw(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("two.yaml").write_text(RULES.replace("name: first", r'name: "\e[31m"'))
    Path("two.yaml").write_text(Path("two.yaml").read_text().replace("201", "202"))
    assert main(["compare", ONE, TWO]) == 1
    assert "\x1b" not in capsys.readouterr().out
