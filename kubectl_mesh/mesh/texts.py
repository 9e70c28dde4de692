"""Texts as Go and container images write them, and lists of names as people read them."""

from __future__ import annotations

from collections.abc import Sequence

GO_TRUE = ("1", "t", "T", "true", "TRUE", "True")
GO_FALSE = ("0", "f", "F", "false", "FALSE", "False")
"""What `strconv.ParseBool` understands; istiod uses its default for any other text."""


def tag_of(image: str) -> str:
    """The tag of a container image's name; "" where it has none."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[2]


def first_of(names: Sequence[str], count: int) -> str:
    """The first names, and how many there are besides."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
