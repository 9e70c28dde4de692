"""An API server in memory, for what others do between two requests of ours.

What the real one does is in tests/realmesh; its reading over HTTP in tests/kube/fake.py.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from kubectl_mesh.changes.patch import Conflict, Target, patched
from kubectl_mesh.changes.waiting import Changed, Waiting
from kubectl_mesh.errors import MeshError, NotInstalled
from kubectl_mesh.kube.config import Connection
from kubectl_mesh.kube.discovery import base_of
from kubectl_mesh.kube.http import ApiError, Client
from kubectl_mesh.mesh.objects import as_resource
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.sources.cluster import ClusterOrigin, path_of

Object = dict[str, Any]
T = TypeVar("T")


def resource_of(document: Mapping[str, Any]) -> Resource:
    return as_resource(document, ClusterOrigin("here"))


def where(document: Mapping[str, Any]) -> str:
    """The path of an object."""
    return path_of(resource_of(document))


class StandIn(Client):
    """Holds objects by their paths. `then`, if set, hears of each request once it is answered.

    It may change `objects` as others do, and raise what the user gets instead of the answer. The
    next write with one of the verbs of `refusals` is refused, tried or not.
    """

    def __init__(self, *objects: Object) -> None:
        connection = SimpleNamespace(server="https://server", context="here")
        super().__init__(cast(Connection, connection))
        self.objects: dict[str, Object] = {}
        self.then: Callable[[str, str, Any], object] = lambda *_: None
        self.refusals: dict[str, MeshError] = {}
        self._numbers = itertools.count(1)
        system: Object = {"apiVersion": "v1", "kind": "Namespace"}
        for each in ({**system, "metadata": {"name": "kube-system"}}, *objects):
            self.put(each)

    def serve(self, api_version: str, *, namespaced: bool = True, **kinds: str) -> None:
        """Has discovery know kinds, by their plurals."""
        base = self.objects.setdefault(base_of(api_version), {"resources": []})
        base["resources"] += [
            {"name": plural, "kind": kind, "namespaced": namespaced}
            for plural, kind in kinds.items()
        ]

    def items(
        self,
        path: str,
        keep: Callable[[dict[str, Any]], T],
        query: Mapping[str, str] | None = None,
        progress: Callable[[int], object] = lambda count: None,
    ) -> list[T]:
        """Those with one label of a selector, without what tells their kind, as lists have them."""
        label, _, value = (query or {}).get("labelSelector", "").partition("=")
        return [
            keep({key: copy.deepcopy(found) for key, found in each.items() if key != "kind"})
            for where, each in self.objects.items()
            if where.rpartition("/")[0] == path
            and (each["metadata"].get("labels") or {}).get(label) == value
        ]

    def put(self, document: Object, path: str = "") -> Object:
        """Stores an object, as whoever writes it."""
        document = copy.deepcopy(document)
        metadata = document["metadata"]
        metadata.setdefault("uid", f"uid-{next(self._numbers)}")
        metadata["resourceVersion"] = str(next(self._numbers))
        self.objects[path or where(document)] = document
        return copy.deepcopy(document)

    def change(self, path: str, **spec: Any) -> None:
        """Somebody changes fields of the spec."""
        found = copy.deepcopy(self.objects[path])
        found["spec"].update(spec)
        self.put(found, path)

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Object:
        found = copy.deepcopy(self.objects.get(path))
        self.then("get", path, None)
        if found is None:
            raise NotInstalled(path)
        return found

    def patch(
        self, path: str, operations: Sequence[Mapping[str, Any]], query: Mapping[str, str]
    ) -> Object:
        self._refuse("patch")
        try:
            document = patched(copy.deepcopy(self._found(path)), operations)
        except Conflict as error:
            raise ApiError(str(error), 422, str(error)) from error
        if not any(each["path"] == "/metadata/managedFields" for each in operations):
            _wrote(document, query["fieldManager"], "Update")
        return self._answered("patch", path, document, query, operations)

    def apply(self, path: str, value: Mapping[str, Any], query: Mapping[str, str]) -> Object:
        """Puts whole fields in the place of others, which is enough here."""
        self._refuse("apply")
        uid, found = value["metadata"].get("uid"), self.objects.get(path)
        if uid and uid != ((found or {}).get("metadata") or {}).get("uid"):
            raise ApiError("uid mismatch: no existing object was found", 409, "uid mismatch")
        document: Object = copy.deepcopy({**(found or {}), **value})
        document["metadata"] = {**(found or {}).get("metadata", {}), **value["metadata"]}
        _wrote(document, query["fieldManager"], "Apply")
        return self._answered("apply", path, document, query, value)

    def create(self, path: str, value: Mapping[str, Any], query: Mapping[str, str]) -> Object:
        self._refuse("create")
        path = f"{path}/{value['metadata']['name']}"
        if path in self.objects:
            raise ApiError("exists", 409, "exists")
        document = copy.deepcopy(dict(value))
        _wrote(document, query["fieldManager"], "Update")
        return self._answered("create", path, document, query, value)

    def delete(self, path: str, version: Mapping[str, str], *, dry: bool = False) -> None:
        self._refuse("delete")
        metadata = self._found(path)["metadata"]
        if any(metadata[key] != value for key, value in version.items()):
            raise ApiError("precondition", 409, "precondition")
        if not dry:
            del self.objects[path]
            self.then("delete", path, version)

    def _refuse(self, verb: str) -> None:
        if refusal := self.refusals.pop(verb, None):
            raise refusal

    def _found(self, path: str) -> Object:
        if path not in self.objects:
            raise NotInstalled(path)
        return self.objects[path]

    def _answered(
        self, verb: str, path: str, document: Object, query: Mapping[str, str], body: Any
    ) -> Object:
        if query.get("dryRun"):
            return document
        found = self.put(document, path)
        self.then(verb, path, body)
        return found


def _wrote(document: Object, manager: str, operation: str) -> None:
    entry = {"manager": manager, "operation": operation, "apiVersion": document["apiVersion"]}
    fields = document["metadata"].get("managedFields") or []
    left = [each for each in fields if each and each["manager"] != manager]
    document["metadata"] = {
        **document["metadata"],
        "managedFields": [*left, {**entry, "fieldsV1": {"f:spec": {"f:http": {}}}}],
    }


class Waits(Waiting):
    """Waits for nothing. `waited` is for whose sake it would have; `then` is done at each wait."""

    def __init__(self) -> None:
        super().__init__(lambda: contextlib.nullcontext(()))
        self.waited: list[list[str]] = []
        self.then: Callable[[], object] = lambda: None

    def prepare(self) -> None:
        pass

    def proxies(self, changed: Sequence[Changed], told: Callable[[str], object]) -> None:
        self.waited.append([each.target.name for each in changed])
        self.then()

    def gone(
        self, client: Client, target: Target, path: str, uid: str, told: Callable[[str], object]
    ) -> None:
        pass
