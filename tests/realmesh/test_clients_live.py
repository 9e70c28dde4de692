"""`compare` on a real API server whose pods show no sidecar."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kubectl_mesh.cli import main

from .apiserver import ApiServer

RULES = """\
apiVersion: v1
kind: Service
metadata: {{name: shop, namespace: {namespace}}}
spec: {{selector: {{app: shop}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {{name: inside, namespace: {namespace}}}
spec:
  hosts: [shop]
  http:
  - match: [{{uri: {{prefix: /x}}}}, {{uri: {{prefix: /x/}}}}]
    rewrite: {{uri: /}}
    route: [{{destination: {{host: shop}}}}]
  - route: [{{destination: {{host: shop}}}}]
"""


def test_clients_are_assumed_where_none_is_seen(
    apiserver: ApiServer,
    namespace: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(apiserver.kubeconfig))
    monkeypatch.setenv("COLUMNS", "200")
    manifests = RULES.format(namespace=namespace)
    apiserver.apply(manifests)
    changed = tmp_path / "changed.yaml"
    inside = next(
        item for item in yaml.safe_load_all(manifests) if item["metadata"]["name"] == "inside"
    )
    inside["spec"]["http"][0]["match"].reverse()
    changed.write_text(yaml.safe_dump(inside))

    assert main(["compare", "-f", str(changed), "-n", namespace]) == 1
    out = capsys.readouterr().out
    assert " as // by " in out
    assert " as / by " in out
    assert "Compared: sidecars in every namespace (assumed: no pod with a sidecar is seen)\n" in out
    assert "differs (1 class)" in out
