"""How long `kubectl mesh merge-vs` takes to list all that could be merged, as a whole process.

    python -m bench.merge [--services 1000] [--split 100] [--runs 3]

A mesh of many services; of the first ones, each has a second VirtualService on the mesh, and one of
a gateway that names no subset. Prints wall time (the best of the runs) and peak memory.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tabulate import tabulate

from bench.compare import measure
from bench.mesh import documents

_SPLIT = """\
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {{name: s{n}-more, namespace: shop}}
spec:
  hosts: [s{n}]
  http:
  - match:
    - uri: {{prefix: /more}}
    route:
    - destination: {{host: s{n}, subset: v2}}
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {{name: s{n}-outside, namespace: shop}}
spec:
  hosts: [more{n}.shop.example.com]
  gateways: [entrance]
  http:
  - match:
    - uri: {{prefix: /outside}}
    route:
    - destination: {{host: s{n}}}
"""


def split(services: int, count: int) -> Iterator[str]:
    """The manifests of a mesh, with VirtualServices that could be merged."""
    yield from documents(services)
    yield from (_SPLIT.format(n=number) for number in range(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--split", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    env = {**os.environ, "KUBECONFIG": os.devnull}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "mesh.yaml")
        file.write_text("---\n".join(split(args.services, args.split)))
        command = [sys.executable, "-m", "kubectl_mesh", "merge-vs", "-f", str(file)]
        runs = [measure(command, env, (0,)) for _ in range(args.runs)]
    seconds, memory = min(run[0] for run in runs), min(run[1] for run in runs) // 1024
    name = f"{args.services} services, {2 * args.split} possible merges"
    print(tabulate([[name, f"{seconds:.2f}", memory]], ("input", "s", "MiB")))


if __name__ == "__main__":
    main()
