"""Host names as Istio compares them.

Models `ResolveShortnameToFQDN` and `host.Name` (Matches, SubsetOf, MoreSpecific) of istiod.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")
_LONGEST_NAME = 253


def fqdn(host: str, namespace: str, domain: str) -> str:
    """`host` as istiod writes it out: a name without a dot is a Service of `namespace`.

    A name with a dot is taken literally (`web.a` stays `web.a`), and so is a wildcard.
    """
    if not host or "." in host or "*" in host:
        return host
    return f"{host}.{namespace}.svc.{domain}"


def hosts_called(name: str, namespaces: Iterable[str], domain: str) -> Iterator[str]:
    """The hosts that clients of some namespaces may mean by a name, itself among them.

    Models `generateVirtualHostDomains`: a Service is called by its name within its namespace, and
    everywhere by `name.ns`, `name.ns.svc` and in full.
    """
    yield name
    parts = name.removesuffix(".svc").split(".")
    if len(parts) == 1 and not name.endswith(".svc"):
        yield from (f"{name}.{namespace}.svc.{domain}" for namespace in namespaces)
    elif len(parts) == 2:
        yield f"{'.'.join(parts)}.svc.{domain}"


def namespace_of(host: str, domain: str) -> str | None:
    """The namespace of a fully qualified Service name; None for any other host."""
    name, separator, rest = host.removesuffix(f".svc.{domain}").partition(".")
    in_cluster = host.endswith(f".svc.{domain}") and separator and name
    return rest if in_cluster and "." not in rest else None


def is_wildcard(host: str) -> bool:
    return host.startswith("*")


def overlap(one: str, other: str) -> bool:
    """Whether some host name is meant by both, each an exact name, `*` or `*.suffix`."""
    if is_wildcard(one) and is_wildcard(other):
        return one[1:].endswith(other[1:]) or other[1:].endswith(one[1:])
    return covers(one, other) or covers(other, one)


def covers(pattern: str, host: str) -> bool:
    """Whether every host name that `host` means is meant by `pattern` too."""
    if not is_wildcard(pattern):
        return pattern == host
    if is_wildcard(host):
        return host[1:].endswith(pattern[1:])
    return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1


def patterns_for(host: str) -> Iterator[str]:
    """The patterns that cover `host`, the most specific first: itself, `*.b.c`, `*.c`, `*`.

    Istio's wildcards stand for whole labels or for everything, so there are as many as labels. What
    is too long for a DNS name is in `*` alone.
    """
    yield host
    rest = host[2:] if host.startswith("*.") else host
    while "." in rest and len(host) <= _LONGEST_NAME:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
    if host != "*":
        yield "*"


class HostMap(Generic[T]):
    """Values by host pattern; finds those of the most specific pattern that covers a host."""

    def __init__(self, entries: Iterable[tuple[str, T]]) -> None:
        grouped: dict[str, list[T]] = {}
        for host, value in entries:
            grouped.setdefault(host, []).append(value)
        self.by_pattern: Mapping[str, list[T]] = grouped
        self._has_wildcards = any(map(is_wildcard, grouped))
        self._within_labels = [
            pattern for pattern in grouped if is_wildcard(pattern) and pattern[1:2] not in ("", ".")
        ]

    def most_specific(self, host: str) -> list[T]:
        """The values under the most specific pattern that covers `host`, in order of entry."""
        exact = self.by_pattern.get(host)
        return exact if exact is not None else next(self.covering(host), [])

    def covering(self, host: str) -> Iterator[list[T]]:
        """The values under each pattern that covers `host`, the most specific pattern first.

        A wildcard may also stand for the beginning of a label: `*-blue.b.c`.
        """
        patterns = [*patterns_for(host)] if self._has_wildcards else [host]
        if self._within_labels:
            name = host.removeprefix("*")
            patterns += (p for p in self._within_labels if p != host and name.endswith(p[1:]))
            patterns[1:] = sorted(patterns[1:], key=len, reverse=True)
        for pattern in patterns:
            if pattern in self.by_pattern:
                yield self.by_pattern[pattern]
