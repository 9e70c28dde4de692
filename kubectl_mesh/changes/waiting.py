"""What must hold before the next step of a change set, and waiting for it.

That all proxies have a change is seen in istiod's own view. First it has read the object as the API
server holds it. Then each proxy that it serves was sent something since, and has acknowledged all;
or it was sent nothing while the others were, as istiod has nothing new for it. As what is sent may
still be of before, it takes that nothing else is sent for a moment.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubectl_mesh.changes.change_set import Ready
from kubectl_mesh.changes.deletion import is_terminating, kept_by, uid_of
from kubectl_mesh.changes.patch import Target
from kubectl_mesh.changes.wait_for import DELAY, For
from kubectl_mesh.errors import MeshError, NotInstalled
from kubectl_mesh.kube.http import Client
from kubectl_mesh.kube.istiod import Istiod, Proxy, Unreachable
from kubectl_mesh.mesh.texts import first_of

_PAUSE = 1.0
_POLL = 0.1
_SETTLED = 1.0
"""Seconds without anything sent after which all that was sent something have the change: istiod
gathers changes for 0.1 s, and for longer only while others come in."""
_QUIET = 2.0
"""The same where some proxies were sent nothing: istiod has nothing new for them."""
_DEBOUNCE = 12.0
"""The same where no proxy was sent anything; and whatever is sent, since istiod has read it: it
gathers changes for 10 s at most."""
_GRACE = 30.0
"""Seconds that a proxy which istiod does not name any more has to come back in."""
_NAMED = 3

Told = Callable[[str], object]


class TimedOut(MeshError):
    """What was waited for does not hold in time."""


@dataclass(frozen=True)
class Changed:
    """An object that was changed, and its resourceVersion; None where it was deleted.

    `revision` is the value of its label istio.io/rev; None where it has none.
    """

    target: Target
    version: str | None
    revision: str | None = None


@dataclass
class Waiting:
    """How to wait: for at most `timeout` seconds (None: for ever), or for `delay` without proof.

    `reach` gives the istiods, while it is entered.
    """

    reach: Callable[[], contextlib.AbstractContextManager[Sequence[Istiod]]]
    what: For = For.EITHER
    delay: float = DELAY
    timeout: float | None = None
    _exits: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _istiods: Sequence[Istiod] | None = None
    _why: str = ""
    _known: set[str] = field(default_factory=set)

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *error: object) -> None:
        self._exits.close()

    def prepare(self) -> None:
        """Looks whether istiod can be asked. Raises Unreachable where it has to be."""
        if self.what is For.DELAY:
            return
        try:
            istiods = self._istiods or self._exits.enter_context(self.reach())
            self._known |= _proxies(istiods).keys()
            self._istiods = istiods
        except Unreachable as error:
            if self.what is For.PROXIES:
                raise
            self._why = str(error)

    def proxies(self, changed: Sequence[Changed], told: Told) -> None:
        """Waits until all proxies have some changes. Raises TimedOut, and Unreachable."""
        if self._istiods is None:
            self.prepare()
        if self._istiods is None:
            why = f": {self._why}" if self._why else ""
            told(f"waits {self.delay:g} s, without proof that the proxies have it{why}")
            time.sleep(self.delay)
            return
        start = time.monotonic()
        before = self._until_read(self._istiods, changed, start)
        told(self._until_taken(self._istiods, before, start, told))

    def _until_read(
        self, istiods: Sequence[Istiod], changed: Iterable[Changed], start: float
    ) -> Mapping[str, Proxy]:
        """Returns what the proxies were sent just before."""
        left = list(changed)
        while True:
            before = _proxies(istiods)
            read = [(istiod, istiod.versions()) for istiod in istiods]
            left = [each for each in left if not _is_read(read, each)]
            if not left:
                return before
            named = ", ".join(str(each.target) for each in left)
            self._check(start, f"istiod has not read {named} as the API server has it")
            time.sleep(_POLL)

    def _until_taken(
        self, istiods: Sequence[Istiod], before: Mapping[str, Proxy], start: float, told: Told
    ) -> str:
        read = last_sent = time.monotonic()
        previous, said = before, ""
        while True:
            now, moment = _proxies(istiods), time.monotonic()
            if _fresh(previous, now):
                last_sent, previous = moment, now
            behind = [name for name, each in now.items() if not each.in_sync]
            gone = sorted(self._known - now.keys())
            if gone and (not now or moment - read < _GRACE):
                behind += gone
            fresh = _fresh(before, now)
            quiet = _SETTLED if len(fresh) == len(now) else _QUIET if fresh else _DEBOUNCE
            is_quiet = moment - last_sent >= quiet or moment - read >= _DEBOUNCE
            if is_quiet and not behind:
                self._known -= set(gone)
                left = f"; istiod knows no more of {first_of(gone, _NAMED)}" if gone else ""
                return _had(fresh, now) + left
            count = len(self._known | now.keys())
            text = f"{count - len(behind)} of {count} proxies have all that was sent to them"
            if text != said:
                told(f"waiting: {text}" + (f"; not {first_of(behind, _NAMED)}" if behind else ""))
                said = text
            left = (
                f"not {first_of(behind, _NAMED)}"
                if behind
                else "istiod may have something left to send"
            )
            self._check(start, f"{text}; {left}")
            time.sleep(_POLL)

    def _check(
        self, start: float, missing: str, cure: str = "look at them with istioctl proxy-status"
    ) -> None:
        if self.timeout is not None and time.monotonic() > start + self.timeout:
            raise TimedOut(
                f"within {self.timeout:g} s: {missing}: {cure}, or wait longer with --timeout"
            )

    def ready(self, client: Client, needs: Iterable[Ready], told: Told) -> None:
        """Waits until there is a ready pod for each need. Raises TimedOut and ClusterError."""
        start, said = time.monotonic(), ""
        while missing := [each.what for each in needs if not has_ready_pod(client, each)]:
            text = f"no pod is ready for {', '.join(missing)}"
            if text != said:
                told(f"waiting: {text}")
                said = text
            self._check(start, text, "look at the pods")
            time.sleep(_PAUSE)

    def gone(self, client: Client, target: Target, path: str, uid: str, told: Told) -> None:
        """Waits until an object is gone: nothing is at its path, or an object with another uid.

        `told` hears what keeps it, whenever that changes. Raises TimedOut and ClusterError.
        """
        start, said = time.monotonic(), ""
        while True:
            try:
                current = client.get(path)
            except NotInstalled:
                return
            if uid_of(current) not in ("", uid):
                return
            text = f"{target} is not gone: {kept_by(current)}"
            if text != said:
                told(f"waiting: {text}")
                said = text
            self._check(start, text, "look at what keeps it")
            time.sleep(_POLL)

    def rolled_out(self, client: Client, target: Target, path: str, told: Told) -> None:
        """Waits until all pods of a workload are of its newest template, and ready.

        As `kubectl rollout status` has it. `told` hears how far it is, whenever that changes.
        Raises TimedOut and ClusterError.
        """
        start = time.monotonic()
        last = ""
        while missing := _missing(workload := client.get(path)):
            if _has_failed(workload):
                raise TimedOut(f"{target} is not rolled out: {missing}, and its deadline is over")
            if missing != last:
                told(f"waiting for {target}: {missing}")
                last = missing
            if self.timeout is not None and time.monotonic() + _PAUSE > start + self.timeout:
                raise TimedOut(
                    f"{target} is not rolled out within {self.timeout:g} s: {missing}: look at its "
                    "pods and events, or wait longer with --timeout"
                )
            time.sleep(_PAUSE)


def has_ready_pod(client: Client, need: Ready) -> bool:
    """Whether a pod with some labels is ready, and not about to end. Raises ClusterError."""
    selector = ",".join(f"{name}={value}" for name, value in sorted(need.labels.items()))
    path = f"/api/v1/namespaces/{need.namespace}/pods"
    return any(client.items(path, _is_ready, {"labelSelector": selector}))


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)
    return ready and not is_terminating(pod)


def _proxies(istiods: Iterable[Istiod]) -> dict[str, Proxy]:
    found: dict[str, Proxy] = {}
    for istiod in istiods:
        found |= istiod.proxies()
    return found


def _had(fresh: set[str], now: Mapping[str, Proxy]) -> str:
    """What is known of the proxies in the end."""
    if len(fresh) == len(now):
        return f"all {len(now)} proxies have it"
    nothing_new = (
        "istiod has nothing new for the others" if fresh else "istiod has sent nothing new"
    )
    return f"{len(fresh)} of {len(now)} proxies have it, and {nothing_new}"


def _fresh(before: Mapping[str, Proxy], now: Mapping[str, Proxy]) -> set[str]:
    """The proxies that were sent something since; those that are new have all from the start."""
    return {
        name for name, each in now.items() if name not in before or each.sent != before[name].sent
    }


def _is_read(
    read: Iterable[tuple[Istiod, Mapping[tuple[str, str, str], str]]], changed: Changed
) -> bool:
    """Whether every istiod has read a change, or let go what is of another revision now.

    `read` are the versions that each has.
    """
    target = changed.target
    key = (target.kind, target.namespace, target.name)
    return all(
        _is_version(versions.get(key), changed.version if istiod.reads(changed.revision) else None)
        for istiod, versions in read
    )


def _is_version(found: str | None, wanted: str | None) -> bool:
    """Whether a resourceVersion is the wanted one, or one that came later."""
    if found is None or wanted is None:
        return found is wanted
    if found.isdigit() and wanted.isdigit():
        return int(found) >= int(wanted)
    return found == wanted


def _has_failed(workload: Mapping[str, Any]) -> bool:
    """Whether the controller has given a rollout up, as spec.progressDeadlineSeconds has it."""
    conditions = (workload.get("status") or {}).get("conditions") or ()
    return any(each.get("reason") == "ProgressDeadlineExceeded" for each in conditions)


def _missing(workload: Mapping[str, Any]) -> str:
    """What a workload's rollout still lacks, in words; empty where nothing is."""
    status = workload.get("status") or {}
    wanted = (workload.get("spec") or {}).get("replicas", 1)
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return "its controller has not seen the change yet"
    updated = status.get("updatedReplicas", 0)
    if updated < wanted:
        return f"{updated} of {wanted} pods are new"
    if status.get("replicas", 0) > updated:
        return f"{status['replicas'] - updated} old pods are still there"
    available = status.get("availableReplicas", 0)
    return "" if available >= updated else f"{available} of {updated} pods are ready"
