"""The line that says how far the reading has come."""

from __future__ import annotations

import io

import pytest

from kubectl_mesh.sources.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_that_is_erased_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with ProgressLine(terminal) as progress:
        progress("Pod", 500)
        progress("Service", 3)
    progress("Pod", 1000)
    assert terminal.getvalue() == (
        "\r\x1b[Kreading the cluster: 500 objects (Pod: 500)"
        "\r\x1b[Kreading the cluster: 503 objects (Service: 3)"
        "\r\x1b[K"
    )


@pytest.mark.parametrize(("stream", "term"), [(io.StringIO(), "xterm"), (Terminal(), "dumb")])
def test_nothing_where_it_could_not_be_erased(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, term: str
) -> None:
    monkeypatch.setenv("TERM", term)
    with ProgressLine(stream) as progress:
        progress("Pod", 500)
    assert stream.getvalue() == ""
