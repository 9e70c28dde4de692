"""What pip installs from a checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from krew.build import ROOT
from kubectl_mesh import __version__

EXAMPLE = ROOT / "examples" / "1-subset-not-defined.yaml"


def test_the_plugin_and_its_completion_are_installed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "kubectl_mesh", source / "kubectl_mesh")
    shutil.copytree(ROOT / "krew", source / "krew")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--target", tmp_path, source], check=True)

    def run(program: str, *arguments: str | Path) -> str:
        return subprocess.run(
            [tmp_path / "bin" / program, *arguments],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        ).stdout

    assert run("kubectl-mesh", "version", "--client") == f"kubectl mesh  {__version__}\n"
    assert run("kubectl_complete-mesh", "ver").startswith("version\t")
    report = json.loads(run("kubectl-mesh", "doctor", "-f", EXAMPLE, "-o", "json"))
    assert [each["code"] for each in report["findings"]] == ["KM101"]
    assert (tmp_path / "kubectl_mesh" / "report" / "report.schema.json").exists()
    assert not (tmp_path / "krew").exists()
