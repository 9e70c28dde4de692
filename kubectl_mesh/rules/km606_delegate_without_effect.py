"""KM606: a delegate, or a rule of it, that Istio leaves out without a word."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.resource import Path, dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import HttpRule, VirtualService, delegate_of
from kubectl_mesh.routing.rules import Match, merge, outside, own_rules
from kubectl_mesh.routing.rules import Rule as HeldRule
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip, listed
from kubectl_mesh.rules.shared.dead_rules import LeftOut, demands


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    every = snapshot.virtual_services
    for root in every.roots:
        for rule in root.own_http_rules:
            if rule.data.get("delegate") is not None:
                yield from _check_root(snapshot, root, rule)
    for delegate in every.all:
        if delegate.is_delegate:
            yield from _check_delegate(snapshot, delegate)


def _check_root(
    snapshot: Snapshot, root: VirtualService, rule: HttpRule
) -> Iterator[Finding | Skip]:
    key = delegate_of(rule)
    path = (*rule.path, "delegate")
    if key is None:
        yield _dropped(root, rule, f"{dotted(path)} names no VirtualService", "name the delegate")
        return
    delegate = snapshot.virtual_services.by_name.get(key)
    named = f"VirtualService {'/'.join(key)}"
    if delegate is None:
        if snapshot.canaries.making("VirtualService", *key):
            return
        if reason := snapshot.unknown(key[0], "VirtualService"):
            yield Skip(f"whether the delegate {named} exists: {reason}")
            return
        why = f"{dotted(path)} names {named}, which does not exist"
        fix = f"create it, or correct the name; without a namespace it is {root.namespace}"
        yield _dropped(root, rule, why, fix)
    elif not delegate.is_delegate:
        why = f"{dotted(path)} names {named}, which has hosts, and so is no delegate"
        yield _dropped(root, rule, why, f"take hosts and gateways out of {named}", delegate)
    elif not delegate.export.reaches(root.namespace):
        why = f"{dotted(path)} names {named}, which is not exported to namespace {root.namespace}"
        yield _dropped(root, rule, why, f"add {root.namespace} to exportTo of {named}", delegate)
    elif not delegate.own_http_rules:
        why = f"{dotted(path)} names {named}, which has no http rules"
        yield _dropped(root, rule, why, f"give {named} rules, or delete this one", delegate)


def _dropped(
    root: VirtualService,
    rule: HttpRule,
    why: str,
    fix: str,
    delegate: VirtualService | None = None,
) -> Finding:
    return RULE.finding(
        root.resource,
        (*rule.path, "delegate"),
        why,
        traffic=f"Istio drops {dotted(rule.path)} and tells nobody: its requests take a later "
        "rule, or get 404",
        next=fix,
        related=(delegate.resource.id,) if delegate else (),
    )


def _check_delegate(snapshot: Snapshot, delegate: VirtualService) -> Iterator[Finding]:
    """Its rules that are within the match of none of the rules that hand over to it."""
    key = (delegate.namespace, delegate.resource.name)
    named = {
        (rule.owner, rule.path)
        for rule in snapshot.virtual_services.delegating.get(key, ())
        if delegate.export.reaches(rule.owner.namespace)
    }
    outer = [rule for owner in dict.fromkeys(o for o, _ in named) for rule in own_rules(owner)]
    outer = [rule for rule in outer if (rule.owner, rule.path) in named]
    for inner in own_rules(delegate) if outer else ():
        if all(merge(rule, inner) is None for rule in outer):
            yield _conflict(delegate, inner, outer)


def _conflict(delegate: VirtualService, inner: HeldRule, outer: list[HeldRule]) -> Finding:
    match = outside(outer[0], inner)
    assert match
    lost = LeftOut(outer[0], inner, match)
    path = (*inner.path, "match", match.index)
    roots = list(dict.fromkeys(rule.owner for rule in outer))
    return RULE.finding(
        delegate.resource,
        path,
        f"{lost.where} is not within a match of {lost.under}, which delegates to it",
        traffic=f"Istio drops {dotted(inner.path)} with all its matches and tells nobody: its "
        "requests take a later rule, or get 404",
        next=lost.cure,
        evidence=(
            _wants(match, path),
            *listed(
                _wants(each, (*rule.path, "match", each.index)) + f" (of {rule.owner.resource})"
                for rule in outer
                for each in rule.matches or ()
            ),
        ),
        related=tuple(root.resource.id for root in roots),
    )


def _wants(match: Match, path: Path) -> str:
    beside = [
        f"{field} {match.data[field]}"
        for field in ("port", "gateways", "sourceNamespace", "sourceLabels", "ignoreUriCase")
        if match.data.get(field)
    ]
    return f"{dotted(path)} wants " + " and ".join([demands(match.conditions), *beside])


_SHARED = """\
apiVersion: v1
kind: Service
metadata: {name: cart}
spec:
  selector: {app: cart}
  ports: [{name: http, port: 8080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [cart]
  http:
  - match:
    - uri: {prefix: /cart}
    delegate: {name: cart}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart}
spec:
  http:
  - match:
    - uri: {prefix: /cart/items}
    route:
    - destination: {host: cart}
"""

RULE = Rule(
    code="KM606",
    name="delegate-without-effect",
    severity=Severity.ERROR,
    summary="A delegate, or a rule of it, that Istio leaves out without a word.",
    explanation="""\
A rule with `delegate` is replaced by the rules of another VirtualService, which must exist, have no
hosts, be exported to the namespace of the one that names it, and have http rules. Else the rule is
gone, and only istiod's log tells.

Of the delegate a rule stays only if each of its matches is within some match of the rule that
delegates; else it is dropped with all its matches. Istio does not look closely: a regular
expression on either side is in conflict with any match of the same field, `ignoreUriCase` must be
the same, and where the root names `sourceNamespace`, the delegate must name it too.

On files, a delegate in a namespace of which no VirtualService is in the input is taken to exist. A
delegate's rule that holds under one of several rules that name it is no finding.""",
    fix="Correct the name, the exportTo or the match, as told.",
    reference="https://istio.io/latest/docs/reference/config/networking/virtual-service/#Delegate",
    needs=("VirtualService",),
    uses=("Canary",),
    check=check,
    bad=_SHARED.replace("prefix: /cart/items", "prefix: /items"),
    good=_SHARED,
)
