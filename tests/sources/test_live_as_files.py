"""What is found in manifests, and in the same objects as an API server gives them.

The stand-in adds what every API server does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_mesh.proof.compare import compare
from tests.kube.fake import FakeApiServer
from tests.sources.as_served import (
    MANIFESTS,
    ROOT,
    assert_found_the_same,
    manifests,
    read,
    served,
    serving_all_kinds,
    snapshot,
)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeApiServer]:
    with serving_all_kinds() as fake:
        yield fake


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_is_found_is_the_same(file: Path, server: FakeApiServer, tmp_path: Path) -> None:
    written = manifests(file)
    server.objects = list(served(written))
    given = read(server, tmp_path)
    assert_found_the_same(written, given)
    for live in (False, True):
        on_disk, in_cluster = snapshot(written, live=live), snapshot(given, live=live)
        assert not compare(on_disk, in_cluster).differences
