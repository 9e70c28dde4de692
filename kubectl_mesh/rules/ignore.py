"""Which findings are silenced, by flag or by annotation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from kubectl_mesh.errors import UsageError
from kubectl_mesh.rules.rule import Finding

OWN_ANNOTATION = "mesh.kubectl.dev/ignore"
_CODE = re.compile(r"\*|KM\d{3}|IST\d{4}|KIA\d{4}")
PEERS_ANNOTATIONS = ("galley.istio.io/analyze-suppress", "kiali.io/ignore-validations")


class Ignores:
    """The `--ignore` flags: CODE, or CODE=kind/name, or CODE=kind/namespace/name.

    CODE is ours or a peer's (IST0101, KIA1107), `*` for all; kind, namespace and name may hold
    shell wildcards, and kind is compared without regard to case. Raises UsageError.
    """

    def __init__(self, flags: Iterable[str] = ()) -> None:
        self._entries: list[tuple[str, tuple[str, str, str]]] = []
        for flag in flags:
            code, _, target = flag.partition("=")
            parts = target.split("/") if target else ["*", "*", "*"]
            if len(parts) == 2:
                parts.insert(1, "*")
            if not code or len(parts) != 3:
                raise UsageError(
                    f"--ignore {flag}: expected CODE, CODE=kind/name or CODE=kind/namespace/name"
                )
            kind, namespace, name = parts
            if not _CODE.fullmatch(code):
                raise UsageError(
                    f"--ignore {flag}: {code!r} is no code; expected one such as KM101, or a "
                    "peer's such as IST0101 or KIA1107"
                )
            self._entries.append((code, (kind.lower(), namespace, name)))

    def silence(self, finding: Finding) -> bool:
        """Whether a flag or an annotation of the finding's object silences it."""
        codes = {"*", finding.rule.code, *finding.rule.equivalents}
        identity = finding.resource.id
        fields = (identity.kind.lower(), identity.namespace, identity.name)
        for code, patterns in self._entries:
            if code in codes and all(map(fnmatchcase, fields, patterns)):
                return True
        annotations = finding.resource.annotations
        for key in (OWN_ANNOTATION, *PEERS_ANNOTATIONS):
            if key in annotations:
                named = {code.strip() for code in annotations[key].split(",")}
                if not named.isdisjoint(codes):
                    return True
        return False
