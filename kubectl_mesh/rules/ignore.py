"""Which findings are meant by a flag, and which are silenced by a flag or an annotation."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from kubectl_mesh.errors import UsageError
from kubectl_mesh.mesh.schema import KINDS, called
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.named import find
from kubectl_mesh.rules.rule import Finding

OWN_ANNOTATION = "mesh.kubectl.dev/ignore"
_CODE = re.compile(r"KM\d{3}|IST\d{4}|KIA\d{4}")
_WILDCARD = re.compile(r"[*?\[]")
PEERS_ANNOTATIONS = ("galley.istio.io/analyze-suppress", "kiali.io/ignore-validations")


class Selectors:
    """Flags that name findings: CODE, or CODE=kind/name, or CODE=kind/namespace/name.

    CODE is a rule's code or name, or a peer's code (IST0101, KIA1107); `*` stands for all. Kind is
    as kubectl knows it (vs, virtualservices), and it, namespace and name may hold shell wildcards.
    `flag` is what the user typed before them, for the UsageError of one that is none.
    """

    def __init__(self, selectors: Iterable[str], flag: str) -> None:
        self._entries: list[tuple[Collection[str], tuple[str, str, str]]] = []
        for selector in selectors:
            code, narrowed, target = selector.partition("=")
            parts = target.split("/") if narrowed else ["*", "*", "*"]
            if len(parts) == 2:
                parts.insert(1, "*")
            said = f"{flag} {selector}".lstrip()
            if not code or len(parts) != 3 or not parts[-1]:
                raise UsageError(
                    f"{said}: expected CODE, CODE=kind/name or CODE=kind/namespace/name"
                )
            kind, namespace, name = parts
            known = called(kind)
            if not known and not _WILDCARD.search(kind):
                close = difflib.get_close_matches(kind, KINDS, n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(KINDS)}"
                raise UsageError(f"{said}: {kind!r} is no kind that findings are about; {hint}")
            pattern = known.name if known else kind
            self._entries.append((_rules(code, said), (pattern.lower(), namespace, name)))

    def meant(self, finding: Finding) -> bool:
        """Whether one of them names the finding."""
        identity = finding.resource.id
        fields = (identity.kind.lower(), identity.namespace, identity.name)
        return any(
            finding.rule.code in codes and all(map(fnmatchcase, fields, patterns))
            for codes, patterns in self._entries
        )


def _rules(text: str, said: str) -> Collection[str]:
    """The codes of the rules that a selector names. Raises UsageError for none."""
    if text == "*":
        return BY_CODE
    try:
        return {rule.code for rule in find(text)}
    except UsageError as error:
        if _CODE.fullmatch(text.upper()):
            raise UsageError(f"{said}: {error}") from None
        raise UsageError(
            f"{said}: {text!r} is no code; expected one such as KM101, a rule's name such as "
            "undefined-subset, or a peer's code such as IST0101 or KIA1107"
        ) from None


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
