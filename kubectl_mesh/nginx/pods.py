"""Which nginx reads which ConfigMaps.

A pod sees a ConfigMap through a volume (`configMap`, or a source of `projected`), whose `items`
choose and rename keys, and through a volumeMount, whose `subPath` chooses one file of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.snapshot import Snapshot, once_per_snapshot
from kubectl_mesh.mesh.workloads import Workload
from kubectl_mesh.nginx.config import NginxConfig, is_nginx_image, is_official_image, read

Files = dict[str, tuple[Resource, str]]
"""Files by their name in the container, each with its ConfigMap and key."""

_MARK = "proxy_pass"
_MAIN = "/etc/nginx/nginx.conf"


@dataclass(frozen=True, slots=True, eq=False)
class NginxPod:
    """nginx as one container runs it, set up by ConfigMaps.

    `workload` is None for a ConfigMap that nothing in the snapshot mounts; `image` is None there,
    and where it cannot be told which container reads the files. The keys in `config` are names of
    `files`. With `stock_main` the nginx.conf is the one of nginx's official image, so that nothing
    outside of `files` sets a header.
    """

    workload: Workload | None
    image: str | None
    config: NginxConfig
    files: Mapping[str, tuple[Resource, str]]
    stock_main: bool = False


@once_per_snapshot
def nginx_pods(snapshot: Snapshot) -> tuple[NginxPod, ...]:
    """Every nginx with a proxy_pass in a ConfigMap, and every such ConfigMap without a reader."""
    return tuple(_nginx_pods(snapshot.of("ConfigMap"), snapshot.workloads.owners))


def _nginx_pods(
    config_maps: Iterable[Resource], workloads: Iterable[Workload]
) -> Iterator[NginxPod]:
    by_namespace: dict[str, dict[str, Resource]] = defaultdict(dict)
    unread: dict[int, Resource] = {}
    for config_map in config_maps:
        by_namespace[config_map.namespace][config_map.name] = config_map
        if any(_MARK in (text or "") for text in _data(config_map).values()):
            unread[id(config_map)] = config_map
    if not unread:
        return
    namespaces = {config_map.namespace for config_map in unread.values()}
    wanted = set(unread)
    configs: dict[tuple[tuple[str, int, str], ...], NginxConfig | None] = {}

    def pod(
        workload: Workload | None, image: str | None, files: Files, *, stock_main: bool = False
    ) -> Iterator[NginxPod]:
        """At most one; workloads that read the same files have them parsed once."""
        same = tuple((name, id(config_map), key) for name, (config_map, key) in files.items())
        if same not in configs:
            texts = {
                name: _data(config_map)[key] or "" for name, (config_map, key) in files.items()
            }
            configs[same] = read(texts)
        config = configs[same]
        if config:
            yield NginxPod(workload, image, config, files, stock_main)

    for workload in workloads:
        if workload.namespace not in namespaces:
            continue
        for image, files, stock_main in _readers(workload, by_namespace[workload.namespace]):
            seen = {id(config_map) for config_map, _ in files.values()}
            if wanted.isdisjoint(seen):
                continue
            for identity in seen:
                unread.pop(identity, None)
            yield from pod(workload, image, files, stock_main=stock_main)
    for config_map in unread.values():
        yield from pod(None, None, {key: (config_map, key) for key in _data(config_map)})


def _data(config_map: Resource) -> Mapping[str, str | None]:
    data: Mapping[str, str | None] = config_map.data.get("data") or {}
    return data


def _readers(
    workload: Workload, config_maps: Mapping[str, Resource]
) -> list[tuple[str | None, Files, bool]]:
    """The containers of a pod that may read its ConfigMaps: their images and what they see.

    And whether they have the nginx.conf of nginx's official image.

    Of several that mount one, those whose image is nginx's count. Where none does, an init
    container may hand the files on, and the container is not known unless there is one nginx.
    """
    volumes = {
        volume.get("name"): files
        for volume in workload.pod_spec.get("volumes") or ()
        if (files := _volume(volume, config_maps))
    }
    if not volumes:
        return []
    containers = [container for _, container in workload.containers]
    readers = [
        (container.get("image"), files, _has_stock_main(container))
        for container in containers
        if (files := _mounted(container, volumes))
    ]
    if not readers:
        handed_on: Files = {}
        for files in volumes.values():
            _add(handed_on, files)
        images = {container.get("image") or "" for container in containers}
        named = [image for image in sorted(images) if is_nginx_image(image)]
        return [(named[0] if len(named) == 1 else None, handed_on, False)]
    return [reader for reader in readers if is_nginx_image(reader[0] or "")] or readers


def _has_stock_main(container: Mapping[str, Any]) -> bool:
    """Whether nginx reads the nginx.conf of the official image: nothing is mounted over it."""
    if not is_official_image(container.get("image") or "") or container.get("command"):
        return False
    if any("-c" in str(argument) for argument in container.get("args") or ()):
        return False
    mounts = container.get("volumeMounts") or ()
    return all(
        not f"{_MAIN}/".startswith((mount.get("mountPath") or "").rstrip("/") + "/")
        for mount in mounts
    )


def _volume(volume: Mapping[str, Any], config_maps: Mapping[str, Resource]) -> Files:
    sources = [volume.get("configMap")]
    projected = (volume.get("projected") or {}).get("sources") or ()
    sources += [source.get("configMap") for source in projected]
    files: Files = {}
    for source in sources:
        config_map = config_maps.get((source or {}).get("name") or "")
        if source is None or config_map is None:
            continue
        items = source.get("items")
        if items is None:
            chosen = {key: key for key in _data(config_map)}
        else:
            chosen = {item.get("path") or "": item.get("key") or "" for item in items}
        for path, key in chosen.items():
            if key in _data(config_map):
                files[path] = (config_map, key)
    return files


def _mounted(container: Mapping[str, Any], volumes: Mapping[str | None, Files]) -> Files:
    mounted: Files = {}
    for mount in container.get("volumeMounts") or ():
        files = volumes.get(mount.get("name"), {})
        sub_path = mount.get("subPath")
        if sub_path in files:
            _add(mounted, {mount.get("mountPath") or "": files[sub_path]})
        else:
            _add(mounted, files)
    return mounted


def _add(files: Files, more: Files) -> None:
    """Adds files under their base names, by which nginx's includes are resolved."""
    for path, place in more.items():
        name = path.rpartition("/")[2]
        if files.get(name, place) != place:
            config_map, key = place
            name = f"{config_map.name}:{key}"
        files[name] = place
