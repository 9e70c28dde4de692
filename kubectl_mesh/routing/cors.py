"""Which requests a rule's corsPolicy answers itself.

Models `TranslateCORSPolicy` of istiod and the CORS filter of Envoy, which comes after the one of
faults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubectl_mesh.routing.matching import StringMatch
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.table import Action


def answers_preflight(action: Action, request: Request) -> bool:
    """Whether the proxy answers a request because it is a preflight. Raises Undecidable.

    On a route that redirects or answers directly, a corsPolicy has no effect.
    """
    policy = action.data.get("corsPolicy")
    origin = request.headers.get("origin")
    if policy is None or action.answers or request.method != "OPTIONS" or not origin:
        return False
    if not request.headers.get("access-control-request-method"):
        return False
    return _allows(policy, origin) or policy.get("unmatchedPreflights") == "IGNORE"


def _allows(policy: Mapping[str, Any], origin: str) -> bool:
    wanted = policy.get("allowOrigins")
    if wanted is None:
        wanted = [{"exact": each} for each in policy.get("allowOrigin") or ()]
    return any(_accepts(each, origin) for each in wanted)


def _accepts(wanted: Mapping[str, str], origin: str) -> bool:
    """Whether one of allowOrigins is met: what is met by `*` stands for every origin."""
    return any(
        StringMatch(kind, wanted[kind]).accepts(text)
        for kind in ("exact", "prefix", "regex")
        for text in ("*", origin)
        if wanted.get(kind)
    )
