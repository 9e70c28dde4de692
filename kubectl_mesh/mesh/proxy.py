"""A proxy, as rules tell it from others: a client's sidecar, or the pods of a gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from kubectl_mesh.mesh.gateways import Gateway

if TYPE_CHECKING:
    from kubectl_mesh.mesh.snapshot import Snapshot


@dataclass(frozen=True, eq=False)
class Proxy:
    """The Envoys of pods of one namespace with the same labels. istiod configures them alike.

    `gateways` are the Gateways that configure them, the oldest first; None for sidecars. `assumed`
    where no such pod was seen: it tells no proxy from another.
    """

    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    gateways: tuple[Gateway, ...] | None = None
    assumed: bool = False

    @classmethod
    def of_gateway(
        cls, snapshot: Snapshot, namespace: str, labels: Mapping[str, str], *, assumed: bool = False
    ) -> Proxy:
        """The pods of a gateway, which the Gateways that select them configure."""
        return cls(namespace, labels, snapshot.gateways.of_pod(labels), assumed)

    @property
    def is_gateway(self) -> bool:
        return self.gateways is not None

    def in_state(self, snapshot: Snapshot) -> Proxy:
        """The same pods in another state of the mesh."""
        if not self.is_gateway:
            return self
        return self.of_gateway(snapshot, self.namespace, self.labels, assumed=self.assumed)

    def __str__(self) -> str:
        labels = ",".join(f"{name}={value}" for name, value in sorted(self.labels.items()))
        return f"pods of namespace {self.namespace}" + (f" with {labels}" if labels else "")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Proxy) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[object, ...]:
        return self.namespace, frozenset(self.labels.items()), self.gateways
