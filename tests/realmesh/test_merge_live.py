"""`kubectl mesh merge-vs` on the real mesh: Istio's own example of it, under load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from kubectl_mesh.cli import main

from .apiserver import ApiServer
from .debug_pages import debug_pages
from .finalizers import HOLD, hold, let_go_soon
from .manifests import prefix, service, to, virtual_service
from .mesh import Mesh
from .test_ingress import GATEWAY_AND_SUBSETS, INSIDE, WaysIn
from .test_repairs_live import serve

MYAPP = """\
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: myapp
spec:
  hosts:
  - "myapp.com" # or maybe "*" if you are testing without DNS using the ingress-gateway IP (e.g., http://1.2.3.4/hello)
  gateways:
  - myapp-gateway
  http:
  - match:
    - uri:
        prefix: /hello
    route:
    - destination:
        host: helloworld.default.svc.cluster.local
  - match:
    - uri:
        prefix: /other
    route:
    - destination:
        host: helloworld.default.svc.cluster.local
"""
HELLOWORLD = """\
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: helloworld
spec:
  hosts:
  - helloworld.default.svc.cluster.local
  http:
  - route:
    - destination:
        host: helloworld.default.svc.cluster.local
        subset: v1
"""
"""As Istio's text on the trouble has them; the second match stands for its dots."""

MERGED = """\
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: myapp
spec:
  hosts:
  - "myapp.com" # or maybe "*" if you are testing without DNS using the ingress-gateway IP (e.g., http://1.2.3.4/hello)
  - helloworld.default.svc.cluster.local
  gateways:
  - mesh
  - myapp-gateway
  http:
  - match:
    - uri:
        prefix: /hello
      gateways:
      - myapp-gateway
    route:
    - destination:
        host: helloworld.default.svc.cluster.local
        subset: v1
  - match:
    - uri:
        prefix: /other
      gateways:
      - myapp-gateway
    route:
    - destination:
        host: helloworld.default.svc.cluster.local
        subset: v1
  - match:
    - gateways:
      - mesh
    route:
    - destination:
        host: helloworld.default.svc.cluster.local
        subset: v1
"""
"""What Istio's text makes of them: hosts of both, both gateways, per-match gateways."""


def test_the_listing_itself(tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(f"{GATEWAY_AND_SUBSETS}---\n{MYAPP}---\n{HELLOWORLD}")
    assert (
        main(["merge-vs", "myapp", "helloworld", "--share-routes", "-f", str(file), "--write"]) == 0
    )
    assert file.read_text() == f"{GATEWAY_AND_SUBSETS}---\n{MERGED}"
    assert main(["merge-vs", "myapp", "--host", "myapp.com", "-f", str(file)]) == 2
    assert main(["merge-vs", "--host", "myapp.com", "-f", str(file), "--write"]) == 0


@pytest.fixture
def ways_in(mesh: Mesh) -> WaysIn:
    """Both VirtualServices in the mesh, myapp the older, and the ways to them."""
    found = WaysIn.to(mesh, "helloworld", 5000)
    mesh.apply(GATEWAY_AND_SUBSETS, MYAPP)
    mesh.next_second()
    mesh.apply(HELLOWORLD)
    mesh.settled()
    return found


@pytest.mark.parametrize("weighed", ["other", "young"])
def test_a_virtual_service_of_a_rollout_is_left_apart(
    new_apiserver: Callable[..., ApiServer], capsys: pytest.CaptureFixture[str], weighed: str
) -> None:
    """Argo Rollouts sets the weights of one of the VirtualServices, or of one beside them."""
    server = new_apiserver()
    serve(server, "Rollout")
    steps = {"steps": [{"setWeight": 5}], "stableService": "web", "canaryService": "web-new"}
    traffic = {"istio": {"virtualService": {"name": weighed, "routes": ["api"]}}}
    rollout = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"strategy": {"canary": {**steps, "trafficRouting": traffic}}},
    }
    server.create(
        [
            service("web", {"name": "http", "port": 80}),
            rollout,
            virtual_service("old", "web", to("web", name="rest")),
            virtual_service("young", "web", to("web", prefix("/api"), name="api")),
        ]
    )
    flags = ("-n", "default", "--kubeconfig", str(server.kubeconfig))
    status = main(["merge-vs", "old", "young", "--allow-differences", *flags])
    told = "Rollout default/web sets the weights of VirtualService default/young"
    assert (status, told in capsys.readouterr().err) == (
        (3, True) if weighed == "young" else (1, False)
    )


def test_under_load_no_request_fails(
    mesh: Mesh, ways_in: WaysIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Preview, apply, undo: no 5xx, no 404, and from inside never anything but v1."""

    def command(*arguments: str) -> str:
        capsys.readouterr()
        kubeconfig = ["--kubeconfig", str(mesh.server.kubeconfig)]
        status = main([*arguments, *kubeconfig])
        assert status == (0 if "--yes" in arguments else 1), capsys.readouterr()
        return capsys.readouterr().out

    merge = ("merge-vs", "myapp", "helloworld", "--share-routes")
    with (
        debug_pages(mesh.istiod) as url,
        mesh.load(ways_in.client, INSIDE, "/hello") as inside,
        mesh.load(ways_in.ingress, "myapp.com", "/hello") as outside,
    ):
        changing = ("--yes", "--journal", str(tmp_path), "--istiod-url", url)
        outside.more(200)
        assert {version for _, version in outside.counts} == {"v1", "v2"}
        preview = command(*merge)
        assert "intended: the gateway's route takes the subset of the mesh's rules" in preview
        assert "NOT INTENDED" not in preview
        said = command(*merge, "--apply", *changing)
        assert "all 2 proxies have it" in said
        mesh.settled()
        assert {version for _, version in outside.fresh(200)} == {"v1"}
        assert names(mesh) == ["myapp"]
        live = mesh.server.kubectl("get", "virtualservice", "myapp", "-o", "yaml").stdout
        assert yaml.safe_load(live)["spec"] == yaml.safe_load(MERGED)["spec"]
        said = command("undo", *changing)
        assert "all 2 proxies have it" in said
        mesh.settled()
        assert {version for _, version in outside.fresh(200)} == {"v1", "v2"}
        assert names(mesh) == ["helloworld", "myapp"]
    assert inside.counts.keys() == {(200, "v1")}
    assert outside.counts.keys() == {(200, "v1"), (200, "v2")}


def test_a_proxy_that_acknowledges_nothing(
    mesh: Mesh, ways_in: WaysIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The merge stops with both there, and goes on once the proxy does."""
    with debug_pages(mesh.istiod) as url:
        changing = (
            *("--yes", "--journal", str(tmp_path), "--istiod-url", url, "--timeout", "3s"),
            *("--kubeconfig", str(mesh.server.kubeconfig)),
        )
        with ways_in.client.frozen():
            status = main(["merge-vs", "myapp", "helloworld", "--apply", *changing])
            out, err = capsys.readouterr()
            assert status == 3
            assert f"not {ways_in.client.identity.name}.default" in err
            assert "1 of 2 steps are made: kubectl mesh undo --finish" in err
            assert "waiting: 1 of 2 proxies have all that was sent to them" in out
            assert names(mesh) == ["helloworld", "myapp"]
        assert ways_in.from_inside(INSIDE) == {"v1"}
        assert main(["undo", "--finish", *changing, "--timeout", "1m"]) == 0
        assert names(mesh) == ["myapp"]
    mesh.settled()
    assert ways_in.from_inside(INSIDE) == {"v1"}


@pytest.mark.parametrize("way", [("undo", "--finish"), ("undo",)])
def test_the_one_that_goes_has_a_finalizer(
    mesh: Mesh,
    ways_in: WaysIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    way: tuple[str, ...],
) -> None:
    path = mesh.server.path(yaml.safe_load(HELLOWORLD))
    hold(mesh.server, path)
    with (
        debug_pages(mesh.istiod) as url,
        mesh.load(ways_in.client, INSIDE, "/hello") as inside,
    ):
        changing = (
            *("--yes", "--journal", str(tmp_path), "--istiod-url", url),
            *("--kubeconfig", str(mesh.server.kubeconfig)),
        )
        merge = ("merge-vs", "myapp", "helloworld", "--apply", *changing)
        assert main([*merge, "--timeout", "2s"]) == 3
        said = capsys.readouterr().err
        assert f"VirtualService default/helloworld is not gone: finalizer {HOLD}" in said
        assert "1 of 2 steps are made; the deletion of VirtualService default/helloworld" in said
        assert main(merge) == 3
        said = capsys.readouterr().err
        assert "default/helloworld is being deleted: wait until it is gone" in said
        with let_go_soon(mesh.server, path):
            assert main([*way, *changing]) == 0
        mesh.settled()
        assert names(mesh) == (["helloworld", "myapp"] if way == ("undo",) else ["myapp"])
        if way == ("undo",):
            with let_go_soon(mesh.server, path):
                mesh.server.delete(HELLOWORLD)
    assert 503 not in {status for status, _ in inside.counts}


def names(mesh: Mesh) -> list[str]:
    listed = mesh.server.kubectl("get", "virtualservices", "-o", "name").stdout.split()
    return sorted(each.rpartition("/")[2] for each in listed)
