"""When all proxies have a change: what istiod has to say for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

from kubectl_mesh.changes import waiting as module
from kubectl_mesh.changes.change_set import Ready
from kubectl_mesh.changes.patch import Target
from kubectl_mesh.changes.wait_for import For
from kubectl_mesh.changes.waiting import Changed, TimedOut, Waiting
from kubectl_mesh.errors import NotInstalled
from kubectl_mesh.kube.http import Client
from kubectl_mesh.kube.istiod import Istiod, Proxy, Unreachable

TARGET = Target("networking.istio.io/v1", "VirtualService", "shop", "web")
KEY = ("VirtualService", "shop", "web")
CHANGED = [Changed(TARGET, "7")]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_POLL", 0.0), ("_SETTLED", 0.02), ("_QUIET", 0.04), ("_DEBOUNCE", 0.3)):
        monkeypatch.setattr(module, name, seconds)


class Fake(Istiod):
    """An istiod that answers by a script: what it has read and what it has sent, poll by poll."""

    def __init__(
        self,
        read: Callable[[int], str | None],
        proxies: Callable[[int], dict[str, Proxy]],
        revision: str | None = None,
    ) -> None:
        super().__init__("http://127.0.0.1:1", revision)
        self._read = read
        self._proxies = proxies
        self.polls = self.asked = 0

    def versions(self) -> dict[tuple[str, str, str], str]:
        self.asked += 1
        found = self._read(self.asked)
        return {} if found is None else {KEY: found}

    def proxies(self) -> dict[str, Proxy]:
        self.polls += 1
        return self._proxies(self.polls)


def waited(*istiods: Istiod, changed: Sequence[Changed] = CHANGED, **how: object) -> list[str]:
    @contextlib.contextmanager
    def reach() -> Iterator[Sequence[Istiod]]:
        yield istiods

    said: list[str] = []
    with Waiting(reach, **how) as waiting:  # type: ignore[arg-type]
        waiting.prepare()
        waiting.proxies(changed, said.append)
    return said


def proxy(mark: str, in_sync: bool = True) -> Proxy:
    return Proxy((mark,), in_sync)


def test_all_proxies_were_sent_something_and_have_acknowledged_it() -> None:
    def proxies(poll: int) -> dict[str, Proxy]:
        late = proxy("b", poll > 8) if poll > 5 else proxy("a")
        return {"x": proxy("b" if poll > 4 else "a"), "y": late}

    istiod = Fake(lambda asked: "7" if asked > 2 else "6", proxies)
    assert waited(istiod)[-1] == "all 2 proxies have it"
    assert istiod.polls > 8


def test_a_proxy_that_is_sent_nothing_needs_nothing() -> None:
    istiod = Fake(
        lambda _: "7", lambda poll: {"x": proxy("b" if poll > 3 else "a"), "y": proxy("c")}
    )
    said = waited(istiod)[-1]
    assert said == "1 of 2 proxies have it, and istiod has nothing new for the others"


def test_where_nothing_is_sent_it_takes_longer_to_be_sure() -> None:
    istiod = Fake(lambda _: "8", lambda _: {"x": proxy("a")})
    assert waited(istiod)[-1] == "0 of 1 proxies have it, and istiod has sent nothing new"


@pytest.mark.parametrize(
    ("read", "changed", "said"),
    [
        (None, CHANGED, "istiod has not read VirtualService shop/web as the API server has it"),
        ("6", CHANGED, "istiod has not read VirtualService shop/web"),
        ("7", [Changed(TARGET, None)], "istiod has not read VirtualService shop/web"),
    ],
)
def test_what_istiod_has_not_read(read: str | None, changed: list[Changed], said: str) -> None:
    with pytest.raises(TimedOut, match=f"within 0.1 s: {said}"):
        waited(Fake(lambda _: read, lambda _: {}), changed=changed, timeout=0.1)


def test_a_deleted_object_is_read_when_it_is_gone() -> None:
    istiod = Fake(lambda asked: "6" if asked < 3 else None, lambda _: {})
    assert waited(istiod, changed=[Changed(TARGET, None)])


@pytest.mark.parametrize(
    ("label", "default", "canary", "is_read"),
    [
        (None, "7", "7", True),
        (None, "7", None, False),
        ("canary", None, "7", True),
        ("canary", "6", "7", False),
        ("canary", None, None, False),
        ("another", None, None, True),
    ],
)
def test_an_object_of_one_revision_is_read_by_its_istiod_alone(
    label: str | None, default: str | None, canary: str | None, is_read: bool
) -> None:
    """The others have to have let go what was theirs before."""
    istiods = [
        Fake(lambda _: default, lambda _: {}, "default"),
        Fake(lambda _: canary, lambda _: {}, "canary"),
    ]
    changed = [Changed(TARGET, "7", label)]
    if is_read:
        assert waited(*istiods, changed=changed, timeout=5.0)
    else:
        with pytest.raises(TimedOut, match="istiod has not read"):
            waited(*istiods, changed=changed, timeout=0.1)


def test_a_proxy_that_never_acknowledges_is_named() -> None:
    istiod = Fake(lambda _: "7", lambda _: {"x.shop": proxy("b"), "slow.shop": proxy("b", False)})
    with pytest.raises(TimedOut, match=r"1 of 2 proxies have all .*; not slow\.shop: look at them"):
        waited(istiod, timeout=0.1)


def test_all_istiods_have_to_have_read_it() -> None:
    one = Fake(lambda _: "7", lambda poll: {"x": proxy(str(poll > 2))})
    other = Fake(lambda asked: "7" if asked > 3 else "6", lambda poll: {"y": proxy(str(poll > 6))})
    assert waited(one, other)[-1].startswith(("all 2", "1 of 2"))
    assert other.asked > 3


def test_a_proxy_that_istiod_knows_no_more_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come back in, here or at another istiod; one that never does is named."""

    def proxies(poll: int) -> dict[str, Proxy]:
        both = {"x": proxy("a"), "y": proxy("a")}
        return both if poll < 3 else {"x": proxy("b")}

    with pytest.raises(TimedOut, match=r"1 of 2 proxies have all .*; not y: look"):
        waited(Fake(lambda _: "7", proxies), timeout=0.2)
    monkeypatch.setattr(module, "_GRACE", 0.05)
    said = waited(Fake(lambda _: "7", proxies))[-1]
    assert said == "all 1 proxies have it; istiod knows no more of y"


def test_an_istiod_that_knows_no_proxies_any_more_proves_nothing() -> None:
    istiod = Fake(lambda _: "7", lambda poll: {"x": proxy("a")} if poll < 3 else {})
    with pytest.raises(TimedOut, match=r"0 of 1 proxies have all .*; not x"):
        waited(istiod, timeout=0.5)


@contextlib.contextmanager
def nowhere() -> Iterator[Sequence[Istiod]]:
    raise Unreachable("no pod of istiod runs")
    yield []


def test_without_istiod_it_waits_and_says_that_this_proves_nothing() -> None:
    said: list[str] = []
    with Waiting(nowhere, delay=0.01) as waiting:
        waiting.prepare()
        waiting.proxies(CHANGED, said.append)
    assert said == ["waits 0.01 s, without proof that the proxies have it: no pod of istiod runs"]
    with Waiting(nowhere, For.PROXIES) as waiting, pytest.raises(Unreachable, match="no pod"):
        waiting.prepare()
    with Waiting(nowhere, For.DELAY, delay=0.0) as waiting:
        waiting.prepare()
        waiting.proxies(CHANGED, said.append)
    assert said[-1] == "waits 0 s, without proof that the proxies have it"


class Pods:
    """An API server's list of pods, poll by poll."""

    def __init__(self, *polls: list[dict[str, Any]]) -> None:
        self._polls = list(polls)
        self.asked: list[tuple[str, Any]] = []

    def items(self, path: str, keep: Callable[[Any], Any], query: Any) -> list[Any]:
        self.asked.append((path, query))
        return [keep(pod) for pod in self._polls.pop(0)]


def pod(ready: str, **metadata: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "x", **metadata},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def test_a_pod_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    need = Ready("shop", {"app": "web", "version": "v2"}, "subset v2 of web")
    pods = Pods([], [pod("False")], [pod("True", deletionTimestamp="now")], [pod("True")])
    said: list[str] = []
    with Waiting(nowhere, timeout=5) as waiting:
        waiting.ready(cast(Client, pods), [need], said.append)
        assert said == ["waiting: no pod is ready for subset v2 of web"]
        assert pods.asked[0] == (
            "/api/v1/namespaces/shop/pods",
            {"labelSelector": "app=web,version=v2"},
        )
        waiting.timeout = 0.0
        with pytest.raises(TimedOut, match="no pod is ready for subset v2 of web: look"):
            waiting.ready(cast(Client, Pods([], [])), [need], said.append)


class Object:
    """An API server's answers to one path, poll by poll; None: there is nothing."""

    def __init__(self, *polls: dict[str, Any] | None) -> None:
        self._polls = list(polls)

    def get(self, path: str) -> dict[str, Any]:
        found = self._polls.pop(0)
        if found is None:
            raise NotInstalled(path)
        return found


def ending(kind: str = "VirtualService", uid: str = "1", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"uid": uid, **more.pop("metadata", {})}, **more}


def test_an_object_is_waited_for_until_it_is_gone() -> None:
    keeping = ({"finalizers": ["x/a", "x/b"]}, {"finalizers": ["x/b"]}, {})
    objects = [ending(metadata=each) for each in keeping]
    for last in (None, ending(uid="2")):
        said: list[str] = []
        with Waiting(nowhere, timeout=5) as waiting:
            waiting.gone(
                cast(Client, Object(objects[0], *objects, last)), TARGET, "/it", "1", said.append
            )
        assert said == [
            "waiting: VirtualService shop/web is not gone: finalizers x/a, x/b",
            "waiting: VirtualService shop/web is not gone: finalizer x/b",
            "waiting: VirtualService shop/web is not gone: it has no finalizers and has not "
            "stopped yet",
        ]


def test_an_answer_without_a_uid_does_not_say_that_an_object_is_gone() -> None:
    with Waiting(nowhere, timeout=0.0) as waiting, pytest.raises(TimedOut, match="is not gone"):
        waiting.gone(cast(Client, Object({}, {})), TARGET, "/it", "1", print)


def test_a_namespace_says_what_keeps_it() -> None:
    conditions = [
        {"type": "NamespaceContentRemaining", "status": "True", "message": "pods. has 1 instance"},
        {"type": "NamespaceDeletionContentFailure", "status": "False", "message": "all right"},
    ]
    space = ending(
        "Namespace", spec={"finalizers": ["kubernetes"]}, status={"conditions": conditions}
    )
    with Waiting(nowhere, timeout=0.0) as waiting, pytest.raises(TimedOut) as error:
        waiting.gone(cast(Client, Object(space)), TARGET, "/it", "1", print)
    assert "is not gone: finalizer kubernetes; pods. has 1 instance: look at" in str(error.value)
