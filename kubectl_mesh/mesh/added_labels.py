"""Labels of pods and endpoints that no template decides: who adds them, and to what.

istiod adds to the labels of each endpoint where it runs (`AugmentLabels`); controllers, the
injection webhook and the API server add labels to pods as they are made. Their values are seldom
known from manifests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Added:
    """Who adds a label: to pods, of workloads of some `kinds` (empty: of all), or to endpoints."""

    by: str
    kinds: frozenset[str] = frozenset()
    to_pods: bool = True
    to_endpoints: bool = False


POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"

_DEPLOYMENT = Added("the Deployment controller", frozenset(("Deployment",)))
_STATEFUL_SET = Added("the StatefulSet controller", frozenset(("StatefulSet",)))
_REVISION = Added(
    "the controller of StatefulSets and DaemonSets", frozenset(("StatefulSet", "DaemonSet"))
)
_JOB = Added("the Job controller", frozenset(("Job", "CronJob")))
_ISTIOD = Added("istiod", to_pods=False, to_endpoints=True)
_TO_BOTH = Added("istiod", to_endpoints=True)
_INJECTOR = Added("Istio's injection webhook")

ADDED: Mapping[str, Added] = {
    "topology.istio.io/cluster": _ISTIOD,
    "topology.istio.io/subzone": _ISTIOD,
    "kubernetes.io/hostname": _ISTIOD,
    "topology.kubernetes.io/region": _TO_BOTH,
    "topology.kubernetes.io/zone": _TO_BOTH,
    "topology.istio.io/network": _TO_BOTH,
    "security.istio.io/tlsMode": _INJECTOR,
    "service.istio.io/canonical-name": _INJECTOR,
    "service.istio.io/canonical-revision": _INJECTOR,
    "networking.istio.io/tunnel": _INJECTOR,
    "istio.io/rev": _INJECTOR,
    "pod-template-hash": _DEPLOYMENT,
    "rollouts-pod-template-hash": Added("Argo Rollouts", frozenset(("Rollout",))),
    POD_NAME: _STATEFUL_SET,
    POD_INDEX: _STATEFUL_SET,
    "controller-revision-hash": _REVISION,
    "pod-template-generation": Added("the DaemonSet controller", frozenset(("DaemonSet",))),
    "controller-uid": _JOB,
    "job-name": _JOB,
    "batch.kubernetes.io/controller-uid": _JOB,
    "batch.kubernetes.io/job-name": _JOB,
    "batch.kubernetes.io/job-completion-index": _JOB,
}


def of_pods(labels: Mapping[str, str]) -> Mapping[str, str]:
    """The labels that pods themselves have, less those that istiod adds to endpoints."""
    return {
        key: value
        for key, value in labels.items()
        if key not in ADDED or not ADDED[key].to_endpoints
    }


def endpoint_has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool | None:
    """Whether an endpoint that is listed with `labels` has others; None where istiod adds them."""
    missing = [key for key, value in wanted.items() if labels.get(key) != value]
    if not missing:
        return True
    return None if all(key in ADDED and ADDED[key].to_endpoints for key in missing) else False


def adders(labels: Mapping[str, str]) -> str:
    """How a message says who adds which of some labels: "istiod adds a and b"."""
    found: dict[str, list[str]] = {}
    for key in sorted(labels.keys() & ADDED.keys()):
        found.setdefault(ADDED[key].by, []).append(key)
    return ", ".join(f"{by} adds {' and '.join(keys)}" for by, keys in found.items())
