"""What a rule offers to repair a finding: edits of objects, as data. It touches nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kubectl_mesh.mesh.resource import Path, Resource

UNSAFE = "--unsafe"
ALL_RULES = "--all-rules"
ACCEPT_MTLS_OFF = "--accept-mtls-off"


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of one object: `value` takes the place of what stands at `path`.

    What does not stand there is added, resource.ABSENT takes away. With `insert` it comes before
    the item of a list that stands at `path`, or at its end.
    """

    resource: Resource
    path: Path
    value: Any
    insert: bool = False


@dataclass(frozen=True, slots=True)
class Repair:
    """A way to repair a finding. `name` is what the user chooses it by, of those of its rule.

    It is safe where nothing but what is broken is treated differently afterwards: no other request,
    no pod. Else `unsafe` says what is, and it is made only by a user who gives `flag`.
    `affects` are other things to know.
    """

    name: str
    title: str
    edits: tuple[Edit, ...]
    unsafe: str = ""
    flag: str = UNSAFE
    affects: tuple[str, ...] = ()
