"""Change sets made to a cluster, and taken back.

Each step is a request that the API server carries out or refuses as a whole: a JSON Patch, a
creation, or a deletion of the very object that was looked at. What is about to be done stands in
the journal before it is done.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import jsonpatch
from jsonpointer import JsonPointer

from kubectl_mesh.changes.change_set import Action, ChangeSet, Step
from kubectl_mesh.changes.deletion import being_deleted, is_terminating, uid_of
from kubectl_mesh.changes.journal import FINISH, Entry, Journal, JournalError, Run, State, new_run
from kubectl_mesh.changes.patch import (
    Conflict,
    Operation,
    Target,
    content,
    difference,
    patched,
    same,
)
from kubectl_mesh.changes.waiting import Changed, Waiting
from kubectl_mesh.errors import ClusterError, Forbidden, MeshError, NotInstalled
from kubectl_mesh.kube.config import POOL_SIZE
from kubectl_mesh.kube.discovery import Kinds
from kubectl_mesh.kube.http import ApiError, Client
from kubectl_mesh.kube.managed_fields import (
    FIELD_MANAGER,
    KEEPS_LAST_APPLIED,
    KUBECTL,
    LAST_APPLIED,
    abandoned,
    aligned,
    as_last_applied,
    given_back,
    handed_over,
    is_handed_over,
    is_item,
    kept,
    last_applied,
    managers,
    without,
    writers,
)
from kubectl_mesh.kube.workers import in_parallel
from kubectl_mesh.mesh.injection import REVISION
from kubectl_mesh.mesh.resource import Path, field_at, pointer
from kubectl_mesh.rules.repair import Then
from kubectl_mesh.sources.cluster import path_of

_KUBE_SYSTEM = "/api/v1/namespaces/kube-system"
_CONFLICT = 409
_A_SECOND = 1.1
_TRIES = 5
"""Times that fields are given back, while others write to the object."""
_INVALID_OBJECT = 422
_INVALID = (_CONFLICT, _INVALID_OBJECT)
"""What the API server answers to a patch whose test fails."""
_UNTYPED = "failed to create typed patch object"
"""What it says, with status 500, of a configuration whose types are wrong."""


class Stopped(MeshError):
    """A change set that is made in part, and how to go on or back."""


class Interrupted(Stopped):
    """The same, by the user's Ctrl-C."""

    exit_status = 130


class OtherCluster(MeshError):
    """A run that was made in another cluster."""

    exit_status = 2


class Cluster:
    """A cluster that change sets are made to."""

    def __init__(
        self,
        client: Client,
        waiting: Waiting,
        field_manager: str = "",
        *,
        force_conflicts: bool = False,
    ) -> None:
        """`waiting` is how to wait for what must hold before the next step.

        What is patched is the field manager's, or without one theirs who had it; what is applied is
        kubectl's without one. With `force_conflicts` fields that others have are taken over where
        manifests are applied.
        """
        self.client = client
        self._force_conflicts = force_conflicts
        self._keeps_owners = not field_manager
        self._writer = field_manager or FIELD_MANAGER
        self._applier = field_manager or KUBECTL
        self._waiting = waiting

    @property
    def server(self) -> str:
        """The API server's address."""
        return self.client.connection.server

    @cached_property
    def kinds(self) -> Kinds:
        """The kinds that it knows."""
        return Kinds(self.client)

    @cached_property
    def identity(self) -> str:
        """The uid of Namespace kube-system, which no other cluster has; "" if it cannot be read."""
        try:
            return uid_of(self.client.get(_KUBE_SYSTEM))
        except (Forbidden, NotInstalled):
            return ""

    def recognise(self, run: Run) -> str:
        """Says why it is not certain that a run was made in this cluster; "" if it is.

        Raises OtherCluster where it was not.
        """
        if self.server != run.server:
            raise OtherCluster(
                f"{run.id} was applied to {run.server} (context {run.context}), and this is "
                f"{self.server}: name it with --context or --kubeconfig"
            )
        if run.cluster and self.identity and run.cluster != self.identity:
            raise OtherCluster(
                f"{run.id} was applied to another cluster that had the address {run.server}: its "
                f"Namespace kube-system had the uid {run.cluster}, here it is {self.identity}; "
                "nothing is changed: connect to that cluster, or name it with --context"
            )
        if run.cluster and self.identity:
            return ""
        if run.cluster:
            return "you may not get Namespace kube-system, whose uid tells clusters apart"
        return f"the journal of {run.id} does not name its cluster"

    def rehearse(self, changes: ChangeSet) -> None:
        """Has the API server try every step, without making one.

        What can only be tried once another step is made is left out: a second step for one object,
        objects in a namespace that is yet to be made. So is what is applied on the server: that was
        tried to see what would become of it.

        Raises Conflict for an object that somebody has changed, ClusterError for a step that is
        refused: by a rule of admission, for want of rights, as it is no longer there.
        """
        tried: set[str] = set()
        coming: set[str] = set()
        for step in changes.steps:
            entry = _entry(step)
            if step.action is Action.CREATE and step.resource.kind == "Namespace":
                coming.add(step.resource.name)
            is_tried = entry.path in tried or step.applied is not None
            if not is_tried and step.resource.namespace not in coming:
                self._look(entry)
                self._make(entry, dry=True)
            tried.add(entry.path)

    def apply(
        self,
        changes: ChangeSet,
        journal: Journal,
        told: Callable[[str], object],
        goes_on: str = FINISH,
        cures: Sequence[str] | None = None,
        command: str = "",
    ) -> Run:
        """Makes the steps one after the other. `told` hears of each; see Run for the rest.

        Raises Stopped where one fails: those before it are made.
        """
        connection = self.client.connection
        entries = map(_entry, changes.steps)
        where = (connection.context, connection.server)
        run = new_run(*where, entries, goes_on, self.identity, cures, command)
        journal.write(run)
        self._make_rest(run, journal, told)
        return run

    def go_on(self, run: Run, journal: Journal, told: Callable[[str], object]) -> None:
        """Makes the steps of a run that are not made yet. Raises Stopped as `apply` does.

        It makes none if somebody has deleted an object of the run since, or created one anew.
        """
        changed = self._since(run, run.entries, journal, _since_made)
        if changed and run.left:
            raise Stopped(_stopped(run, run.left[0], "; ".join(changed)))
        self._make_rest(run, journal, told)

    def _make_rest(self, run: Run, journal: Journal, told: Callable[[str], object]) -> None:
        done: list[Entry] = []
        for entry in run.entries:
            if entry.state is State.STARTED:
                current = self._current(entry)
                if self._is_made(entry, current):
                    entry.after = self._found_made(entry, current, told)
                    _note(run, entry, State.DONE, journal)
            if entry.state is State.DONE:
                done.append(entry)
            if entry.state in (State.DONE, State.UNDONE):
                continue
            try:
                if not self._is_being_deleted(entry):
                    self._step(run, entry, done, journal, told)
                if entry.after is None:
                    self._await_gone(run, entry, journal, told)
                _note(run, entry, State.DONE, journal)
            except Stopped:
                raise
            except MeshError as error:
                raise Stopped(_stopped(run, entry, str(error))) from error
            except KeyboardInterrupt:
                raise Interrupted(_stopped(run, entry, "interrupted")) from None
            told(f"{entry.target} {entry.action.done}")
            done.append(entry)

    def _step(
        self,
        run: Run,
        entry: Entry,
        done: list[Entry],
        journal: Journal,
        told: Callable[[str], object],
    ) -> None:
        """Waits for what a step needs, notes that it is about to be made, and makes it."""
        waited = self._await(done, told)
        self._waiting.ready(self.client, entry.ready, told)
        if entry.then is Then.PROXIES:
            self._waiting.prepare()
        if waited or entry.after is None:
            self._still_made(run, journal, deletions=waited)
        self._look(entry)
        entry.state = State.STARTED
        journal.write(run)
        try:
            entry.after = self._make(entry)
        except MeshError as error:
            if isinstance(error, Conflict) or _is_refusal(error):
                entry.state = State.PLANNED
                journal.write(run)
            raise
        entry.after = self._settled(entry, entry.after, told)

    def _is_being_deleted(self, entry: Entry) -> bool:
        """Whether the deletion of a step's object was asked for, so that it is only waited for."""
        if entry.state is not State.DELETING:
            return False
        current = self._current(entry)
        return current is None or is_terminating(current)

    def _await_gone(
        self, run: Run, entry: Entry, journal: Journal, told: Callable[[str], object]
    ) -> None:
        """Waits until the object of a step is gone, and notes that it is not, if that is so."""
        uid = uid_of(entry.before)
        current = self._current(entry)
        if current is not None and uid_of(current) == uid:
            entry.state = State.DELETING
            journal.write(run)
            self._waiting.gone(self.client, entry.target, entry.path, uid, told)

    def _still_made(self, run: Run, journal: Journal, *, deletions: bool) -> None:
        """What was made has to be so before what relies on it is made, or goes.

        Of the objects that istiod reads: on others, controllers write. Those that were deleted are
        looked at with `deletions`. Raises Conflict where somebody has changed, deleted or created
        one since.
        """
        for entry in _of_istio(each for each in run.entries if each.state is State.DONE):
            if entry.after is None and not deletions:
                continue
            current = self._current(entry)
            text = _since_made(entry, current)
            if not text and current is not None and not same(current, entry.after or {}):
                text = f"{entry.target}: {_who(current, entry.after)} has changed it since"
            if text:
                raise Conflict(_by_our_own(run, entry, current, journal) or text)

    def _await(self, done: list[Entry], told: Callable[[str], object]) -> bool:
        """Waits until what must hold after the last of some steps does, and forgets them then.

        Returns whether there was anything. The proxies have to have all of the steps. Raises
        TimedOut and ClusterError.
        """
        last = done[-1] if done else None
        if last is None or last.then is None:
            return False
        if last.then is Then.ROLLED_OUT:
            self._waiting.rolled_out(self.client, last.target, last.path, told)
        else:
            self._waiting.proxies([self._changed(each) for each in _of_istio(done)], told)
            done.clear()
        return True

    def _changed(self, entry: Entry) -> Changed:
        current = self._current(entry)
        if current is None:
            return Changed(entry.target, None)
        metadata = current["metadata"]
        revision = (metadata.get("labels") or {}).get(REVISION)
        return Changed(entry.target, str(metadata["resourceVersion"]), revision)

    def undo(
        self, run: Run, journal: Journal, told: Callable[[str], object], *, force: bool
    ) -> None:
        """Takes back the steps of a run, the last one first, but restarts after all others.

        Raises Conflict where somebody has changed or deleted an object since, and takes nothing
        back then, unless `force`: then what somebody has deleted stays so. Raises Stopped where
        one fails: those behind it are taken back.
        """
        self.check_undo(run, journal, force=force)
        undone = [each for each in run.entries if each.state is State.UNDONE]
        for entry, waits in way_back(run):
            try:
                if waits and undone:
                    self._waiting.proxies([self._changed(each) for each in _of_istio(undone)], told)
                current = self._stayed(run, entry, journal, told, force=force)
                if current is None and entry.after is None and _is_older(undone, entry):
                    time.sleep(_A_SECOND)
                self._take_back(run, entry, current, journal, told)
            except MeshError as error:
                raise Stopped(_left(run, str(error))) from error
            except KeyboardInterrupt:
                raise Interrupted(_left(run, "interrupted")) from None
            if entry.before is None:
                told(f"{entry.target} is gone")
            elif current is None and not is_missed(entry):
                told(f"{entry.target} stays deleted")
            else:
                told(f"{entry.target} is as it was")
            if current is None and is_missed(entry) and entry.target.kind == "VirtualService":
                told(
                    f"{entry.target} is made anew, and so the youngest: other VirtualServices of "
                    "its hosts come before it, which they may not have before"
                )
            _note(run, entry, State.UNDONE, journal)
            undone.append(entry)

    def check_undo(self, run: Run, journal: Journal, *, force: bool) -> None:
        """Raises Conflict where `undo` does because of what somebody has done to an object."""
        changed = self._since(run, run.made, journal, _since_undone)
        if changed and not force:
            raise Conflict(
                f"{'; '.join(changed)}; nothing is taken back: look at it, and take back all the "
                "same with --force"
            )

    def _since(
        self,
        run: Run,
        entries: Iterable[Entry],
        journal: Journal,
        told_of: Callable[[Entry, Mapping[str, Any] | None], str | None],
    ) -> list[str]:
        """What `told_of` says that somebody has done to objects, by the newest step of each.

        An object that undo has created in place of a deleted one counts as that one.
        """
        known = [each for each in entries if each.state is not State.UNDONE]
        known.sort(key=lambda each: each.state is not State.PLANNED)
        newest = {each.path: each for each in known}
        looks = [partial(self._current, each) for each in newest.values()]
        current = dict(zip(newest, in_parallel(looks, POOL_SIZE), strict=True))
        if any(_is_other(each, current[each.path]) for each in newest.values()):
            _succeed(known, journal)
        return [
            _by_our_own(run, each, current[path], journal) or text
            for path, each in newest.items()
            if (text := told_of(each, current[path]))
        ]

    def _stayed(
        self,
        run: Run,
        entry: Entry,
        journal: Journal,
        told: Callable[[str], object],
        *,
        force: bool,
    ) -> Mapping[str, Any] | None:
        """The object of a step, once it is known to stay. None where it is gone, or will be.

        Nobody can cancel its deletion: only once it is gone something can be created in its place.
        Raises Conflict where somebody has changed it, while undo waited for one, unless `force`.
        """
        current = self._current(entry)
        if _is_other(entry, current):
            _succeed([entry], journal)
        if not force and (text := _since_undone(entry, current)):
            raise Conflict(_by_our_own(run, entry, current, journal) or text)
        if not is_terminating(current) or entry.before is None:
            return current
        if not is_missed(entry):
            return None
        assert current is not None
        told(f"{entry.target} {being_deleted(current)}, which cannot be cancelled")
        self._waiting.gone(self.client, entry.target, entry.path, uid_of(current), told)
        changed = self._since(run, [entry], journal, _since_undone)
        if changed and not force:
            raise Conflict("; ".join(changed))
        return self._current(entry)

    def _take_back(
        self,
        run: Run,
        entry: Entry,
        current: Mapping[str, Any] | None,
        journal: Journal,
        told: Callable[[str], object],
    ) -> None:
        """Takes a step back, noting before that it is about to be."""
        if entry.before is None and entry.state is State.STARTED:
            entry.after = current or entry.after
        state, entry.state = entry.state, State.UNDOING
        journal.write(run)
        try:
            self._restore(entry, current, told)
        except MeshError as error:
            if isinstance(error, Conflict) or _is_refusal(error):
                entry.state = state
                journal.write(run)
            raise
        if entry.before is None and current is not None:
            self._waiting.gone(self.client, entry.target, entry.path, uid_of(current), told)

    def _restore(
        self, entry: Entry, current: Mapping[str, Any] | None, told: Callable[[str], object]
    ) -> None:
        """Makes an object what it was before a step; one that somebody has deleted stays so."""
        if entry.before is None:
            if current is not None and not is_terminating(current):
                self._delete(entry, current)
            return
        if current is None:
            if not is_missed(entry):
                return
            self._check_owners(entry, entry.before)
            current = self._create(entry, entry.before)
        elif not same(current, entry.before):
            back = difference(content(current), content(entry.before))
            current = self._patch(entry, [_is_still(current), *back])
        if entry.after is None and uid_of(current) != uid_of(entry.before):
            entry.recreated = uid_of(current)
        try:
            self._give_back(entry, entry.before, current)
        except MeshError as error:
            told(_of_nobody(entry, "as it was", error))

    def _check_owners(self, entry: Entry, before: Mapping[str, Any]) -> None:
        """Raises Conflict where Kubernetes would delete an object, as all its owners are gone.

        An owner that this user may not get counts as being there.
        """
        owners = before["metadata"].get("ownerReferences") or ()
        if owners and not any(self._is_owned(entry.target.namespace, each) for each in owners):
            named = ", ".join(f"{each['kind']} {each['name']}" for each in owners)
            raise Conflict(
                f"{entry.target} belongs to {named}, which is gone: Kubernetes would delete it "
                "again; create it without ownerReferences, or its owner first"
            )

    def _is_owned(self, namespace: str, owner: Mapping[str, Any]) -> bool:
        try:
            path = self.kinds.path(owner["apiVersion"], owner["kind"], namespace, owner["name"])
            found = self.client.get(path)
        except Forbidden:
            return True
        except NotInstalled:
            return False
        return uid_of(found) == owner.get("uid") and not is_terminating(found)

    def _give_back(
        self, entry: Entry, before: Mapping[str, Any], current: Mapping[str, Any]
    ) -> None:
        """Makes the fields of an object theirs again whose they were before a step.

        Else they would be ours, and no manifest that is applied later could take them away.
        """
        self._own(
            entry,
            current,
            lambda current: given_back(current, before) if same(current, before) else None,
        )

    def _settled(
        self, entry: Entry, found: Mapping[str, Any] | None, told: Callable[[str], object]
    ) -> Mapping[str, Any] | None:
        """Makes it known whose the fields are that a step has just written.

        Of a patch they are theirs who had them before; and what is applied is noted where
        client-side kubectl looks for it. Returns the object as it is then. As the step is made,
        nothing is raised where that fails.
        """
        before = entry.before
        if found is None or before is None:
            return found
        try:
            if entry.applied is not None:
                now: Mapping[str, Any] | None = self._noted(entry, before, found, entry.applied)
            elif self._keeps_owners:
                now = self._own(entry, found, lambda now: kept(before, now, self._writer))
            else:
                return found
            # what somebody else has written or deleted meanwhile is not ours to take back
            return now if now is not None and same(now, found) else found
        except MeshError as error:
            told(_of_nobody(entry, entry.action.done, error))
        return found

    def _own(
        self,
        entry: Entry,
        current: Mapping[str, Any] | None,
        owners: Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]] | None],
    ) -> Mapping[str, Any] | None:
        """Sets whose the fields of an object are; returns it as it is then.

        Whoever writes to it meanwhile is written around. Raises ClusterError.
        """
        for _ in range(_TRIES):
            fields = owners(current) if current is not None else None
            if current is None or fields is None:
                return current
            with contextlib.suppress(Conflict):
                return self._patch(entry, [_is_still(current), _owners(fields)])
            current = self._current(entry)
        return current

    def _noted(
        self,
        entry: Entry,
        before: Mapping[str, Any],
        found: Mapping[str, Any],
        applied: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """Keeps the annotation of client-side kubectl, if there was one, as kubectl does.

        Else the next client-side `kubectl apply` would not know what to take away.
        """
        text = as_last_applied(applied)
        if self._applier != KUBECTL or last_applied(before) is None or last_applied(found) == text:
            return found
        metadata = found["metadata"]
        name = {key: metadata[key] for key in ("name", "namespace", "uid") if key in metadata}
        note = {
            "apiVersion": found["apiVersion"],
            "kind": found["kind"],
            "metadata": {**name, "annotations": {LAST_APPLIED: text}},
        }
        query = {"fieldManager": KEEPS_LAST_APPLIED, "force": "true"}
        return self.client.apply(entry.path, note, query)

    def _current(self, entry: Entry) -> Mapping[str, Any] | None:
        """The object of a step as it is now; None where it is gone."""
        try:
            found = self.client.get(entry.path)
        except NotInstalled:
            return None
        _check(found, str(entry.target))
        return found

    def _name(self, entry: Entry) -> str:
        """The field manager that makes a step."""
        return self._writer if entry.applied is None else self._applier

    def _found_made(
        self, entry: Entry, current: Mapping[str, Any] | None, told: Callable[[str], object]
    ) -> Mapping[str, Any] | None:
        """What a step has made whose answer was lost.

        Where others have written to it since, it is what was planned: theirs is not ours to take
        back.
        """
        if entry.after is None or current is None:
            return entry.after
        is_ours_alone = entry.before is None and managers(current) == {self._name(entry)}
        found = self._settled(entry, current, told)
        return found if is_ours_alone or same(current, entry.after) else entry.after

    def _is_made(self, entry: Entry, current: Mapping[str, Any] | None) -> bool:
        """Whether a step, of which that is not known, was made.

        Raises Conflict where somebody has changed the same since, so that it cannot be told.
        """
        if entry.before is None:
            if current is None:
                return False
            if same(current, entry.after or {}) or self._name(entry) in managers(current):
                return True
            raise Conflict(
                f"{entry.target}: {_who(current, None)} has written it, not as this run creates "
                "it, and it cannot be told whether the step was made: look at it, and delete it "
                "to go on"
            )
        if entry.after is None:
            return current is None or _is_other(entry, current)
        if current is None:
            raise Conflict(f"{entry.target}: it is gone; somebody has deleted it")
        if entry.applied is not None and same(current, entry.after):
            return True
        places = list(_places(entry.before, entry.operations)) or [("spec",)]
        for document, made in ((entry.before, False), (entry.after, True)):
            if all(field_at(current, place) == field_at(document, place) for place in places):
                return made
        who = _who(current, entry.after)
        raise Conflict(
            f"{entry.target}: {who} has changed it since, and it cannot be told whether "
            "the step was made: look at it, and take it back with undo --force"
        )

    def _look(self, entry: Entry) -> None:
        """Has a patch start from the object as it is now. Raises Conflict where it must not."""
        if entry.action is Action.PATCH and entry.applied is None:
            current = self._current(entry)
            _check_stays(entry, current)
            _follow(entry, current)

    def _make(self, entry: Entry, *, dry: bool = False) -> Mapping[str, Any] | None:
        """Makes a step, and returns the object as it is then. Raises Conflict and ClusterError.

        What a patch starts from was looked at just before.
        """
        if entry.applied is not None:
            return self._apply(entry, entry.applied, self._current(entry), dry=dry)
        if entry.before is None:
            assert entry.after is not None
            return self._create(entry, entry.after, dry=dry)
        if entry.after is not None:
            return self._patch(entry, [*entry.operations, *_aligning(entry)], dry=dry)
        current = self._current(entry)
        is_going = is_terminating(current) and not _is_other(entry, current)
        if current is not None and not is_going:
            self._delete(entry, _unchanged(entry, current), dry=dry)
        return None

    def _apply(
        self,
        entry: Entry,
        applied: Mapping[str, Any],
        current: Mapping[str, Any] | None,
        *,
        dry: bool = False,
    ) -> Mapping[str, Any]:
        """Applies a configuration on the server, to the object as it was looked at."""
        metadata = dict(applied["metadata"])
        if entry.before is not None:
            current = _unchanged(entry, current)
            if not dry:
                current = self._handed_over(entry, current)
            metadata["resourceVersion"] = current["metadata"]["resourceVersion"]
        elif current is not None:
            raise Conflict(f"{entry.target}: it is there already")
        query = {
            **self._options(dry, self._applier),
            "force": "true" if self._force_conflicts else "false",
        }
        body = {**applied, "metadata": metadata}
        try:
            found = self.client.apply(entry.path, body, query)
        except ApiError as error:
            if error.status == _INVALID_OBJECT and dry and handed_over(current or {}, ""):
                raise Conflict(
                    f"{entry.target}: {error.reason}: if the manifest is right, that is as "
                    "client-side kubectl has applied it, and the API server cannot try this before "
                    "its fields are handed over: make this change with kubectl apply"
                ) from error
            if error.status != _CONFLICT:
                raise
            if not (dry and is_handed_over(current or {}, error.reason)):
                raise Conflict(
                    f"{entry.target}: {error.reason}: to keep what is there, put it into the "
                    "manifest; to overwrite it, use --force-conflicts"
                ) from error
            found = self.client.apply(entry.path, body, {**query, "force": "true"})
        if not dry:
            _check(found, str(entry.target))
        return found

    def would_be(
        self,
        target: Target,
        path: str,
        applied: Mapping[str, Any],
        live: Mapping[str, Any] | None,
        current: Mapping[str, Any] | None,
    ) -> Mapping[str, Any]:
        """What would become of an object if a configuration were applied to it on the server.

        The server is asked. `live` is the object as it was looked at, `current` as it is now. What
        client-side kubectl has applied and is no longer in the configuration is taken off; but not
        fields of kinds that are not Istio's, as it is not known what the server would put in their
        place. Raises Conflict and ClusterError.
        """
        if current is not None:
            _check(current, str(target))
        entry = Entry(target, path, (), (), live, applied, applied=applied)
        found = dict(self._apply(entry, applied, current, dry=True))
        for place in abandoned(live or {}, applied):
            if is_item(place) or _of_istio([entry]):
                found = without(found, place)
        return found

    def _handed_over(self, entry: Entry, current: Mapping[str, Any]) -> Mapping[str, Any]:
        """Makes fields that client-side kubectl has ours; returns the object as it is then."""
        fields = handed_over(current, self._applier)
        if fields is None:
            return current
        return self._patch(entry, [_is_still(current), _owners(fields)])

    def _create(
        self, entry: Entry, value: Mapping[str, Any], *, dry: bool = False
    ) -> Mapping[str, Any]:
        folder = entry.path.rpartition("/")[0]
        try:
            found = self.client.create(folder, content(value), self._options(dry))
        except ApiError as error:
            if error.status != _CONFLICT:
                raise
            raise Conflict(f"{entry.target}: it is there already") from error
        if not dry:
            _check(found, str(entry.target))
        return found

    def _delete(self, entry: Entry, current: Mapping[str, Any], *, dry: bool = False) -> None:
        """Deletes an object, if it is still the one that was just read."""
        version = {key: current["metadata"][key] for key in ("uid", "resourceVersion")}
        try:
            self.client.delete(entry.path, version, dry=dry)
        except NotInstalled:
            return
        except ApiError as error:
            if error.status != _CONFLICT:
                raise
            raise Conflict(f"{entry.target}: somebody is changing it: run it again") from error

    def _patch(
        self, entry: Entry, operations: Sequence[Operation], *, dry: bool = False
    ) -> Mapping[str, Any]:
        name, path = str(entry.target), entry.path
        try:
            found = self.client.patch(path, operations, self._options(dry))
        except NotInstalled:
            raise Conflict(f"{name}: it is gone; somebody has deleted it") from None
        except ApiError as error:
            if error.status not in _INVALID:
                raise
            try:
                current = self.client.get(path)
            except MeshError:
                raise error from None
            if _fits(current, operations):
                raise
            who = _who(current, entry.before)
            raise Conflict(f"{name}: {who} has changed it since it was read") from error
        _check(found, name)
        return found

    def _options(self, dry: bool, manager: str = "") -> Mapping[str, str]:
        return {
            "fieldManager": manager or self._writer,
            **({"dryRun": "All"} if dry else {}),
        }


def _unchanged(entry: Entry, current: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The object of a step, which has to be as it was looked at. Raises Conflict."""
    if current is None:
        raise Conflict(f"{entry.target}: it is gone; somebody has deleted it")
    _check_stays(entry, current)
    if not same(current, entry.before or {}):
        who = _who(current, entry.before)
        raise Conflict(f"{entry.target}: {who} has changed it since it was read")
    return current


def _follow(entry: Entry, current: Mapping[str, Any] | None) -> None:
    """Has a patch start from the object as it is now: others may have changed the rest of it.

    Where the patch does not fit any more, the object stays as it was looked at.
    """
    if current is not None:
        with contextlib.suppress(Conflict):
            entry.after = patched(current, entry.operations)
            entry.before = current


def _check_stays(entry: Entry, current: Mapping[str, Any] | None) -> None:
    """Raises Conflict where the object of a step is another one by now, or is being deleted."""
    if current is not None and _is_other(entry, current):
        raise Conflict(_created_anew(entry, current))
    if current is not None and is_terminating(current):
        raise Conflict(
            f"{entry.target} {being_deleted(current)}: what is written to it would vanish with it; "
            "wait until it is gone, and run it again"
        )


def _since_made(entry: Entry, current: Mapping[str, Any] | None) -> str | None:
    """What somebody has done to the object of a step, as far as going on has to know."""
    if current is None:
        is_missing = entry.state is State.DONE and entry.after is not None
        return f"{entry.target} is gone; somebody has deleted it" if is_missing else None
    if _is_other(entry, current):
        return _created_anew(entry, current)
    if is_terminating(current) and entry.state is State.DONE:
        return f"{entry.target} {being_deleted(current)}"
    return None


def _since_undone(entry: Entry, current: Mapping[str, Any] | None) -> str | None:
    """What somebody has done to the object of a step, as far as taking it back has to know."""
    if current is None:
        is_missing = entry.before is not None and entry.after is not None
        return f"{entry.target} is gone; somebody has deleted it" if is_missing else None
    is_same = _is_either(current, entry.before, entry.after)
    if _is_other(entry, current):
        is_undos = entry.after is None and entry.state is State.UNDOING and is_same
        return None if is_undos else _created_anew(entry, current)
    if is_terminating(current):
        is_ours = entry.before is None or entry.after is None
        return None if is_ours else f"{entry.target} {being_deleted(current)}"
    return None if is_same else f"{entry.target}: {_who(current, entry.after)} has changed it since"


def _created_anew(entry: Entry, current: Mapping[str, Any]) -> str:
    who = _who(current, None)
    return f"{entry.target}: it was deleted and created anew: {who} has changed it since"


def is_missed(entry: Entry) -> bool:
    """Whether going back creates an object that is not there: the step deleted it.

    Not if somebody had asked for its deletion before.
    """
    return entry.after is None and not is_terminating(entry.before)


def _is_other(entry: Entry, current: Mapping[str, Any] | None) -> bool:
    """Whether an object only has the name of that of a step. False where that is not known."""
    known = uid_of(entry.before)
    if entry.before is None and entry.state not in (State.PLANNED, State.STARTED):
        known = uid_of(entry.after)
    found = uid_of(current)
    return bool(known and found and found not in (known, entry.recreated))


def _succeed(entries: Iterable[Entry], journal: Journal) -> None:
    """Has objects that undo has created count as those in whose place they are.

    A step keeps the uid of what it deleted: the journal tells by it what came in its place.
    """
    recreated = journal.recreated()
    for each in entries:
        if each.recreated:
            each.recreated = _successor(each.recreated, recreated)
        else:
            each.before, each.after = (
                _succeeded(document, recreated) for document in (each.before, each.after)
            )


def _successor(uid: str, recreated: Mapping[str, str]) -> str:
    left = dict(recreated)
    while uid in left:
        uid = left.pop(uid)
    return uid


def _succeeded(
    document: Mapping[str, Any] | None, recreated: Mapping[str, str]
) -> Mapping[str, Any] | None:
    """An object with the uid of the last one that undo has created in its place."""
    uid = _successor(uid_of(document), recreated)
    if document is None or uid == uid_of(document):
        return document
    return {**document, "metadata": {**document["metadata"], "uid": uid}}


def _is_still(current: Mapping[str, Any]) -> Operation:
    """The test that an object is the very one that was just read."""
    version = current["metadata"]["resourceVersion"]
    return {"op": "test", "path": "/metadata/resourceVersion", "value": version}


def _owners(fields: Sequence[Mapping[str, Any]]) -> Operation:
    """What makes it known whose fields are. An empty list alone is not heeded."""
    return {"op": "replace", "path": "/metadata/managedFields", "value": list(fields) or [{}]}


def _aligning(entry: Entry) -> list[Operation]:
    """What keeps the annotation of client-side kubectl in line with a patch."""
    before, after = content(entry.before or {}), content(entry.after or {})
    text = aligned(before, after)
    if text is None:
        return []
    path = pointer(("metadata", "annotations", LAST_APPLIED))
    return [
        {"op": "test", "path": path, "value": last_applied(before)},
        {"op": "replace", "path": path, "value": text},
    ]


def _check(found: Mapping[str, Any], name: str) -> None:
    """Raises ClusterError for an answer that is not the object."""
    metadata = found.get("metadata")
    known = metadata if isinstance(metadata, dict) else {}
    parts = [known.get(key) for key in ("uid", "resourceVersion")]
    is_whole = all(isinstance(each, str) and each for each in parts)
    if found.get("kind") != name.partition(" ")[0] or not is_whole:
        raise ClusterError(f"{name}: the API server answered with something else")


def way_back(run: Run) -> Iterator[tuple[Entry, bool]]:
    """The steps of a run in the order in which they are taken back, restarts after all others.

    With each, whether to wait for the proxies before: where they had to have a step before the next
    one. What is made anew, of one kind, comes with the oldest first, and behind the wait of any of
    it.
    """
    back = run.made[::-1]
    back.sort(key=lambda each: each.then is Then.ROLLED_OUT)
    for (_, gone), group in itertools.groupby(
        back, lambda each: (each.target.kind, each.after is None)
    ):
        found = list(group)
        waits = any(each.then is Then.PROXIES for each in found)
        if gone:
            found.sort(key=_made_at)
        for number, entry in enumerate(found):
            yield entry, (waits and not number) if gone else entry.then is Then.PROXIES


def _made_at(entry: Entry) -> str:
    metadata = (entry.before or {}).get("metadata") or {}
    return str(metadata.get("creationTimestamp") or "")


def _is_older(undone: Sequence[Entry], entry: Entry) -> bool:
    """Whether what was made anew last was older: the seconds of their making tell them apart."""
    return any(each.after is None and _made_at(each) < _made_at(entry) for each in undone)


def _of_istio(entries: Iterable[Entry]) -> list[Entry]:
    """The newest step of each object that istiod reads as configuration."""
    found = {
        each.path: each
        for each in entries
        if each.target.api_version.partition("/")[0].endswith(".istio.io")
    }
    return list(found.values())


def _note(run: Run, entry: Entry, state: State, journal: Journal) -> None:
    """Writes down what has just become so. Raises Stopped where that cannot be written."""
    known, entry.state = entry.state, state
    try:
        journal.write(run)
    except MeshError as error:
        done, how = "as it was", f"kubectl mesh undo {run.id} goes on"
        if state is State.DONE:
            done = entry.action.done
            how = (
                f"kubectl mesh {run.goes_on} {run.id} goes on, kubectl mesh undo {run.id} goes back"
            )
        raise Stopped(
            f"{entry.target} is {done}, but {error}; the journal {run.id} in {journal.folder} says "
            f"that it is {known.value}: once it can be written, {how}"
        ) from error


def _of_nobody(entry: Entry, done: str, error: MeshError) -> str:
    """That an object is what it should be, but its fields are not theirs whose they were."""
    return (
        f"{entry.target} is {done}, but not whose its fields are: {error}: the next kubectl apply "
        "of it may tell of a conflict"
    )


def _places(document: Mapping[str, Any], operations: Sequence[Operation]) -> Iterator[Path]:
    """The fields that a patch changes; of what stands in a list it is the list."""
    for operation in operations:
        if operation["op"] == "test":
            continue
        here: Any = document
        path: Path = ()
        for part in JsonPointer(operation["path"]).parts:
            if isinstance(here, list):
                break
            path = (*path, part)
            here = field_at(here, (part,))
        yield path


def _fits(current: Mapping[str, Any], operations: Sequence[Operation]) -> bool:
    """Whether it is not for a test that a patch was refused."""
    tests = [dict(each) for each in operations if each["op"] == "test"]
    try:
        jsonpatch.JsonPatch(tests).apply(dict(current))
    except jsonpatch.JsonPatchException:
        return False
    return True


def _entry(step: Step) -> Entry:
    return Entry(
        step.target,
        step.path or path_of(step.resource),
        step.reasons,
        step.operations,
        step.before,
        step.after,
        step.then,
        applied=step.applied,
        ready=step.ready,
    )


def _is_either(current: Mapping[str, Any] | None, *others: Mapping[str, Any] | None) -> bool:
    """Whether an object is one of others, or is not there as one of them is not."""
    if current is None:
        return None in others
    return any(each is not None and same(current, each) for each in others)


def _is_refusal(error: MeshError) -> bool:
    """Whether the server has said no, so that the step is known not to be made."""
    if isinstance(error, ApiError):
        return 400 <= error.status < 500 or _UNTYPED in error.reason
    return isinstance(error, (Forbidden, NotInstalled))


def _by_our_own(
    run: Run, entry: Entry, current: Mapping[str, Any] | None, journal: Journal
) -> str | None:
    """That a later run of ours has made what an object is now, and what to do; None if none has."""
    for later in journal.runs():
        if isinstance(later, JournalError) or later.id <= run.id:
            break
        made = [each.after for each in later.made if each.target.is_same_object(entry.target)]
        is_there = (later.server, later.cluster) == (run.server, run.cluster)
        if is_there and made and _is_either(current, _in_version_of(current, made[-1])):
            what = "deleted" if current is None else "changed"
            command = f"kubectl mesh {later.command}".rstrip()
            return (
                f"{entry.target}: your own {command} at {later.started} has {what} it since: "
                f"undo that first with kubectl mesh undo {later.id}"
            )
    return None


def _in_version_of(
    current: Mapping[str, Any] | None, known: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """A known object under the apiVersion by which it was asked for: the fields are the same."""
    if current is None or known is None:
        return known
    return {**known, "apiVersion": current.get("apiVersion")}


def _who(current: Mapping[str, Any], known: Mapping[str, Any] | None) -> str:
    """Who has written to an object last, as managedFields have it, since it was as it is `known`.

    Their times are in seconds, so that the last one may not be the one who wrote since. Where we
    wrote, they do not say so: then nobody is named.
    """
    others = writers(current, known or {})
    last = max(others, key=lambda each: str(each.get("time") or ""), default=None)
    if last is None:
        return "somebody"
    return f"{last.get('manager')} (at {last.get('time')})"


def _left(run: Run, why: str) -> str:
    undone = sum(each.state is State.UNDONE for each in run.entries)
    return (
        f"{why}; {undone} of {len(run.entries)} steps are taken back: kubectl mesh undo {run.id} "
        "goes on"
    )


def _stopped(run: Run, entry: Entry, why: str) -> str:
    made = sum(each.state is State.DONE for each in run.entries)
    unsure = ""
    if entry.state is State.STARTED:
        unsure = "; whether this step was made is not known"
    if entry.state is State.DELETING:
        unsure = f"; the deletion of {entry.target} was asked for and is not finished"
    left = (
        f"{made} of {len(run.entries)} steps are made{unsure}"
        if made or unsure
        else "nothing is changed"
    )
    how = (
        f": kubectl mesh {run.goes_on} {run.id} goes on, kubectl mesh undo {run.id} goes back"
        if made or unsure
        else ""
    )
    return f"{why}; {left}{how}"
