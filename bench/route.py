"""`kubectl mesh route --requests`: many requests on one table of many rules.

    python -m bench.route [--rules 1000] [--requests 10000] [--runs 3]

Prints the best wall time and processor time of whole processes, for several kinds of rules: what
they match by decides what it takes to find the first that matches. A third of the requests match
no rule.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

_COMMON = """\
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec:
  selector: {app: shop}
  ports: [{name: http, port: 80}]
---
"""
Match = Mapping[str, Any]

KINDS: Mapping[str, Callable[[int], Match]] = {
    "exact paths": lambda n: {"uri": {"exact": f"/api/v1/items/{n}"}},
    "prefixes": lambda n: {"uri": {"prefix": f"/api/v1/items/{n}/"}},
    "regular expressions": lambda n: {"uri": {"regex": f"/api/v1/items/{n}(/.*)?"}},
    "a header's value": lambda n: {"headers": {"tenant": {"exact": f"t{n}"}}},
    "path and header": lambda n: {
        "uri": {"prefix": f"/api/v{n % 10}/"},
        "headers": {"tenant": {"exact": f"t{n}"}},
    },
}


def virtual_service(match: Callable[[int], Match], rules: int) -> Mapping[str, Any]:
    http = [
        {
            "name": f"r{n}",
            "match": [match(n)],
            "route": [{"destination": {"host": "shop", "port": {"number": 80}}}],
        }
        for n in range(rules)
    ]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "shop", "namespace": "default"},
        "spec": {"hosts": ["shop"], "http": http},
    }


def requests(rules: int, count: int) -> Iterator[str]:
    """Requests near the constants of the rules, the same ones each time."""
    choose = random.Random(1)
    for _ in range(count):
        n = choose.randrange(rules * 3 // 2)
        path = choose.choice((f"/api/v1/items/{n}", f"/api/v1/items/{n}/x", f"/api/v{n % 10}/y"))
        request = {
            "from": "mesh",
            "sourceNamespace": "default",
            "url": f"http://shop{path}?page=1",
            "headers": {"tenant": f"t{n}"},
        }
        yield json.dumps(request)


def processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(
    folder: Path, match: Callable[[int], Match], rules: int, count: int
) -> tuple[float, float]:
    """Seconds of a whole process: on the clock, and of processors."""
    manifest = folder / "mesh.yaml"
    manifest.write_text(_COMMON + json.dumps(virtual_service(match, rules)))
    asked = folder / "requests.jsonl"
    asked.write_text("".join(f"{line}\n" for line in requests(rules, count)))
    command = [sys.executable, "-m", "kubectl_mesh", "route"]
    before = processor_time()
    start = time.perf_counter()
    done = subprocess.run(
        [*command, "--requests", str(asked), "-f", str(manifest)],
        env={**os.environ, "KUBECONFIG": os.devnull},
        stdout=subprocess.PIPE,
        check=True,
    )
    seconds = time.perf_counter() - start
    if done.stdout.count(b"\n") != count:
        raise SystemExit("not every request was answered")
    return seconds, processor_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rules", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for kind, match in KINDS.items():
            times = [
                measure(Path(folder), match, args.rules, args.requests) for _ in range(args.runs)
            ]
            rows.append((kind, *(f"{min(column):.2f}" for column in zip(*times, strict=True))))
    print(f"{args.requests:,} requests on {args.rules:,} rules")
    print(tabulate(rows, ("the rules match by", "s", "processor s"), disable_numparse=True))


if __name__ == "__main__":
    main()
