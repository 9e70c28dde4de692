"""What can go wrong, as the operator is told of it.

MeshError
├── UsageError       the command line asks for something that cannot be done (exit 2)
├── InputError       a manifest cannot be read; names file, line and column (exit 3)
└── ClusterError     the API server cannot be reached or does not answer (exit 3)
    ├── Forbidden    it answers, and says no
    ├── NotInstalled it does not serve that kind
    └── ApiError     any other answer that is an error (kubectl_mesh.kube.http)
"""

from __future__ import annotations


class MeshError(Exception):
    """Base of every error that is printed as one line instead of a traceback."""

    exit_status = 3


class UsageError(MeshError):
    """The command line is at fault."""

    exit_status = 2


class InputError(MeshError):
    """A manifest cannot be read.

    `file` is the name as the user gave it; `line` and `column` count from 1 and are None where
    the fault is the file itself (missing, binary, too large).
    """

    def __init__(
        self, message: str, file: str, line: int | None = None, column: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.column = column

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        return f"{place}: {self.message}"


class ClusterError(MeshError):
    """The API server cannot be reached, or its answer is of no use."""


class Forbidden(ClusterError):
    """The API server refuses this user the request; `cure` is what to ask for instead."""

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(f"{message}: {cure}" if cure else message)
        self.message = message


class NotInstalled(ClusterError):
    """The API server does not serve the kind that was asked for."""
