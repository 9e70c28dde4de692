"""KM301: what a port name that names no protocol was probably meant to be."""

import pytest

from kubectl_mesh.mesh.ports import parse
from kubectl_mesh.rules.km301_port_without_protocol import meant


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("htpp", "http"),
        ("htpp-web", "http-web"),
        ("http_admin", "http-admin"),
        ("http1", "http-1"),
        ("http2foo", "http2-foo"),
        ("foo-http", "http-foo"),
        ("a.grpc.b", "grpc-a-b"),
        ("kubernetes.io/http", "http-kubernetes-io"),
        ("web", None),
        ("amqp", None),
        ("", None),
        ("---", None),
        ("\x1b[31m", None),
    ],
)
def test_meant(text: str, expected: str | None) -> None:
    assert meant(text) == expected
    if expected:
        assert parse(expected)
