"""Istio's own samples, read from its module: no finding that is not true.

A step holds what a sample's README, or the task of istio.io that uses it, has applied by then. It
is examined as it stands and with its namespaces labelled for injection, and must give exactly the
findings listed with it. REASONS says of every one why it is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from kubectl_mesh.mesh.resource import Resource, dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules import RULES
from kubectl_mesh.rules.examine import Report, examine
from kubectl_mesh.sources.config import find_mesh_config
from kubectl_mesh.sources.files import load

from .build import istio_module_dir
from .conftest import built

NO_DETAILS_V2 = "KM102 info DestinationRule default/details spec.subsets[1].labels"
NO_RATINGS_V2 = "KM102 info DestinationRule default/ratings spec.subsets[1].labels"
NO_RATINGS_MYSQL = "KM102 info DestinationRule default/ratings spec.subsets[2].labels"
RULE_AFTER_FAULT = "KM603 warning VirtualService default/details spec.http[0]"
NO_RATINGS_MYSQL_VM = "KM102 info DestinationRule default/ratings spec.subsets[3].labels"
OTHER_REVIEWS = "KM902 warning VirtualService default/reviews metadata.name"
OTHER_RATINGS = "KM902 warning VirtualService default/ratings metadata.name"
OTHER_DETAILS = "KM902 warning VirtualService default/details metadata.name"
OTHER_DETAILS_RULE = "KM902 warning DestinationRule default/details metadata.name"
OTHER_PRODUCTPAGE = "KM902 warning Service default/productpage metadata.name"
OTHER_TCP_ECHO = "KM902 warning VirtualService default/tcp-echo metadata.name"
OTHER_TCP_ECHO_ROUTE = "KM902 warning TCPRoute default/tcp-echo metadata.name"
OTHER_HELLOWORLD_ROUTE = "KM902 warning HTTPRoute default/helloworld metadata.name"
OTHER_REVIEWS_V2 = "KM902 warning Deployment default/reviews-v2 metadata.name"
BOOTSTRAP_ALONE = "KM305 warning Deployment default/helloworld-v1 spec.template.metadata.labels"
ECHO_HTTP = "KM307 info Service echo-grpc/echo spec.ports[0].targetPort"
ECHO_TCP = "KM307 info Service echo-grpc/echo spec.ports[2].targetPort"
OTEL_AUTH = "KM307 info Service observability/opentelemetry-collector spec.ports[3]"
SPIRE_BUNDLE = "KM307 info Service spire/spire-server-bundle-endpoint spec.ports[0]"

_REPLACED = "an earlier file of the task has it with other contents: the later one is what counts"
REASONS = {
    NO_DETAILS_V2: "destination-rule-all*.yaml defines details v2; its only pods are those of "
    "bookinfo-details-v2.yaml, which is not deployed, and no route names it",
    NO_RATINGS_V2: "destination-rule-all*.yaml defines ratings v2; its only pods are those of "
    "bookinfo-ratings-v2.yaml, which is not deployed, and no route names it",
    NO_RATINGS_MYSQL: "destination-rule-all*.yaml defines ratings v2-mysql; its only pods are "
    "those of bookinfo-ratings-v2-mysql.yaml, which is not deployed, and no route names it",
    NO_RATINGS_MYSQL_VM: "destination-rule-all*.yaml defines ratings v2-mysql-vm; its only pods "
    "are those of bookinfo-ratings-v2-mysql-vm.yaml, which is not deployed, and no route names it",
    RULE_AFTER_FAULT: "fault-injection-details-v1.yaml fails every request in a rule without "
    "match, and has a second rule for the same destination, which no proxy gets",
    OTHER_REVIEWS: _REPLACED,
    OTHER_RATINGS: _REPLACED,
    OTHER_DETAILS: _REPLACED,
    OTHER_DETAILS_RULE: "fault-injection-details-v1.yaml brings a DestinationRule of its own, "
    "without the subset v2 that destination-rule-all.yaml defines",
    OTHER_PRODUCTPAGE: "productpage-nodeport.yaml makes the Service of bookinfo.yaml a NodePort",
    OTHER_TCP_ECHO: _REPLACED,
    OTHER_TCP_ECHO_ROUTE: _REPLACED,
    OTHER_HELLOWORLD_ROUTE: _REPLACED,
    OTHER_REVIEWS_V2: "bookinfo.yaml has the Deployment with serviceAccountName: bookinfo-reviews, "
    "bookinfo-reviews-v2.yaml without",
    BOOTSTRAP_ALONE: "example-app.yaml is a Deployment with a port and no Service, and its README "
    "deploys none",
    ECHO_HTTP: "targetPort 18080 is no containerPort: the containers open it by --port 18080 and "
    "declare 17070, 17171, 8080 and 3333 only",
    ECHO_TCP: "targetPort 19090 is no containerPort: the containers open it by --tcp 19090 and "
    "declare 17070, 17171, 8080 and 3333 only",
    OTEL_AUTH: "port 5317 is no containerPort: the collector opens it by its configuration "
    "(receiver otlp/auth), and the pod declares 4317, 4318 and 55678 only",
    SPIRE_BUNDLE: "port 8443 is no containerPort: spire-server opens it by its configuration "
    "(federation.bundle_endpoint), and the pod declares 8081 and 9443 only",
}

KUBE = "bookinfo/platform/kube/"
NETWORKING = "bookinfo/networking/"
BOOKINFO = (f"{KUBE}bookinfo.yaml", f"{NETWORKING}bookinfo-gateway.yaml")
SUBSETS = (*BOOKINFO, f"{NETWORKING}destination-rule-all.yaml")
ALL_V1 = (*SUBSETS, f"{NETWORKING}virtual-service-all-v1.yaml")
UNUSED = (NO_DETAILS_V2, NO_RATINGS_V2, NO_RATINGS_MYSQL, NO_RATINGS_MYSQL_VM)
VERSIONS = (f"{KUBE}bookinfo.yaml", f"{KUBE}bookinfo-versions.yaml")
VERSIONED = (*VERSIONS, "bookinfo/gateway-api/bookinfo-gateway.yaml")
TCP_ECHO = ("tcp-echo/tcp-echo-services.yaml", "tcp-echo/tcp-echo-all-v1.yaml")
TCP_ECHO_ROUTES = (
    "tcp-echo/tcp-echo-services.yaml",
    "tcp-echo/gateway-api/tcp-echo-all-v1.yaml",
)
FORTIO = ("httpbin/httpbin.yaml", "httpbin/sample-client/fortio-deploy.yaml")
AMBIENT = tuple(
    f"ambient-argo/application/{name}.yaml -n ambient"
    for name in (
        "namespace",
        "bookinfo-versions",
        "details-waypoint",
        "details",
        "ingress-gateway",
        "productpage",
        "ratings",
        "reviews-waypoint",
        "reviews",
        "route-reviews-90-10",
    )
)


@dataclass(frozen=True)
class Step:
    """What is applied by then, as `kubectl apply -f` has it, and all that is to be found.

    `injected` is what is found besides where the namespaces are labelled for injection.
    """

    name: str
    files: tuple[str, ...]
    findings: tuple[str, ...] = ()
    injected: tuple[str, ...] = ()


def alone(*files: str) -> list[Step]:
    """Samples of one file, in which nothing is to be found."""
    return [Step(file.partition(" ")[0], (file,)) for file in files]


STEPS = [
    # Bookinfo, with what its README and the tasks of istio.io add to it.
    Step("bookinfo", BOOKINFO),
    Step("bookinfo: subsets", SUBSETS, UNUSED),
    Step(
        "bookinfo: subsets, mtls",
        (*BOOKINFO, f"{NETWORKING}destination-rule-all-mtls.yaml"),
        UNUSED,
    ),
    Step("bookinfo: subsets of reviews", (*BOOKINFO, f"{NETWORKING}destination-rule-reviews.yaml")),
    Step("bookinfo: all v1", ALL_V1, UNUSED),
    *(
        Step(f"bookinfo: {name}", (*SUBSETS, f"{NETWORKING}virtual-service-{name}.yaml"), UNUSED)
        for name in (
            "ratings-test-abort",
            "ratings-test-delay",
            "reviews-50-v3",
            "reviews-80-20",
            "reviews-90-10",
            "reviews-jason-v2-v3",
            "reviews-test-v2",
            "reviews-v2-v3",
            "reviews-v3",
        )
    ),
    *(
        Step(
            f"bookinfo: all v1, then {name}",
            (*ALL_V1, f"{NETWORKING}virtual-service-{name}.yaml"),
            (OTHER_REVIEWS, *UNUSED),
        )
        for name in ("reviews-test-v2", "reviews-50-v3", "reviews-v3")
    ),
    *(
        Step(
            f"bookinfo: fault injection, {name}",
            (
                *ALL_V1,
                f"{NETWORKING}virtual-service-reviews-test-v2.yaml",
                f"{NETWORKING}virtual-service-{name}.yaml",
            ),
            (OTHER_REVIEWS, OTHER_RATINGS, *UNUSED),
        )
        for name in ("ratings-test-abort", "ratings-test-delay")
    ),
    Step(
        "bookinfo: details v2",
        (
            *SUBSETS,
            f"{KUBE}bookinfo-details-v2.yaml",
            f"{NETWORKING}virtual-service-details-v2.yaml",
        ),
        (NO_RATINGS_V2, NO_RATINGS_MYSQL, NO_RATINGS_MYSQL_VM),
    ),
    Step(
        "bookinfo: ratings from MongoDB",
        (
            *SUBSETS,
            f"{KUBE}bookinfo-ratings-v2.yaml",
            f"{KUBE}bookinfo-db.yaml",
            f"{NETWORKING}virtual-service-ratings-db.yaml",
        ),
        (NO_DETAILS_V2, NO_RATINGS_MYSQL, NO_RATINGS_MYSQL_VM),
    ),
    Step(
        "bookinfo: ratings from MySQL",
        (
            *SUBSETS,
            f"{KUBE}bookinfo-ratings-v2-mysql.yaml",
            f"{KUBE}bookinfo-mysql.yaml",
            f"{NETWORKING}virtual-service-ratings-mysql.yaml",
        ),
        (NO_DETAILS_V2, NO_RATINGS_V2, NO_RATINGS_MYSQL_VM),
    ),
    Step(
        "bookinfo: ratings from MySQL on a virtual machine",
        (
            *SUBSETS,
            f"{KUBE}bookinfo-ratings-v2-mysql-vm.yaml",
            f"{NETWORKING}virtual-service-ratings-mysql-vm.yaml",
        ),
        (NO_DETAILS_V2, NO_RATINGS_V2, NO_RATINGS_MYSQL),
    ),
    Step(
        "bookinfo: details fail",
        (*BOOKINFO, f"{NETWORKING}fault-injection-details-v1.yaml"),
        (RULE_AFTER_FAULT,),
    ),
    Step(
        "bookinfo: all v1, then details fail",
        (*ALL_V1, f"{NETWORKING}fault-injection-details-v1.yaml"),
        (
            RULE_AFTER_FAULT,
            OTHER_DETAILS,
            OTHER_DETAILS_RULE,
            NO_RATINGS_V2,
            NO_RATINGS_MYSQL,
            NO_RATINGS_MYSQL_VM,
        ),
    ),
    Step("bookinfo: books from Google", (*BOOKINFO, f"{NETWORKING}egress-rule-google-apis.yaml")),
    Step(
        "bookinfo: certificates",
        (
            *BOOKINFO,
            f"{KUBE}bookinfo-certificate.yaml",
            f"{NETWORKING}certmanager-gateway.yaml",
        ),
    ),
    Step("bookinfo: Ingress", (f"{KUBE}bookinfo.yaml", f"{KUBE}bookinfo-ingress.yaml")),
    Step(
        "bookinfo: NodePort",
        (f"{KUBE}bookinfo.yaml", f"{KUBE}productpage-nodeport.yaml"),
        (OTHER_PRODUCTPAGE,),
    ),
    Step(
        "bookinfo: reviews v2", (*BOOKINFO, f"{KUBE}bookinfo-reviews-v2.yaml"), (OTHER_REVIEWS_V2,)
    ),
    Step("bookinfo: a Service for each version", (*BOOKINFO, f"{KUBE}bookinfo-versions.yaml")),
    Step(
        "bookinfo: rate limits",
        (
            *BOOKINFO,
            "ratelimit/rate-limit-service.yaml",
            "bookinfo/policy/productpage_envoy_ratelimit.yaml",
            "ratelimit/local-rate-limit-service.yaml",
        ),
    ),
    *(
        Step(
            f"bookinfo: {name}, all v1",
            (f"{KUBE}bookinfo-{name}.yaml", *BOOKINFO[1:], *ALL_V1[len(BOOKINFO) :]),
            UNUSED,
        )
        for name in ("dualstack", "psa")
    ),
    *alone(
        f"{KUBE}bookinfo-details.yaml",
        f"{KUBE}bookinfo-details-dualstack.yaml",
        f"{KUBE}bookinfo-ratings.yaml",
        f"{KUBE}bookinfo-ratings-dualstack.yaml",
        f"{KUBE}bookinfo-ratings-discovery.yaml",
        f"{KUBE}bookinfo-ratings-discovery-dualstack.yaml",
        f"{KUBE}bookinfo-versions.yaml",
        f"{NETWORKING}destination-rule-all.yaml",
        f"{NETWORKING}destination-rule-all-mtls.yaml",
        f"{NETWORKING}destination-rule-reviews.yaml",
        f"{NETWORKING}egress-rule-google-apis.yaml",
        "bookinfo/demo-profile-no-gateways.yaml",
    ),
    Step(
        "bookinfo: details fail, by itself",
        (f"{NETWORKING}fault-injection-details-v1.yaml",),
        (RULE_AFTER_FAULT,),
    ),
    Step("bookinfo: Gateway API", VERSIONED),
    *(
        Step(f"bookinfo: Gateway API, {name}", (*VERSIONED, f"bookinfo/gateway-api/{name}.yaml"))
        for name in (
            "route-all-v1",
            "route-reviews-50-v3",
            "route-reviews-90-10",
            "route-reviews-v1",
            "route-reviews-v3",
        )
    ),
    Step("bookinfo: ambient", AMBIENT),
    *alone(
        "ambient-argo/meta-application.yaml",
        "ambient-argo/application/application.yaml",
        "ambient-argo/istio/cni.yaml",
        "ambient-argo/istio/control-plane-appset.yaml",
        "ambient-argo/istio/extras.yaml",
        "ambient-argo/istio/tags.yaml",
        "ambient-argo/istio/ztunnel.yaml",
    ),
    # The other applications.
    *alone("helloworld/helloworld.yaml", "helloworld/helloworld-dual-stack.yaml"),
    Step("helloworld", ("helloworld/helloworld.yaml", "helloworld/helloworld-gateway.yaml")),
    Step(
        "helloworld: Gateway API",
        (
            "helloworld/helloworld.yaml",
            "helloworld/gateway-api/helloworld-gateway.yaml",
            "helloworld/gateway-api/helloworld-versions.yaml",
            "helloworld/gateway-api/helloworld-route.yaml",
        ),
        findings=(OTHER_HELLOWORLD_ROUTE,),
    ),
    *alone("httpbin/httpbin.yaml", "httpbin/httpbin-nodeport.yaml"),
    Step("httpbin", (*FORTIO, "httpbin/httpbin-gateway.yaml")),
    Step("httpbin: Gateway API", (*FORTIO, "httpbin/gateway-api/httpbin-gateway.yaml")),
    *alone("sleep/sleep.yaml", "curl/curl.yaml", "mtls-echo/mtls-echo.yaml"),
    Step("sleep: in two namespaces", ("sleep/sleep.yaml -n foo", "httpbin/httpbin.yaml -n bar")),
    *alone(
        "tcp-echo/tcp-echo.yaml",
        "tcp-echo/tcp-echo-services.yaml",
        "tcp-echo/tcp-echo-dual-stack.yaml",
        "tcp-echo/tcp-echo-ipv4.yaml",
        "tcp-echo/tcp-echo-ipv6.yaml",
    ),
    Step("tcp-echo: all v1", TCP_ECHO),
    Step("tcp-echo: 20 % to v2", (*TCP_ECHO, "tcp-echo/tcp-echo-20-v2.yaml"), (OTHER_TCP_ECHO,)),
    Step("tcp-echo: Gateway API", TCP_ECHO_ROUTES),
    Step(
        "tcp-echo: Gateway API, 20 % to v2",
        (*TCP_ECHO_ROUTES, "tcp-echo/gateway-api/tcp-echo-20-v2.yaml"),
        findings=(OTHER_TCP_ECHO_ROUTE,),
    ),
    Step("websockets", ("websockets/app.yaml", "websockets/route.yaml")),
    Step("extauthz", ("extauthz/ext-authz.yaml", "sleep/sleep.yaml")),
    *alone("extauthz/local-ext-authz.yaml"),
    Step("grpc-echo", ("grpc-echo/grpc-echo.yaml -n echo-grpc",), findings=(ECHO_HTTP, ECHO_TCP)),
    Step(
        "custom-bootstrap",
        ("custom-bootstrap/custom-bootstrap.yaml", "custom-bootstrap/example-app.yaml"),
        injected=(BOOTSTRAP_ALONE,),
    ),
    *alone(
        "health-check/liveness-command.yaml",
        "health-check/liveness-http-same-port.yaml",
        "jwt-server/jwt-server.yaml",
        "ratelimit/rate-limit-service.yaml",
        "ratelimit/local-rate-limit-service.yaml",
        "external/aptget.yaml",
        "external/github.yaml",
        "external/pypi.yaml",
        "proxy-coredump/daemonset.yaml",
    ),
    # What belongs to the mesh itself.
    Step(
        "addons",
        tuple(
            f"addons/{name}.yaml" for name in ("grafana", "jaeger", "kiali", "loki", "prometheus")
        ),
    ),
    *alone(
        "addons/grafana.yaml",
        "addons/jaeger.yaml",
        "addons/kiali.yaml",
        "addons/loki.yaml",
        "addons/prometheus.yaml",
        "addons/extras/prometheus-operator.yaml",
        "addons/extras/prometheus-secure-metrics.yaml",
        "addons/extras/skywalking.yaml",
        "addons/extras/zipkin.yaml",
    ),
    Step(
        "open-telemetry: als", (*FORTIO, "open-telemetry/otel.yaml -n observability"), (OTEL_AUTH,)
    ),
    Step(
        "open-telemetry: loki",
        (
            *FORTIO,
            "addons/loki.yaml -n istio-system",
            "open-telemetry/loki/iop.yaml",
            "open-telemetry/loki/otel.yaml -n istio-system",
            "open-telemetry/loki/telemetry.yaml",
        ),
    ),
    Step(
        "open-telemetry: tracing",
        (
            *BOOKINFO,
            "addons/jaeger.yaml",
            "open-telemetry/otel.yaml -n observability",
            "open-telemetry/tracing/telemetry.yaml",
        ),
        (OTEL_AUTH,),
    ),
    *alone(
        "multicluster/expose-istiod.yaml -n istio-system",
        "multicluster/expose-istiod-https.yaml -n istio-system",
        "multicluster/expose-services.yaml -n istio-system",
    ),
    Step(
        "multicluster: with an addon",
        ("multicluster/expose-istiod.yaml -n istio-system", "addons/kiali.yaml"),
    ),
    *(
        Step(
            f"spire: {client}",
            (
                "security/spire/spire-quickstart.yaml",
                "security/spire/istio-spire-config.yaml",
                "security/spire/clusterspiffeid.yaml",
                f"security/spire/{client}-spire.yaml",
            ),
            (SPIRE_BUNDLE,),
        )
        for client in ("curl", "sleep")
    ),
    *alone(
        "security/psp/sidecar-psp.yaml",
        "security/spire-trust-domain-federation/cluster-federated-trust-domain.yaml",
    ),
]

NO_MANIFESTS = {
    "ambient-argo/tag-chart/": "a Helm chart, whose templates are no YAML",
    "bookinfo/swagger.yaml": "describes an HTTP API",
    "cicd/skaffold/skaffold.yaml": "the configuration of a tool",
    "security/spire-trust-domain-federation/spire-": "values of a Helm chart",
}


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of the samples in Istio's module."""
    return built(istio_module_dir) / "samples"


def apply(samples: Path, files: tuple[str, ...]) -> list[Resource]:
    """What is in `files`, of which each may say `-n NAMESPACE`."""
    resources = []
    for file in files:
        name, _, namespace = file.partition(" -n ")
        read, unreadable = load([str(samples / name)], namespace=namespace or "default")
        assert not unreadable, unreadable
        resources += read
    return resources


def labelled_namespaces(resources: list[Resource], file: Path) -> list[Resource]:
    """A Namespace with injection for each that `resources` are in and do not bring themselves."""
    there = {resource.name for resource in resources if resource.kind == "Namespace"}
    names = {resource.namespace for resource in resources} - there - {"", "istio-system"}
    file.write_text(
        "---\n".join(
            "apiVersion: v1\nkind: Namespace\n"
            f"metadata: {{name: {name}, labels: {{istio-injection: enabled}}}}\n"
            for name in sorted(names)
        )
    )
    return load([str(file)])[0]


def rendered(report: Report) -> list[str]:
    return sorted(
        f"{found.rule.code} {found.severity.label} {found.resource} {dotted(found.path) or '-'}"
        for found in report.findings
    )


def check(resources: list[Resource], expected: tuple[str, ...]) -> None:
    report = examine(Snapshot(resources, find_mesh_config(resources)), RULES)
    assert not report.crashes
    assert rendered(report) == sorted(expected)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_as_it_stands(step: Step, samples: Path) -> None:
    check(apply(samples, step.files), step.findings)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_with_sidecars(step: Step, samples: Path, tmp_path: Path) -> None:
    resources = apply(samples, step.files)
    resources += labelled_namespaces(resources, tmp_path / "namespaces.yaml")
    check(resources, (*step.findings, *step.injected))


def test_every_finding_has_its_reason() -> None:
    found = {finding for step in STEPS for finding in (*step.findings, *step.injected)}
    assert found == set(REASONS)


def test_no_sample_is_left_out(samples: Path) -> None:
    files = {str(file.relative_to(samples)) for file in samples.rglob("*.yaml")}
    applied = {file.partition(" ")[0] for step in STEPS for file in step.files}
    assert {file for file in files - applied if not file.startswith(tuple(NO_MANIFESTS))} == set()
