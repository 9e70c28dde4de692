"""What becomes of objects that Istio refuses."""

from __future__ import annotations

REFUSED = "Istio's admission refuses such an object"
FROZEN = (
    f"{REFUSED}; where it does not check, each proxy that gets the rule rejects all routes of that "
    "port, of other hosts too, and keeps those that it has until this is repaired"
)
"""What an http route that leads nowhere does."""
