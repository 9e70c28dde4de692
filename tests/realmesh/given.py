"""One mesh for all tests of a module, where they do not disturb each other.

    given = Given()

    @given(service("web"), virtual_service("web", "web", says("rule")))
    def test_a_rule(client: Proxy) -> None: ...

    @pytest.fixture(scope="module")
    def client(session_mesh: Mesh) -> Iterator[Proxy]:
        with given.applied(session_mesh):
            client = session_mesh.sidecar()
            session_mesh.settled()
            yield client

What the tests want is applied at once, before the first of them: nearly all the time of a test on a
mesh of its own goes into starting proxies and emptying the mesh again. So every test keeps to
hosts, namespaces or ports of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from .manifests import Object
from .mesh import Mesh

Service = Callable[[Mesh], None]
_Test = TypeVar("_Test", bound=Callable[..., None])


class Younger(NamedTuple):
    """What is applied a second, or more, after all the rest."""

    item: Object


class AtOnce(NamedTuple):
    """What is made in this order, and within one second."""

    items: tuple[Object, ...]


def service(
    name: str,
    *,
    namespace: str = "default",
    ports: Mapping[str, int] = MappingProxyType({"http": 5000}),
    pods: Mapping[str, int] = MappingProxyType({}),
    **how: Any,
) -> Service:
    """A Service, without pods unless it is told otherwise: see Mesh.service."""
    return lambda mesh: mesh.service(name, namespace=namespace, ports=ports, pods=pods, **how)


class Given:
    """What the tests of one module want to be in the mesh that they share."""

    def __init__(self) -> None:
        self._services: list[Service] = []
        self._older: list[Object] = []
        self._younger: list[Object] = []
        self._at_once: list[tuple[Object, ...]] = []

    def __call__(self, *things: Service | Object | Younger | AtOnce) -> Callable[[_Test], _Test]:
        """Decorates a test with what it wants; it is applied in this order, Services first."""
        for thing in things:
            if isinstance(thing, Younger):
                self._younger.append(thing.item)
            elif isinstance(thing, AtOnce):
                self._at_once.append(thing.items)
            elif isinstance(thing, dict):
                self._older.append(thing)
            else:
                self._services.append(thing)
        return lambda test: test

    @contextlib.contextmanager
    def applied(self, mesh: Mesh) -> Iterator[None]:
        """While entered, all of it is in the mesh, which is emptied afterwards."""
        paths = [mesh.server.path(item) for item in self._older]
        assert len(paths) == len(set(paths)), "two tests want objects of one name"
        try:
            for make in self._services:
                make(mesh)
            mesh.apply(*self._older)
            for items in self._at_once:
                _apply_at_once(mesh, items)
            if self._younger:
                mesh.next_second()
                mesh.apply(*self._younger)
            yield
        finally:
            mesh.reset()


def _apply_at_once(mesh: Mesh, items: tuple[Object, ...]) -> None:
    while True:
        mesh.apply(*items)
        live = [mesh.server.request("GET", mesh.server.path(item)) for item in items]
        if len({each["metadata"]["creationTimestamp"] for each in live}) == 1:
            return
        mesh.server.delete(*items)
