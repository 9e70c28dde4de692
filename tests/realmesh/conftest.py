"""Fixtures on the real control plane. Without its binaries, the tests here are skipped, loudly."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from .apiserver import ApiServer
from .build import NotBuilt

REQUIRE = "KUBECTL_MESH_REQUIRE_REALMESH"
"""Set to 1, this environment variable turns the skips into errors: for CI."""

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "realmesh: needs the real control plane (python -m tests.realmesh build)"
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("realmesh")


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ApiServer]:
    """One API server for all tests of the session: keep to a `namespace` of your own."""
    with _new_apiserver() as server:
        yield server


@pytest.fixture
def new_apiserver() -> Iterator[Callable[..., ApiServer]]:
    """Starts API servers for this test alone, to break; takes the arguments of ApiServer."""
    with contextlib.ExitStack() as servers:

        def start(*, crds: bool = True) -> ApiServer:
            return servers.enter_context(_new_apiserver(crds=crds))

        yield start


@pytest.fixture
def namespace(apiserver: ApiServer) -> str:
    """The name of a fresh namespace on the shared API server."""
    name = f"test-{next(_numbers)}"
    apiserver.kubectl("create", "namespace", name)
    return name


def _new_apiserver(*, crds: bool = True) -> ApiServer:
    try:
        return ApiServer(crds=crds)
    except NotBuilt as missing:
        if os.environ.get(REQUIRE) == "1":
            raise
        pytest.skip(str(missing))
