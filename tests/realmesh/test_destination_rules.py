"""Which DestinationRule a client goes by, and what it gets where the subset is missing.

Section 10 of Istio's behaviour. The Services, most of them in the namespace shop, each have a pod
of v1 and one of v2; their VirtualServices send all requests to the subset `blue`, for which the
rules differ. All tests share one mesh: see given.py.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from kubectl_mesh.mesh.versions import EXPORTS_APART

from .client import PATIENCE
from .envoy import Proxy
from .given import Given, Service, Younger, service
from .istiod import istio
from .manifests import Object, destination, destination_rule, subset, to, virtual_service
from .mesh import ROOT_NAMESPACE, Mesh

pytestmark = pytest.mark.each_istio

BLUE_V1 = subset("blue", version="v1")
BLUE_V2 = subset("blue", version="v2")
GREEN = subset("green", version="v2")
ONE_CONNECTION = {"connectionPool": {"tcp": {"maxConnections": 1}}}
TWO_CONNECTIONS = {"connectionPool": {"tcp": {"maxConnections": 2}}}

given = Given()


def full(name: str, namespace: str = "shop") -> str:
    return f"{name}.{namespace}.svc.cluster.local"


def pods(name: str, namespace: str = "shop", **how: Any) -> Service:
    """A Service with a pod of v1 and one of v2."""
    return service(name, namespace=namespace, pods={"v1": 1, "v2": 1}, **how)


def shop(*names: str, namespace: str = "shop", **more: Any) -> list[Service | Object]:
    """Services whose requests go to their subset blue; `more` is added to that rule."""
    made: list[Service | Object] = []
    for name in names:
        host = full(name, namespace)
        blue = to(host, subset="blue", **more)
        made += [pods(name, namespace), virtual_service(name, host, blue, namespace=namespace)]
    return made


def rule(namespace: str, host: str, *subsets: Object, name: str = "", **spec: Any) -> Object:
    """A DestinationRule, named for the first part of its host unless told otherwise."""
    name = name or host.partition(".")[0].replace("*", "all")
    return destination_rule(name, host, *subsets, namespace=namespace, **spec)


class Clients(NamedTuple):
    """Sidecars, each in the namespace of its name."""

    front: Proxy
    other: Proxy
    root: Proxy  # in istio-system
    shop: Proxy
    exports: Proxy
    wide: Proxy
    chosen: Proxy  # in the namespace picky, labelled app: chosen
    ordinary: Proxy  # there, too, labelled app: ordinary


@pytest.fixture(scope="module")
def clients(session_mesh: Mesh) -> Iterator[Clients]:
    sidecar = session_mesh.sidecar
    with given.applied(session_mesh):
        made = Clients(
            *(
                sidecar(each)
                for each in ("front", "other", ROOT_NAMESPACE, "shop", "exports", "wide")
            ),
            *(sidecar("picky", {"app": app}) for app in ("chosen", "ordinary")),
        )
        session_mesh.settled()
        yield made


def ask(proxy: Proxy, name: str, namespace: str = "shop") -> str | int:
    """The version that answers; else Envoy's flags on a 503: NC is no such cluster, UH no host."""
    answer = proxy.request("GET", f"{name}.{namespace}:5000")
    if answer.status == 503:
        line = proxy.explain("GET", f"{name}.{namespace}:5000")
        assert line["response_code"] == 503
        flags: str = line["response_flags"]
        return flags
    return answer.version or answer.status


def clusters(proxy: Proxy, name: str, subset: str = "") -> list[Object]:
    """What the proxy has of the cluster of a subset, or of the Service itself: one, or none."""
    pattern = quote(re.escape(f"outbound|5000|{subset}|{full(name)}"))
    dump = proxy.admin(f"/config_dump?resource=dynamic_active_clusters&name_regex={pattern}")
    return [each["cluster"] for each in dump.get("configs", ())]


@given(
    *shop("web", "same"),
    rule("shop", full("web"), BLUE_V1),
    rule("front", full("web"), GREEN),
    rule("shop", full("same"), BLUE_V1),
    rule("front", full("same"), BLUE_V2),
)
def test_a_rule_in_the_client_s_namespace_hides_the_service_namespace_s(clients: Clients) -> None:
    """One namespace alone counts: the client's, even if its rule lacks the subset."""
    assert ask(clients.front, "web") == "NC"
    assert ask(clients.other, "web") == "v1"
    assert ask(clients.front, "same") == "v2"
    assert ask(clients.other, "same") == "v1"


@given(
    *shop("bare", "ruled", "client-ruled"),
    *(rule(ROOT_NAMESPACE, full(name), BLUE_V1) for name in ("bare", "ruled", "client-ruled")),
    rule("shop", full("ruled"), GREEN),
    rule("front", full("client-ruled"), GREEN),
)
def test_the_root_namespace_s_rules_count_where_there_are_no_others(clients: Clients) -> None:
    """The service's namespace comes before the root namespace, and the client's before both."""
    assert ask(clients.other, "bare") == "v1"
    assert ask(clients.other, "ruled") == "NC"
    assert ask(clients.front, "client-ruled") == "NC"
    assert ask(clients.other, "client-ruled") == "v1"


@given(
    *shop("both", "root-alone", "root-private"),
    rule("shop", full("both"), BLUE_V1),
    rule(ROOT_NAMESPACE, full("both"), GREEN),
    rule(ROOT_NAMESPACE, full("root-alone"), BLUE_V1),
    rule("shop", full("root-private"), BLUE_V1),
    rule(ROOT_NAMESPACE, full("root-private"), GREEN, exportTo=["."]),
)
def test_a_client_in_the_root_namespace_begins_with_the_service_s(clients: Clients) -> None:
    """The rules of the root namespace are everybody's: not, first, those of gateways in it.

    Save for one that is exported to that namespace alone, which is theirs.
    """
    assert ask(clients.root, "both") == "v1"
    assert ask(clients.root, "root-alone") == "v1"
    assert ask(clients.root, "root-private") == "NC"
    assert ask(clients.other, "root-private") == "v1"


@given(
    *shop("exact", "wild", "narrow-a", namespace="hosts"),
    rule("hosts", full("*", "hosts"), BLUE_V1),
    rule("hosts", full("exact", "hosts"), GREEN),
    rule("hosts", full("*-a", "hosts"), BLUE_V2),
    rule("wide", "*.local", GREEN),
)
def test_the_most_specific_host_counts_alone(clients: Clients) -> None:
    """Rules of an exact host and of a wildcard do not add up, in the namespace that counts.

    A wildcard in the client's namespace hides an exact host in the service's.
    """
    assert ask(clients.other, "wild", "hosts") == "v1"
    assert ask(clients.other, "exact", "hosts") == "NC"
    assert ask(clients.other, "narrow-a", "hosts") == "v2"
    assert ask(clients.wide, "narrow-a", "hosts") == "NC"


@given(
    *shop("strict", "lax"),
    rule("shop", full("strict"), BLUE_V1, name="strict-z", trafficPolicy=ONE_CONNECTION),
    Younger(
        rule(
            "shop",
            full("strict"),
            BLUE_V2,
            GREEN,
            name="strict-a",
            trafficPolicy=TWO_CONNECTIONS,
        )
    ),
    rule("shop", full("lax"), BLUE_V1, name="lax-z"),
    Younger(rule("shop", full("lax"), GREEN, name="lax-a", trafficPolicy=TWO_CONNECTIONS)),
)
def test_two_rules_of_one_host_and_namespace_are_joined(clients: Clients) -> None:
    """Subsets add up, and the older rule keeps a name that both have.

    So it does with its traffic policy; the younger one's counts where the older has none.
    """
    other = clients.other
    assert {ask(other, "strict") for _ in range(10)} == {"v1"}
    assert [_connections(other, "strict", subset) for subset in ("", "blue", "green")] == [1, 1, 1]
    assert [_connections(other, "lax", subset) for subset in ("", "blue", "green")] == [2, 2, 2]


def _connections(proxy: Proxy, name: str, subset: str) -> int:
    (found,) = clusters(proxy, name, subset)
    (threshold,) = found["circuit_breakers"]["thresholds"]
    allowed: int = threshold["max_connections"]
    return allowed


@given(
    *shop("reduced", "replaced", "widened"),
    rule("shop", full("reduced"), BLUE_V1, name="reduced-older"),
    Younger(rule("shop", full("reduced"), GREEN, name="reduced-younger", exportTo=["front"])),
    rule("shop", full("replaced"), BLUE_V1, name="replaced-older"),
    Younger(rule("shop", full("replaced"), GREEN, name="replaced-younger", exportTo=["*"])),
    rule("shop", full("widened"), GREEN, name="widened-older", exportTo=["front"]),
    Younger(
        rule("shop", full("widened"), BLUE_V1, name="widened-younger", exportTo=["front", "other"])
    ),
)
def test_a_younger_rule_s_export_can_take_the_older_one_s_away(clients: Clients) -> None:
    """Before 1.24 the first exportTo that is stated decides for all rules of a host.

    Since then rules are joined if theirs is written alike; else a client gets the last of those
    that are exported to it. A younger one that is exported to more is part of the older one alone.
    """
    names = ("reduced", "replaced", "widened")
    apart = istio().has(EXPORTS_APART)
    front, other = ([ask(client, name) for name in names] for client in clients[:2])
    assert front == (["NC", "NC", "v1"] if apart else ["v1", "v1", "v1"])
    assert other == (["v1", "NC", "NC"] if apart else ["NC", "v1", "NC"])


@given(
    *shop("own", "nobody", "named"),
    rule("shop", full("own"), BLUE_V1, exportTo=["."]),
    rule("shop", full("nobody"), BLUE_V1, exportTo=["~"]),
    rule("shop", full("named"), BLUE_V1, exportTo=["front"]),
)
def test_a_rule_counts_where_it_is_exported_to(clients: Clients) -> None:
    """`.` is its own namespace, `~` none, a name that one."""
    names = ("own", "nobody", "named")
    assert [ask(clients.shop, name) for name in names] == ["v1", "NC", "NC"]
    assert [ask(clients.front, name) for name in names] == ["NC", "NC", "v1"]
    assert [ask(clients.other, name) for name in names] == ["NC", "NC", "NC"]


@given(
    *shop("named", "private", namespace="exports"),
    rule("exports", full("*", "exports"), BLUE_V2),
    rule("exports", full("named", "exports"), BLUE_V1, exportTo=["front"]),
    rule("exports", full("private", "exports"), BLUE_V1, exportTo=["."]),
)
def test_a_rule_that_is_exported_to_somebody_else_hides_a_wildcard(clients: Clients) -> None:
    """From clients that it is not exported to. One that is private does not."""
    names = ("named", "private")
    assert [ask(clients.other, name, "exports") for name in names] == ["NC", "v2"]
    assert [ask(clients.front, name, "exports") for name in names] == ["v1", "v2"]
    assert [ask(clients.exports, name, "exports") for name in names] == ["v2", "v1"]


@given(
    *shop("unruled", "unknown", "empty", "fine"),
    rule("shop", full("unknown"), GREEN),
    rule("shop", full("empty"), subset("blue", version="v3")),
    rule("shop", full("fine"), BLUE_V1),
)
def test_a_subset_without_a_rule_or_without_a_pod_gives_503(clients: Clients) -> None:
    """NC where no rule has the subset, UH where it selects no ready pod: both for all requests."""
    answers = [ask(clients.other, name) for name in ("unruled", "unknown", "empty", "fine")]
    assert answers == ["NC", "NC", "UH", "v1"]


@given(
    pods("weighted"),
    virtual_service(
        "weighted",
        full("weighted"),
        {
            "route": [
                destination(full("weighted"), subset=name, weight=50)
                for name in ("blue", "unknown")
            ]
        },
        namespace="shop",
    ),
    rule("shop", full("weighted"), BLUE_V1),
)
def test_one_unknown_subset_among_weighted_ones_fails_its_share(clients: Clients) -> None:
    """Nothing takes over the share of a destination that does not exist."""
    answers = {clients.other.request("GET", "weighted.shop:5000").status for _ in range(50)}
    assert answers == {200, 503}


@given(
    *shop("unseen", mirror={"host": full("unseen"), "subset": "unknown"}),
    *shop("seen", mirror={"host": full("seen"), "subset": "green"}),
    rule("shop", full("unseen"), BLUE_V1, GREEN),
    rule("shop", full("seen"), BLUE_V1, GREEN),
)
def test_a_mirror_to_an_unknown_subset_is_lost_in_silence(clients: Clients) -> None:
    """The request itself fares as if there were no mirror."""
    other = clients.other
    assert [ask(other, "unseen"), ask(other, "seen")] == ["v1", "v1"]
    deadline = time.monotonic() + PATIENCE
    while not _requests(other, "seen", "green") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _requests(other, "seen", "green") == 1
    assert _requests(other, "unseen", "green") == 0


def _requests(proxy: Proxy, name: str, subset: str) -> int:
    name = f"cluster.outbound|5000|{subset}|{full(name)}.upstream_rq_total"
    total: int = proxy.stats(r"upstream_rq_total$").get(name, 0)
    return total


def blue_tcp(name: str) -> Object:
    route = to(full(name), subset="blue")
    return virtual_service(name, full(name), namespace="shop", tcp=[route])


@given(
    pods("tcp-fine", ports={"tcp": 9001}),
    pods("tcp-unknown", ports={"tcp": 9002}),
    blue_tcp("tcp-fine"),
    blue_tcp("tcp-unknown"),
    rule("shop", full("tcp-fine"), BLUE_V1),
    rule("shop", full("tcp-unknown"), GREEN),
)
def test_a_tcp_route_to_an_unknown_subset_closes_the_connection(clients: Clients) -> None:
    """No client hears a reason; only the access log has one."""
    other = clients.other
    assert {other.request("GET", "tcp-fine.shop:9001").version for _ in range(10)} == {"v1"}
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        other.request("GET", "tcp-unknown.shop:9002")


PICKY = ("beside", "private")
SELECTOR: Object = {"workloadSelector": {"matchLabels": {"app": "chosen"}}}


@given(
    *shop("lone", "beside", "private"),
    *(rule("shop", full(name), BLUE_V1) for name in ("lone", "beside", "private")),
    rule("picky", full("beside"), BLUE_V1, GREEN),
    rule("picky", full("private"), BLUE_V1, GREEN, exportTo=["."]),
    rule("picky", full("lone"), BLUE_V2, **SELECTOR),
    *(rule("picky", full(name), BLUE_V2, name=f"z-{name}", **SELECTOR) for name in PICKY),
)
def test_a_rule_with_a_workload_selector_is_for_those_workloads(clients: Clients) -> None:
    """And yet it hides the service namespace's rule from the others, too.

    Another rule of its namespace that has no selector is for the others. Before 1.24 it is joined
    with the first for those that it selects, which comes first whatever its age. Since then it is
    joined only if it is exported to its namespace alone, and the others do not have it then.
    """
    chosen, ordinary, elsewhere = clients.chosen, clients.ordinary, clients.other
    apart = istio().has(EXPORTS_APART)
    assert [ask(each, "lone") for each in (chosen, ordinary, elsewhere)] == ["v2", "NC", "v1"]
    assert [ask(chosen, name) for name in PICKY] == ["v2", "v2"]
    assert [ask(ordinary, name) for name in PICKY] == ["v1", "NC" if apart else "v1"]
    assert [bool(clusters(chosen, name, "green")) for name in PICKY] == [not apart, True]
