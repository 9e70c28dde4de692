"""What fails in one state of a mesh and does not in another."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.rule import Finding, Severity

_CODES = ("KM101", "KM103", "KM205", "KM206", "KM312", "KM313", "KM606", "KM610")
"""Routes that lead to what is not there, and rules that no proxy gets."""

_OF_CLIENTS = "KM101"
"""Its evidence says for which clients a subset is missing: it is worse where they are more."""

_INDEX = re.compile(r"\[\d+\]")

Breakages = Mapping[str, Sequence[str]]
"""What fails, as an operator is told; under what is the same wherever in its object it stands."""


def breakages(snapshot: Snapshot) -> Breakages:
    """What the rules find that say that requests, or copies of them, are lost."""
    found: dict[str, list[str]] = defaultdict(list)
    for code in _CODES:
        for finding in BY_CODE[code].check(snapshot):
            if isinstance(finding, Finding) and finding.severity >= Severity.WARNING:
                told = f"{finding.resource}: {finding.message}"
                evidence = finding.evidence if code == _OF_CLIENTS else ()
                found[_INDEX.sub("[]", "\n".join((told, *evidence)))].append(told)
    return found


def newly_broken(found: Breakages, known: Breakages) -> Iterator[str]:
    """What of it is not known yet."""
    for key, told in found.items():
        yield from told[len(known.get(key, ())) :]
