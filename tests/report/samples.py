"""Reports to render: texts of our own, so that no rule's wording is tested here."""

from __future__ import annotations

from dataclasses import dataclass, field

from kubectl_mesh.mesh.resource import Path, Position, Resource, ResourceId
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.examine import Report, Skipped
from kubectl_mesh.rules.rule import Finding, Severity

HOSTILE = (
    "\x1b]0;owned\x07 \x9b31m \u202eevil\u2066 \u2028 \ud800 \x00 <&'\"> ]]> ü 漢 \U0001f600\r\n\t"
)
HOSTILE_FILE = HOSTILE.replace("\ud800", "\udcff").replace("\0", "")
CLEAN = Report((), (), 12)


@dataclass(frozen=True)
class Origin:
    """A file, in which the field at a path stands where `positions` says; or a context."""

    name: str
    positions: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def locate(self, path: Path) -> Position | None:
        return Position(self.name, *self.positions[path]) if path in self.positions else None


def resource(kind: str, namespace: str, name: str, origin: Origin) -> Resource:
    return Resource(ResourceId(kind, namespace, name), "networking.istio.io/v1", {}, {}, origin)


def finding(code: str, severity: Severity, where: Resource, path: Path, *texts: str) -> Finding:
    message, traffic, after, *evidence = texts
    return BY_CODE[code].finding(
        where,
        path,
        message,
        traffic=traffic,
        next=after,
        severity=severity,
        evidence=tuple(evidence),
        related=(ResourceId("DestinationRule", "shop", "cart"),),
    )


SUBSET: Path = ("spec", "http", 0, "route", 1, "destination", "subset")
MIRROR: Path = ("spec", "http", 0, "mirror", "subset")
LABEL: Path = ("metadata", "labels", "a/b~c")
CART = resource(
    "VirtualService",
    "shop",
    "cart",
    Origin("mesh/cart of shop.yaml", {SUBSET: (24, 36), MIRROR: (31, 5)}),
)
LIVE = resource("Gateway", "istio-ingress", "main", Origin("prod-eu"))
FINDINGS = (
    finding(
        "KM101",
        Severity.ERROR,
        CART,
        SUBSET,
        "10 % go to the subset v2 of cart.shop.svc.cluster.local, which is not defined anywhere",
        "10 % of requests get 503 (response flag NC: no cluster)",
        "kubectl edit destinationrule -n shop cart, and add the subset v2",
        "DestinationRule shop/cart defines v1",
        "6 of 6 sidecars have it",
    ),
    finding(
        "KM101", Severity.ERROR, CART, MIRROR, "copies go nowhere", "copies are lost", "add it"
    ),
    finding("KM104", Severity.WARNING, LIVE, LABEL, "an odd label", "none yet", "remove it"),
    finding("KM902", Severity.INFO, LIVE, (), "worth knowing", "none", "nothing"),
)
SKIPPED = (
    Skipped("KM900", "not YAML: a tab", True, Position("mesh/broken.yaml", 3, 1)),
    Skipped("KM102", "cannot list pods: forbidden", True),
    Skipped("KM103", "cannot list pods: forbidden", True),
    *(
        Skipped("KM103", f"the input holds no workload of the namespace team-{number}", False)
        for number in range(8)
    ),
)
FULL = Report(FINDINGS, SKIPPED, 45)


def hostile() -> Report:
    """A report in which every text that comes from the input is HOSTILE."""
    path: Path = ("spec", HOSTILE)
    where = resource(HOSTILE, HOSTILE, HOSTILE, Origin(HOSTILE_FILE, {path: (1, 1)}))
    found = finding("KM101", Severity.ERROR, where, path, *[HOSTILE] * 4)
    live = resource(HOSTILE, "", HOSTILE, Origin(HOSTILE))
    other = finding("KM104", Severity.INFO, live, path, *[HOSTILE] * 4)
    skipped = (
        Skipped("KM900", HOSTILE, True, Position(HOSTILE_FILE, 1, 1)),
        Skipped("KM102", HOSTILE, False),
    )
    return Report((found, other), skipped, 2)
