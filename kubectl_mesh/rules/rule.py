"""What a rule is, and what it yields."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from kubectl_mesh.mesh.resource import Path, Resource, ResourceId
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules.repair import Repair

DOCUMENTATION = "https://github.com/kubectl-mesh/kubectl-mesh/blob/main/docs/rules.md"


LISTED = 10
"""How many things of one kind a finding lists at most."""


class Severity(enum.IntEnum):
    """How bad a finding is for traffic.

    ERROR: requests fail or are routed otherwise than the configuration says. WARNING: they will
    under a condition that cannot be seen from here, or something is dead weight. INFO: worth
    knowing, nothing fails.
    """

    INFO = 1
    WARNING = 2
    ERROR = 3

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """Something that is wrong with one field of one object.

    `message` says what is wrong, `traffic` what happens to requests, `next` what to run or do.
    `evidence` are the facts that the finding rests on, `related` the other objects that take part.
    `repairs` are the ways to mend it that the rule can write down; the user chooses where there are
    several. `roots` are the kustomizations in which it was found.
    """

    rule: Rule
    severity: Severity
    resource: Resource
    path: Path
    message: str
    traffic: str
    next: str
    evidence: tuple[str, ...] = ()
    related: tuple[ResourceId, ...] = ()
    repairs: tuple[Repair, ...] = ()
    roots: tuple[str, ...] = ()


def listed(texts: Iterable[str]) -> tuple[str, ...]:
    """The first of `texts`, and "N more" in place of the others."""
    found = iter(texts)
    first = tuple(islice(found, LISTED))
    more = sum(1 for _ in found)
    return (*first, f"{more} more") if more else first


@dataclass(frozen=True, slots=True)
class Skip:
    """Something that a rule could not decide, and why.

    `beyond` tells that the answer is in no object of this cluster, even if all of it was read.
    """

    reason: str
    beyond: bool = False


def undecided(snapshot: Snapshot, what: str, unknown: str | None) -> Skip | None:
    """A Skip where something may be there that was not seen; None where it does not exist.

    It is a Service or pods: `unknown` says why they may be in this cluster, as Snapshot.unknown
    does. `what` is the question that is left.
    """
    if unknown:
        return Skip(f"{what}: {unknown}")
    if snapshot.elsewhere:
        return Skip(f"{what}: {snapshot.elsewhere}", beyond=True)
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A check, with everything that is told about it.

    `needs` are the kinds without which it cannot run; `uses` those that it reads besides, and
    yields a Skip for where they are missing. `equivalents` are the codes of `istioctl analyze`
    (IST) and Kiali (KIA) that mean the same. One that `compares` looks at manifests beside the
    cluster that they are meant for, and needs both. `explanation` and `fix` are Markdown; `bad` and
    `good` are manifests that do and do not show the fault.
    """

    code: str
    name: str
    severity: Severity
    summary: str
    explanation: str
    fix: str
    reference: str
    needs: tuple[str, ...]
    check: Callable[[Snapshot], Iterator[Finding | Skip]]
    bad: str
    good: str
    uses: tuple[str, ...] = ()
    equivalents: tuple[str, ...] = ()
    compares: bool = False

    @property
    def documentation(self) -> str:
        return f"{DOCUMENTATION}#{self.code.lower()}"

    def finding(
        self,
        resource: Resource,
        path: Path,
        message: str,
        *,
        traffic: str,
        next: str,
        severity: Severity | None = None,
        evidence: tuple[str, ...] = (),
        related: tuple[ResourceId, ...] = (),
        repairs: tuple[Repair, ...] = (),
    ) -> Finding:
        """A finding of this rule, with the rule's severity unless another is given."""
        return Finding(
            self,
            severity or self.severity,
            resource,
            path,
            message,
            traffic,
            next,
            evidence,
            related,
            repairs,
        )
