"""How long `kubectl mesh compare` takes, as a whole process.

    python -m bench.compare [--services 1000] [--rules 200] [--runs 3]

Two meshes of many services with one changed VirtualService; two VirtualServices of many rules each,
of which the later one has a rule moved, one removed, one changed and one added, or all in another
order. Prints wall time (the best of the runs) and peak memory.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from bench.mesh import documents


def virtual_service(rules: list[Any]) -> str:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]},
    }
    resource = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"hosts": ["web"], "http": rules},
    }
    return yaml.safe_dump_all([service, resource])


def rules(count: int) -> list[Any]:
    """Rules of every kind: paths that overlap, headers, expressions, a catch-all at the end."""
    found: list[Any] = []
    for number in range(count - 1):
        kind = number % 5
        match: dict[str, Any]
        if kind == 0:
            match = {"uri": {"exact": f"/api/v{number}"}}
        elif kind == 1:
            match = {"uri": {"prefix": f"/api/v{number % 40}"}, "method": {"exact": "POST"}}
        elif kind == 2:
            match = {"headers": {f"x-{number % 30}": {"exact": str(number)}}}
        elif kind == 3:
            match = {"uri": {"regex": f"/api/[a-z]+/{number}(/.*)?"}}
        else:
            match = {
                "uri": {"prefix": f"/{number}"},
                "withoutHeaders": {"x-old": {}},
                "queryParams": {"q": {"exact": str(number % 7)}},
            }
        found.append({"match": [match], "directResponse": {"status": 200 + number}})
    return [*found, {"directResponse": {"status": 599}}]


def pairs(services: int, count: int) -> Iterator[tuple[str, str, str]]:
    mesh = "---\n".join(documents(services))
    old = "      end-user:\n          exact: tester"
    assert mesh.count(old) >= services
    yield f"{services:,} services, one changed", mesh, mesh.replace(old, f"{old}s", 1)
    first = rules(count)
    edited = [*first]
    edited.insert(3, edited.pop(count // 2))
    del edited[count // 3]
    edited[10] = {**edited[10], "match": [{"uri": {"prefix": "/api"}}]}
    edited.insert(20, {"match": [{"uri": {"prefix": "/new"}}], "directResponse": {"status": 418}})
    yield f"{count} rules each, edited", virtual_service(first), virtual_service(edited)
    mixed = first[:-1]
    random.Random(1).shuffle(mixed)
    yield (
        f"{count} rules each, shuffled",
        virtual_service(first),
        virtual_service([*mixed, first[-1]]),
    )


def measure(
    command: list[str], env: dict[str, str], expected: tuple[int, ...] = (1,)
) -> tuple[float, int]:
    """Seconds and peak KiB of one run. Raises unless it ends with a status that is expected."""
    start = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(command[0], command, env, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    code = os.waitstatus_to_exitcode(status)
    if code not in expected:
        raise SystemExit(f"{' '.join(command)}: exit {code}")
    return seconds, usage.ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--rules", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    rows = []
    env = {**os.environ, "KUBECONFIG": os.devnull}
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.yaml"), Path(folder, "after.yaml")
        for name, one, other in pairs(args.services, args.rules):
            before.write_text(one)
            after.write_text(other)
            command = [sys.executable, "-m", "kubectl_mesh", "compare", str(before), str(after)]
            runs = [measure(command, env) for _ in range(args.runs)]
            rows.append(
                [name, f"{min(run[0] for run in runs):.2f}", min(run[1] for run in runs) // 1024]
            )
    print(tabulate(rows, ("input", "s", "MiB"), disable_numparse=True))


if __name__ == "__main__":
    main()
