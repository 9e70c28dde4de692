"""What a rule offers to repair a finding: edits of objects, as data. It touches nothing."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from kubectl_mesh.mesh.resource import ABSENT, Path, Resource

UNSAFE = "--unsafe"
ALL_RULES = "--all-rules"
ACCEPT_MTLS_OFF = "--accept-mtls-off"


class Then(enum.Enum):
    """What must hold, once an object is changed, before the next one is."""

    ROLLED_OUT = "rolled-out"
    """All pods of the workload are of its new template, and ready."""
    PROXIES = "proxies"
    """All proxies that istiod knows have what they need of the change."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of one object: `value` takes the place of what stands at `path`.

    What does not stand there is added, resource.ABSENT takes away; at the path () that is the whole
    object. With `insert` it comes before the item of a list that stands at `path`, or at its end.
    With `source` it is the item that stands there, of the same list, which is moved: `path` is
    where it stands then. `copied` tells of a value that is an item of another object.
    """

    resource: Resource
    path: Path
    value: Any = None
    insert: bool = False
    source: Path = ()
    then: Then | None = None
    copied: Copied | None = None

    @property
    def is_deletion(self) -> bool:
        """Whether the whole object is taken away."""
        return self.path == () and self.value is ABSENT


@dataclass(frozen=True, slots=True)
class Copied:
    """The item of a list that stands at `path` of an object, once `edits` are made there."""

    resource: Resource
    path: Path
    edits: tuple[Edit, ...]


@dataclass(frozen=True, slots=True)
class Repair:
    """A way to repair a finding. `name` is what the user chooses it by, of those of its rule.

    It is safe where nothing but what is broken is treated differently afterwards: no other request,
    no pod. Else `unsafe` says what is, and it is made only by a user who gives `flag`.
    `affects` are other things to know; `assumes` is what it takes to be so and the input does not
    show. With `proof` it is made only where the comparison of all
    requests shows that it does what it says and nothing else: see fixing/moved_rules.py.
    """

    name: str
    title: str
    edits: tuple[Edit, ...]
    unsafe: str = ""
    flag: str = UNSAFE
    affects: tuple[str, ...] = ()
    proof: bool = False
    assumes: tuple[str, ...] = ()
