"""How long `kubectl mesh apply --dry-run` takes to plan, as a whole process.

    python -m bench.apply [--services 1000] [--changed 50] [--runs 3]

A mesh of many services in a real API server; of the first ones the VirtualService and the
DestinationRule are changed. Prints wall time (the best of the runs) and peak memory.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import yaml
from tabulate import tabulate

from bench.compare import measure
from bench.mesh import documents
from tests.realmesh.apiserver import ApiServer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--changed", type=int, default=50)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    objects = list(yaml.load_all("---\n".join(documents(args.services)), yaml.CSafeLoader))
    changed = [item for item in objects if item["kind"] in ("VirtualService", "DestinationRule")]
    with ApiServer() as server, tempfile.TemporaryDirectory() as folder:
        first = [item for item in objects if item["kind"] == "Namespace"]
        server.create(first)
        server.create(item for item in objects if item not in first)
        for item in changed[: args.changed]:
            if item["kind"] == "VirtualService":
                item["spec"]["http"][0]["timeout"] = "7s"
            else:
                item["spec"]["trafficPolicy"] = {"loadBalancer": {"simple": "RANDOM"}}
        file = Path(folder, "changed.yaml")
        file.write_text(yaml.safe_dump_all(changed[: args.changed]))
        command = [sys.executable, "-m", "kubectl_mesh", "apply", "-f", str(file), "--dry-run"]
        command += ["--force-conflicts", "--kubeconfig", str(server.kubeconfig)]
        runs = [measure(command, {**os.environ}) for _ in range(args.runs)]
    seconds, memory = min(run[0] for run in runs), min(run[1] for run in runs) // 1024
    name = f"{args.services} services, {args.changed} changed objects"
    print(tabulate([[name, f"{seconds:.2f}", memory]], ("input", "s", "MiB")))


if __name__ == "__main__":
    main()
