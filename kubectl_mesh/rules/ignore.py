"""Which findings are meant by a flag, and which are silenced by a flag or an annotation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from kubectl_mesh.errors import UsageError
from kubectl_mesh.rules.rule import Finding

OWN_ANNOTATION = "mesh.kubectl.dev/ignore"
_CODE = re.compile(r"\*|KM\d{3}|IST\d{4}|KIA\d{4}")
PEERS_ANNOTATIONS = ("galley.istio.io/analyze-suppress", "kiali.io/ignore-validations")


class Selectors:
    """Flags that name findings: CODE, or CODE=kind/name, or CODE=kind/namespace/name.

    CODE is ours or a peer's (IST0101, KIA1107), `*` for all; kind, namespace and name may hold
    shell wildcards, and kind is compared without regard to case. `flag` is what the user typed
    before them, for the UsageError of one that is none.
    """

    def __init__(self, selectors: Iterable[str], flag: str) -> None:
        self._entries: list[tuple[str, tuple[str, str, str]]] = []
        for selector in selectors:
            code, _, target = selector.partition("=")
            parts = target.split("/") if target else ["*", "*", "*"]
            if len(parts) == 2:
                parts.insert(1, "*")
            said = f"{flag} {selector}".lstrip()
            if not code or len(parts) != 3:
                raise UsageError(
                    f"{said}: expected CODE, CODE=kind/name or CODE=kind/namespace/name"
                )
            kind, namespace, name = parts
            if not _CODE.fullmatch(code):
                raise UsageError(
                    f"{said}: {code!r} is no code; expected one such as KM101, or a "
                    "peer's such as IST0101 or KIA1107"
                )
            self._entries.append((code, (kind.lower(), namespace, name)))

    def meant(self, finding: Finding) -> bool:
        """Whether one of them names the finding."""
        codes = _codes(finding)
        identity = finding.resource.id
        fields = (identity.kind.lower(), identity.namespace, identity.name)
        return any(
            code in codes and all(map(fnmatchcase, fields, patterns))
            for code, patterns in self._entries
        )


class Ignores:
    """The `--ignore` flags, as in Selectors. Raises UsageError."""

    def __init__(self, flags: Iterable[str] = ()) -> None:
        self._flags = Selectors(flags, "--ignore")

    def silence(self, finding: Finding) -> bool:
        """Whether a flag or an annotation of the finding's object silences it."""
        if self._flags.meant(finding):
            return True
        annotations = finding.resource.annotations
        for key in (OWN_ANNOTATION, *PEERS_ANNOTATIONS):
            if key in annotations:
                named = {code.strip() for code in annotations[key].split(",")}
                if not named.isdisjoint(_codes(finding)):
                    return True
        return False


def _codes(finding: Finding) -> set[str]:
    return {"*", finding.rule.code, *finding.rule.equivalents}
