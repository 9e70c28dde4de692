"""Ports of Services that get another protocol, and the rules that it matters to."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.ports import family, parse
from kubectl_mesh.mesh.registry import Port, Service
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.rules.repair import Edit, Repair

NAME_IS_REFERRED_TO = (
    "what refers to the port by its name (an Ingress, a ServiceMonitor) has to follow"
)
_LONGEST = 63
"""Characters of the name of a Service's port."""


def declared(service: Service, port: Port, protocol: str, *, sure: bool) -> Repair:
    """By appProtocol: a new name would have to follow wherever the old one is referred to.

    It is safe if it is `sure` that this is what is spoken.
    """
    lost = f"what is not {protocol} no longer gets through the port"
    return Repair(
        protocol,
        f"declare port {port} of {service.resource} to be {protocol}, by appProtocol",
        (Edit(service.resource, (*port.path, "appProtocol"), protocol),),
        unsafe="" if sure else lost,
        affects=(lost,) if sure else (),
    )


def corrected(service: Service, port: Port, protocol: str) -> Repair:
    """Where the port is said to speak another one: by all fields that say so."""
    edits = tuple(_corrections(service, port, protocol))
    fields = " and ".join(str(edit.path[-1]) for edit in edits)
    lost = f"what is not {protocol} no longer gets through the port"
    if any(edit.path[-1] == "name" for edit in edits):
        lost += f"; {NAME_IS_REFERRED_TO}"
    return Repair(
        protocol,
        f"declare port {port} of {service.resource} to be {protocol}, by its {fields}",
        edits,
        unsafe=lost,
    )


def _corrections(service: Service, port: Port, protocol: str) -> Iterator[Edit]:
    if not service.is_kubernetes:
        yield Edit(service.resource, (*port.path, "protocol"), protocol.upper())
        return
    named = parse(port.name)
    wrong_name = named is not None and family(named) != family(protocol)
    stated = service.resource.spec["ports"][port.path[-1]].get("appProtocol")
    if stated is not None or not wrong_name:
        yield Edit(service.resource, (*port.path, "appProtocol"), protocol)
    if wrong_name:
        yield Edit(service.resource, (*port.path, "name"), renamed(service, port, protocol))


def renamed(service: Service, port: Port, protocol: str) -> str:
    """The port's name with another protocol at its beginning, and no other port's."""
    rest = port.name.partition("-")[2]
    name = f"{protocol}-{rest}" if rest else protocol
    others = {each.name for each in service.ports if each is not port}
    if name in others:
        name = f"{name[: _LONGEST - 6]}-{port.number}"
    return name[:_LONGEST].rstrip("-")


def http_rules_for(snapshot: Snapshot, host: str) -> list[VirtualService]:
    """The VirtualServices whose http rules sidecars apply to requests to `host`."""
    bound = dict.fromkeys(snapshot.virtual_services.on_mesh_for(host))
    return [vs for vs in bound if vs.resource.spec.get("http")]
