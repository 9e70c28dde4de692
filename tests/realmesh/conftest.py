"""Fixtures on the real control plane. Without its binaries, the tests here are skipped, loudly."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from .apiserver import ApiServer
from .build import ISTIOS, NotBuilt, istio_release
from .mesh import Mesh

REQUIRE = "KUBECTL_MESH_REQUIRE_REALMESH"
"""Set to 1, this environment variable turns the skips into errors: for CI."""

_Thing = TypeVar("_Thing")
_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "realmesh: needs the real control plane (python -m tests.realmesh build)"
    )


def pytest_report_header() -> str:
    return f"Istio of the real mesh: {ISTIOS[istio_release()].release}"


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("realmesh")


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ApiServer]:
    """One API server for all tests of the session: keep to a `namespace` of your own."""
    with _started(ApiServer) as server:
        yield server


@pytest.fixture
def new_apiserver() -> Iterator[Callable[..., ApiServer]]:
    """Starts API servers for this test alone, to break; takes the arguments of ApiServer."""
    with contextlib.ExitStack() as servers:
        yield lambda **how: servers.enter_context(_started(functools.partial(ApiServer, **how)))


@pytest.fixture
def namespace(apiserver: ApiServer) -> str:
    """The name of a fresh namespace on the shared API server."""
    name = f"test-{next(_numbers)}"
    apiserver.kubectl("create", "namespace", name)
    return name


@pytest.fixture(scope="session")
def session_mesh() -> Iterator[Mesh]:
    """The mesh behind `mesh`, for a module that shares what is in it: which has to reset it."""
    with _started(Mesh) as mesh:
        yield mesh


@pytest.fixture
def mesh(session_mesh: Mesh) -> Iterator[Mesh]:
    """A mesh with nothing in it but istiod; what the test puts there is gone after it."""
    yield session_mesh
    session_mesh.reset()


@pytest.fixture
def new_mesh() -> Iterator[Callable[..., Mesh]]:
    """Starts meshes for this test alone, to break; takes the arguments of Mesh."""
    with contextlib.ExitStack() as meshes:
        yield lambda **how: meshes.enter_context(_started(functools.partial(Mesh, **how)))


def built(thing: Callable[[], _Thing], *, required: bool = True) -> _Thing:
    """What `thing` returns; skips the test where it raises NotBuilt.

    In CI it may be skipped only if it is not `required`.
    """
    try:
        return thing()
    except NotBuilt as missing:
        if required and os.environ.get(REQUIRE) == "1":
            raise
        pytest.skip(str(missing))


@contextlib.contextmanager
def _started(
    thing: Callable[[], contextlib.AbstractContextManager[_Thing]],
) -> Iterator[_Thing]:
    with contextlib.ExitStack() as exits:
        yield built(lambda: exits.enter_context(thing()))
