"""How long the plugin takes to start, as krew installs it, beside kubectl itself.

    python -m bench.start [--runs 20]

The archive is built and unpacked; each command runs once to be compiled, then so many times. Prints
the median and the best wall time.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from tests.krew.conftest import release
from tests.realmesh.build import kubectl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        launcher = release(Path(folder)).unpacked / "kubectl-mesh"
        commands = {
            "kubectl mesh version --client": [launcher, "version", "--client"],
            "kubectl mesh --help": [launcher, "--help"],
            "kubectl mesh doctor --help": [launcher, "doctor", "--help"],
            "kubectl version --client": [kubectl(), "version", "--client"],
        }
        rows = []
        for name, command in commands.items():
            seconds = [_measured(command) for _ in range(args.runs + 1)][1:]
            rows.append((name, statistics.median(seconds), min(seconds)))
    print(tabulate(rows, ("command", "median s", "best s"), floatfmt=".3f"))


def _measured(command: list[str | Path]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
