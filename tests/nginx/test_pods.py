"""Which nginx reads which ConfigMaps."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.nginx.pods import NginxPod, nginx_pods
from kubectl_mesh.sources.files import load

CONFIG_MAPS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: site}
data:
  a.conf: "server { listen 80; location / { proxy_pass http://a; } }"
  b.conf: "server { listen 81; location / { proxy_pass http://b; } }"
  notes.txt: nothing to see
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
data:
  _empty.conf:
  a.conf: "server { listen 82; location / { proxy_pass http://c; } }"
---
"""


@pytest.fixture
def pods(tmp_path: Path):
    def read(*workloads: str) -> list[NginxPod]:
        file = tmp_path / "input.yaml"
        file.write_text(CONFIG_MAPS + "\n---\n".join(workloads))
        resources, unreadable = load([str(file)])
        assert not unreadable
        return list(nginx_pods(Snapshot(resources)))

    return read


def pod(containers: str, volumes: str, init: str = "[]") -> str:
    return f"""\
apiVersion: v1
kind: Pod
metadata: {{name: web}}
spec:
  initContainers: {init}
  containers: {containers}
  volumes: {volumes}
"""


def targets(found: NginxPod) -> list[str]:
    return sorted(proxy.target for proxy in found.config.proxies)


NGINX = "[{name: n, image: 'nginx:1.25', volumeMounts: [%s]}]"
VOLUME = "[{name: v, configMap: {name: site%s}}]"


def test_a_config_map_that_nothing_mounts_has_no_workload(pods) -> None:
    found = pods()
    assert [(each.workload, each.image, targets(each)) for each in found] == [
        (None, None, ["http://a", "http://b"]),
        (None, None, ["http://c"]),
    ]


def test_items_choose_and_rename_the_keys(pods) -> None:
    volume = VOLUME % ", items: [{key: b.conf, path: conf.d/renamed.conf}]"
    found = pods(pod(NGINX % "{name: v, mountPath: /etc/nginx}", volume))[0]
    assert targets(found) == ["http://b"]
    assert [key for _, key in found.files.values()] == ["b.conf"]
    assert list(found.files) == ["renamed.conf"]


def test_a_sub_path_chooses_one_file(pods) -> None:
    mount = "{name: v, mountPath: /etc/nginx/conf.d/default.conf, subPath: a.conf}"
    found = pods(pod(NGINX % mount, VOLUME % ""))[0]
    assert targets(found) == ["http://a"]
    assert list(found.files) == ["default.conf"]


def test_files_of_one_name_from_two_config_maps_are_both_read(pods) -> None:
    volumes = "[{name: v, configMap: {name: site}}, {name: w, configMap: {name: other}}]"
    mounts = "{name: v, mountPath: /one}, {name: w, mountPath: /two}"
    (found,) = pods(pod(NGINX % mounts, volumes))
    assert targets(found) == ["http://a", "http://b", "http://c"]
    assert {config_map.name for config_map, _ in found.files.values()} == {"site", "other"}


def test_of_several_containers_the_one_that_is_nginx_counts(pods) -> None:
    mounts = "volumeMounts: [{name: v, mountPath: /x}]"
    containers = (
        f"[{{name: reloader, image: 'example.com/reload:1', {mounts}}},"
        f" {{name: n, image: 'nginx:1.27.1', {mounts}}}]"
    )
    found = pods(pod(containers, VOLUME % ""))[0]
    assert found.image == "nginx:1.27.1"


def test_an_init_container_hands_the_files_on_to_the_only_nginx(pods) -> None:
    init = "[{name: i, image: busybox, volumeMounts: [{name: v, mountPath: /in}]}]"
    found = pods(pod(NGINX % "", VOLUME % "", init))[0]
    assert (found.image, targets(found)) == ("nginx:1.25", ["http://a", "http://b"])


def test_a_config_map_of_another_namespace_is_not_mounted(pods) -> None:
    workload = pod(NGINX % "{name: v, mountPath: /x}", VOLUME % "")
    found = pods(workload.replace("{name: web}", "{name: web, namespace: elsewhere}"))
    assert [each.workload for each in found] == [None, None]
