"""What is waited for between the steps of a change set."""

from __future__ import annotations

import enum

DELAY = 5.0
"""Seconds that are waited where there is no proof: the few seconds of Istio's guidelines."""


class For(enum.Enum):
    """The proxies; a delay; EITHER: the proxies, and a delay where istiod is out of reach."""

    EITHER = "either"
    PROXIES = "proxies"
    DELAY = "delay"
