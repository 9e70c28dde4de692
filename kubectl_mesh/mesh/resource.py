"""A Kubernetes object as every part of the project sees it, wherever it came from."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Path = tuple[str | int, ...]
"""Where a field stands in an object: ("spec", "http", 0, "route")."""


def pointer(path: Path) -> str:
    """`path` as an RFC 6901 JSON Pointer."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def dotted(path: Path) -> str:
    """`path` as people write it: spec.http[0].route."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


class Absent(enum.Enum):
    """Stands for a field that is not there, as None is a value."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


def field_at(value: Any, path: Path) -> Any:
    """What stands at a path in an object; ABSENT where nothing does."""
    for step in path:
        if isinstance(value, Mapping) and isinstance(step, str):
            value = value.get(step, ABSENT)
        elif isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value):
            value = value[step]
        else:
            return ABSENT
    return value


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        """The place as editors and terminals take it."""
        return f"{self.file}:{self.line}:{self.column}"


class Origin(Protocol):
    """Where a resource was read."""

    @property
    def name(self) -> str:
        """A file's name, or a kubeconfig context's."""
        ...

    def locate(self, path: Path) -> Position | None:
        """Where the field at `path` is written, or as much of the path as is; None off disk."""
        ...


@dataclass(frozen=True, slots=True)
class ResourceId:
    """What tells one object from another. `namespace` is "" for cluster-scoped kinds.

    `kind` is as schema.KINDS names it, so that it tells two kinds of one name apart.
    """

    kind: str
    namespace: str
    name: str

    @property
    def api_kind(self) -> str:
        """The kind as manifests and the API server name it, beside an apiVersion."""
        return self.kind.partition(".")[0]

    def __str__(self) -> str:
        qualified = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {qualified}"


class ReadInPart(Exception):
    """A part of an object was taken for the whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """One object. objects.as_resource makes it of what was read.

    `whole` is the object with all its fields; None where they were not kept. `data` is what the
    model reads of it, less the fields whose type is not the one that the API demands (see
    schema.py): whatever reads `data` may trust its types.
    """

    id: ResourceId
    api_version: str
    whole: Mapping[str, Any] | None
    data: Mapping[str, Any]
    origin: Origin
    faults: tuple[Fault, ...] = ()
    kind: str = field(init=False)
    namespace: str = field(init=False)
    name: str = field(init=False)
    metadata: Mapping[str, Any] = field(init=False)
    spec: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        for name in ("kind", "namespace", "name"):
            object.__setattr__(self, name, getattr(self.id, name))
        for name in ("metadata", "spec"):
            object.__setattr__(self, name, self.data.get(name) or {})

    @property
    def raw(self) -> Mapping[str, Any]:
        """The object as it was read, to be edited or copied from.

        Raises ReadInPart where not all of its fields were kept: what is left out would be lost.
        """
        if self.whole is None:
            raise ReadInPart(f"{self} was read in part: ask the cluster for all of it")
        return self.whole

    @property
    def labels(self) -> Mapping[str, str]:
        labels: Mapping[str, str] = self.metadata.get("labels") or {}
        return labels

    @property
    def annotations(self) -> Mapping[str, str]:
        annotations: Mapping[str, str] = self.metadata.get("annotations") or {}
        return annotations

    @property
    def age_key(self) -> tuple[str, str, str]:
        """Sorts as istiod does: creationTimestamp, name, namespace.

        An object that has no timestamp does not exist yet: it will be the youngest.
        """
        return (str(self.metadata.get("creationTimestamp") or "~"), self.name, self.namespace)

    def __str__(self) -> str:
        return str(self.id)


@dataclass(frozen=True, slots=True)
class Fault:
    """A field whose type is not the one that the API demands.

    `lacks_quotes` where it is a number or a boolean and would be a string in quotes.
    """

    path: Path
    expected: str
    found: str
    lacks_quotes: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A part of the input that was not examined, and why.

    `position` is None where no line can be named (a missing file, a forbidden kind). `failed` is
    False for what was not asked for, such as a chart that was not to be rendered.
    """

    where: str
    reason: str
    position: Position | None = field(default=None)
    failed: bool = True

    def __str__(self) -> str:
        return f"{self.position or self.where}: {self.reason}"
