"""What Istio does differently from one release on, as data that the model asks.

`MeshConfig.istio` says which Istio a mesh runs; `config.istio.has(DIFFERENCE)` says whether it
behaves the newer way. docs/istio-versions.md lists what else changed, and what we do about it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kubectl_mesh.mesh.texts import GO_FALSE

Release = tuple[int, int]

NEWEST: Release = (1, 31)
"""The newest release that the model is held to; it answers for what is newer, too."""
OLDEST: Release = (1, 22)
"""The oldest release that the model is held to; it answers for what is older, too."""
_RELEASE = re.compile(r"v?(1)\.(\d+)(?:[.-].*)?", re.ASCII)


@dataclass(frozen=True)
class Difference:
    """A behaviour that Istio has from the release `since` on.

    `what` it does since then, and `before`. `switch` is the environment variable of istiod that
    brings the older behaviour back where it is `false`; "" if none does.
    """

    since: Release
    what: str
    before: str
    switch: str = ""


ONE_NAMESPACE = Difference(
    (1, 24),
    "Where several namespaces provide a host, a sidecar knows what its own namespace provides, "
    "else that of the Kubernetes Service, else of the oldest ServiceEntry, and nothing else.",
    "Without a Sidecar resource, a sidecar has listeners for all of them and sends requests to the "
    "Kubernetes Service, else to the oldest ServiceEntry. With one, it knows what its own "
    "namespace provides, else the oldest.",
    "PILOT_UNIFIED_SIDECAR_SCOPE",
)
SOURCES_HAVE_CLUSTERS = Difference(
    (1, 24),
    "A sidecar has no cluster for a destination that its Sidecar does not import where the rules "
    "that lead there name another sourceNamespace, be it beside matches that hold for it.",
    "A sidecar has clusters for all destinations of the VirtualServices that it is told of.",
)
BEST_NAMESPACE = Difference(
    (1, 30),
    "Where several other namespaces provide a destination that a Sidecar does not import, requests "
    "go to the Kubernetes Service, else to the oldest ServiceEntry.",
    "They go to what the first of those namespaces provides, in alphabetical order.",
    "PILOT_SIDECAR_PICK_BEST_SERVICE_NAMESPACE",
)
EGRESS_EXCLUSIONS = Difference(
    (1, 31),
    "A host of a Sidecar's egress that begins with ~ is taken away from what the others import.",
    "It means a namespace of that name, and there is none.",
)
ABSOLUTE_NAMES = Difference(
    (1, 27),
    "To sidecars, a host of the registry with a full stop at its end is the same host.",
    "To sidecars, a host with a full stop at its end is not in the registry.",
    "PILOT_ENABLE_ABSOLUTE_FQDN_VHOST_DOMAIN",
)
TLS_SUBNETS_STAY = Difference(
    (1, 24),
    "A tls match without destinationSubnets has those of the last match before it that holds for "
    "the same client, host and port and names some, also of an older VirtualService.",
    "A tls match without destinationSubnets is for all addresses of the host.",
)
"""1.22.4 and 1.23.0 had it, too, and 1.22.5 and 1.23.1 took it back."""
EMPTY_RULES_SKIPPED = Difference(
    (1, 31),
    "A tcp or tls rule without a destination is skipped.",
    "istiod crashes at a tcp or tls rule without a destination.",
)
ANY_DYNAMIC_DNS = Difference(
    (1, 31),
    "With outboundTrafficPolicy ALLOW_ANY_DYNAMIC_DNS a sidecar resolves the name of an HTTP "
    "request to an unknown host by itself, and sends the request there.",
    "There is no such mode.",
)
CONNECTION_SETTINGS = Difference(
    (1, 31),
    "connectionSettings of a ProxyConfig, and of the MeshConfig's defaultConfig, can normalize "
    "paths and refuse requests with certain paths or headers.",
    "There is no such field.",
)
GATEWAY_HOSTS_CRASH = Difference(
    (1, 28),
    "istiod crashes at a host with ./ or */ that stands behind */* in the hosts of a Gateway's "
    "server.",
    "istiod takes such a list for all hosts.",
)
"""It came with the copy that istiod makes of a server before it changes it (pull request 57593)."""
DYNAMIC_DNS = Difference(
    (1, 30),
    "A ServiceEntry of a wildcard host with resolution DYNAMIC_DNS sends requests of sidecars to "
    "the name that they ask for, and has no clusters for subsets.",
    "Sidecars do not know this resolution.",
)
TIES_BY_NAME = Difference(
    (1, 23),
    "Services and ServiceEntries of one second come in the order of their names, a ServiceEntry's "
    "being its host, then of their namespaces.",
    "They come in the order of the texts NAME.NAMESPACE, so that a-b is before a.",
)
"""No note of Istio's tells of it; the release is that after its pull request 50761."""
EXPORTED_WITH_PRIVATE = Difference(
    (1, 31),
    "What is private to a namespace, and what others export to it by name, comes by age together.",
    "What is private to a namespace comes first, then what others export to it by name.",
)
"""1.30.3 may have it, too: it came with the mending of Istio's issue 60560."""
TLS_NOT_LOOKED_FOR = Difference(
    (1, 25),
    "On a sidecar's port where HTTP is detected, TLS is told from other bytes only if a rule for "
    "the port asks for server names.",
    "TLS is always told from other bytes there.",
)
"""No release note; pull request 54080, merged between 1.24.0 and 1.25.0."""
ADDRESSES_GIVEN = Difference(
    (1, 25),
    "istiod gives a ServiceEntry without addresses one for each of its hosts, and sidecars that "
    "capture DNS (ISTIO_META_DNS_CAPTURE) have a listener for it.",
    "It does so for sidecars that ask for it by ISTIO_META_DNS_AUTO_ALLOCATE, too.",
    "PILOT_ENABLE_IP_AUTOALLOCATE",
)
PLAIN_JOINS_TLS = Difference(
    (1, 28),
    "On a gateway's port that begins with TLS, plain HTTP servers are joined, and TLS servers that "
    "come after the first of them are left out.",
    "On a gateway's port that begins with TLS, a plain HTTP server is taken only if it is the "
    "second server there; TLS servers after it are joined.",
)
"""1.27.4 has it, and of 1.28 all but 1.28.0: it came with the mending of Istio's issue 57706."""
EXPORTS_APART = Difference(
    (1, 24),
    "DestinationRules for one host in one namespace are joined only if their exportTo is written "
    "alike, or if the younger one's names all namespaces of the older one's; else a client gets "
    "one of them.",
    "All DestinationRules for one host in one namespace are joined, and the first exportTo that "
    "one of them states holds for all.",
    "ENABLE_ENHANCED_DESTINATIONRULE_MERGE",
)
"""Release note 52519, in 1.24.0."""
OLDEST_EXPORTS = Difference(
    (1, 24),
    "Where DestinationRules are joined, the exportTo of the oldest holds for all, also if it has "
    "none.",
    "Where DestinationRules are joined, the first exportTo that one of them states holds for all.",
)
"""Of the same change; it shows where `EXPORTS_APART` is switched off."""
EXPORT_DEFAULTS = Difference(
    (1, 31),
    "defaultServiceExportTo and defaultVirtualServiceExportTo may name namespaces.",
    "Of defaultServiceExportTo and defaultVirtualServiceExportTo only `.` and `*` are heeded; with "
    "neither, nobody sees what has no exportTo.",
)
"""1.30.3 has it, too. VirtualServices without hosts (delegates) always went by the names."""


@dataclass(frozen=True, slots=True)
class Istio:
    """The Istio of a mesh.

    `origin` says what its release is known from; "" where it is taken to be the newest that is
    known here. `settings` are the environment variables of istiod that are `switches`.
    """

    release: Release = NEWEST
    origin: str = field(default="", compare=False)
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)

    def has(self, difference: Difference) -> bool:
        """Whether it behaves as it does since the release of a difference."""
        set_to = self.settings.get(difference.switch, "") if difference.switch else ""
        return self.release >= difference.since and set_to not in GO_FALSE

    @property
    def doubt(self) -> str:
        """Why the model may not know how it routes; "" if it does."""
        if OLDEST <= self.release <= NEWEST:
            return ""
        known = f"what is known here is Istio {written(OLDEST)} to {written(NEWEST)}"
        where = f", as {self.origin} has it" if self.origin else ""
        return f"Istio {self.text}{where}, may route otherwise: {known}"

    @property
    def text(self) -> str:
        return written(self.release)


def written(release: Release) -> str:
    """A release as people write it."""
    return ".".join(map(str, release))


def release_of(text: str) -> Release | None:
    """The release of a version or of an image's tag (1.27, 1.27.3-distroless); None for none.

    Istio's have all been 1.x: other numbers are somebody's own.
    """
    found = _RELEASE.fullmatch(text)
    return (int(found[1]), int(found[2])) if found else None


def istio_given(text: str, origin: str) -> Istio:
    """The Istio of a version that somebody gives (1.27, 1.27.3). Raises ValueError for none."""
    release = release_of(text)
    if release is None:
        raise ValueError(f"{text!r} is no version of Istio; expected 1.27 or 1.27.3")
    return Istio(release, origin)


def differences() -> list[Difference]:
    """All that are known here."""
    return [each for each in globals().values() if isinstance(each, Difference)]


def switches() -> frozenset[str]:
    """The environment variables of istiod that bring an older behaviour back."""
    return frozenset(each.switch for each in differences() if each.switch)


def older_releases() -> list[Release]:
    """The last release before each difference that is known here, the newest first."""
    found = {each.since for each in differences()}
    return [(major, minor - 1) for major, minor in sorted(found, reverse=True)]
