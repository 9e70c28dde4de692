"""The doctor against `istioctl analyze`, on the same input in the same run.

    python -m bench.doctor [--services 100 1000 3000] [--runs 3] [--live]

Prints wall time (the best of the runs, which alternate) and peak memory of whole processes, and
ours as a ratio of istioctl's. `--live` compares on the real API server with 1,000 services.
istioctl comes from `python -m tests.realmesh build`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import yaml
from tabulate import tabulate

from bench.mesh import documents
from tests.realmesh.apiserver import ApiServer
from tests.realmesh.build import NEWEST, binary

FOUND_SOMETHING = 79
"""istioctl's exit status where it has something to report; a bare cluster has no webhook."""
THEIRS = f"istioctl {NEWEST}"
HEADERS = ("input", "ours s", f"{THEIRS} s", "ratio", "ours MiB", f"{THEIRS} MiB", "ratio")

OURS = (sys.executable, "-m", "kubectl_mesh", "doctor", "--fail-on", "never")


def measure(command: list[str], env: dict[str, str]) -> tuple[float, int]:
    """Seconds and peak KiB of one run. Raises where the command fails."""
    start = time.perf_counter()
    pid = os.posix_spawnp(
        command[0],
        command,
        env,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)
        ],
    )
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, FOUND_SOMETHING):
        raise SystemExit(f"{' '.join(command)}: exit {code}")
    return seconds, usage.ru_maxrss


def compare(
    name: str, ours: list[str], theirs: list[str], runs: int, env: dict[str, str]
) -> list[object]:
    """A row of the table: both measured in turns, the best of each."""
    results: dict[str, list[tuple[float, int]]] = {"ours": [], "theirs": []}
    for _ in range(runs):
        results["ours"].append(measure(ours, env))
        results["theirs"].append(measure(theirs, env))
    seconds = {who: min(run[0] for run in found) for who, found in results.items()}
    memory = {who: min(run[1] for run in found) // 1024 for who, found in results.items()}
    return [
        name,
        f"{seconds['ours']:.2f}",
        f"{seconds['theirs']:.2f}",
        f"{seconds['ours'] / seconds['theirs']:.2f}",
        memory["ours"],
        memory["theirs"],
        f"{memory['ours'] / memory['theirs']:.2f}",
    ]


def on_files(services: int, runs: int, folder: Path) -> list[object]:
    file = folder / f"mesh-{services}.yaml"
    file.write_text("---\n".join(documents(services)))
    env = {**os.environ, "KUBECONFIG": os.devnull}
    return compare(
        f"{services:,} services, files",
        [*OURS, "-f", str(file)],
        [str(binary("istioctl")), "analyze", "--use-kube=false", str(file)],
        runs,
        env,
    )


def live(services: int, runs: int) -> list[object]:
    with ApiServer() as server:
        objects = list(yaml.load_all("---\n".join(documents(services)), yaml.CSafeLoader))
        first = [item for item in objects if item["kind"] == "Namespace"]
        server.create(first)
        server.create(item for item in objects if item not in first)
        env = {**os.environ, "KUBECONFIG": str(server.kubeconfig)}
        return compare(
            f"{services:,} services, live",
            [*OURS, "-A"],
            [str(binary("istioctl")), "analyze", "-A"],
            runs,
            env,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--services", type=int, nargs="+", default=[100, 1000, 3000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--live", action="store_true", help="also 1,000 services in a cluster")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [on_files(services, args.runs, Path(folder)) for services in args.services]
    if args.live:
        rows.append(live(1000, args.runs))
    print(tabulate(rows, HEADERS, disable_numparse=True))


if __name__ == "__main__":
    main()
