"""The command line: exit statuses, what is imported for what, how errors are said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_mesh.cli import COMMANDS, main
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules import km101_undefined_subset

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
WARNING_ONLY = "tests/rules/KM902/bad-two-contents.yaml"


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", os.devnull)
    monkeypatch.chdir(ROOT)


def imported(*arguments: str) -> set[str]:
    """The top-level packages that one command line imports."""
    script = (
        "import sys; from kubectl_mesh.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["doctor", "--help"]])
def test_help_needs_no_heavy_package(arguments: list[str]) -> None:
    heavy = {"kubernetes", "urllib3", "tabulate", "crossplane"}
    assert not imported(*arguments) & heavy
    if "doctor" not in arguments:
        assert "yaml" not in imported(*arguments)


def test_files_need_no_cluster_package() -> None:
    assert not imported("doctor", "-f", "examples") & {"kubernetes", "urllib3"}


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["doctor", "-f", "examples"], 1),
        (["doctor", "-f", "examples/repaired"], 0),
        (["doctor", "-f", "examples", "--fail-on", "never"], 0),
        (["doctor", "-f", WARNING_ONLY], 0),
        (["doctor", "-f", WARNING_ONLY, "--fail-on", "warning"], 1),
        (["doctor", "-f", "missing.yaml"], 3),
        (["doctor", "-f", "missing.yaml", "-f", "examples"], 1),
        (["doctor", "-f", "examples", "--rule", "KM2"], 1),
        (["doctor", "-f", "examples", "--rule", "gateway-route-without-subset"], 1),
        (["doctor", "-f", "examples", "--rule", "KM1xx,KM207", "--skip-rule", "km101"], 0),
        (["doctor", "-f", "examples", "-n", "nowhere"], 3),
        (["doctor", "-f", "examples", "-n", "greetings"], 1),
        (["doctor", "-f", "examples", "-n", "nowhere", "-A"], 1),
        (["doctor", "-f", "examples", "--ignore", "*"], 0),
        (["doctor", "--with-cluster"], 2),
        (["doctor", "-R"], 2),
        (["doctor", "--rule", "KM"], 2),
        (["doctor", "--rule", "nothing"], 2),
        (["doctor", "--rule", ","], 2),
        (["doctor", "-f", ""], 2),
        (["doctor", "-f", "examples", "--context", "typo"], 3),
        (["doctor", "-f", "examples", "--mesh-config", ""], 3),
        (["doctor", "-f", "examples", "--mesh-config", "examples/4-nginx-http10.yaml"], 3),
        (["doctor", "-f", "examples", "--rule", "KM105"], 2),
        (["doctor", "-f", "examples", "--rule", "KM101", "--skip-rule", "KM1"], 2),
        (["doctor", "-f", "examples", "--ignore", "KM1"], 2),
        (["doctor", "-f", "examples", "--ignore", "KM101=a/b/c/d"], 2),
        (["doctor", "-f", "examples", "--ignore", "KM777"], 2),
        (["doctor", "-f", "examples", "--ignore", "undefined-subsets"], 2),
        (["doctor", "-f", "examples", "--ignore", "IST9999"], 2),
        (["doctor", "-f", "examples", "--ignore", "KM101=VirtualServce/x"], 2),
        (["doctor", "-f", "examples", "--rule", "IST0140"], 1),
        (["doctor", "-f", "examples", "--rule", "IST9999"], 2),
        (["doctor"], 3),
        (["doctor", "-f", "examples", "--mesh-config", "missing.yaml"], 3),
        (["explain", "KM201"], 0),
        (["explain", "nothing"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
@pytest.mark.parametrize("output", ["table", "json"])
def test_exit_status_is_the_same_for_every_format(
    arguments: list[str], status: int, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-o", output] if arguments[0] == "doctor" else []
    assert main([*arguments, *options]) == status
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert (status in (2, 3) and not captured.out) <= captured.err.startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [[], ["doctor", "--nonsense"], ["doctor", "-o", "xml"], ["doctor", "--request-timeout", "x"]],
    ids=" ".join,
)
def test_a_command_line_that_cannot_be_parsed(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main([command, "--help"])
    assert error.value.code == 0
    assert COMMANDS[command] in " ".join(capsys.readouterr().out.split())


def test_annotations_of_ours_and_of_the_peers_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = km101_undefined_subset.RULE.bad
    for annotation, codes in (
        ("mesh.kubectl.dev/ignore", "KM999, KM101"),
        ("galley.istio.io/analyze-suppress", "IST0101"),
        ("kiali.io/ignore-validations", "KIA1107"),
    ):
        file = tmp_path / "a.yaml"
        name = "kind: VirtualService\nmetadata: {name: reviews"
        assert name in text
        file.write_text(text.replace(name, f'{name}, annotations: {{{annotation}: "{codes}"}}'))
        assert main(["doctor", "-f", str(file), "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["findings"] == []


@pytest.mark.parametrize("code", ["KM101", "km101", "undefined-subset", "IST0101", "kia1107"])
def test_a_finding_is_ignored_by_every_name_of_its_rule(
    tmp_path: Path, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(km101_undefined_subset.RULE.bad)
    assert main(["doctor", "-f", str(file), "--ignore", f"{code}=vs/reviews"]) == 0
    assert main(["doctor", "-f", str(file), "--ignore", f"{code}=vs/other"]) == 1


def test_an_annotation_may_name_codes_that_are_not_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.yaml"
    name = "kind: VirtualService\nmetadata: {name: reviews"
    annotated = f'{name}, annotations: {{galley.istio.io/analyze-suppress: "IST9999, KM777"}}'
    file.write_text(km101_undefined_subset.RULE.bad.replace(name, annotated))
    assert main(["doctor", "-f", str(file)]) == 1


def test_a_rule_that_crashes_is_a_finding_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(snapshot: Snapshot) -> None:
        raise KeyError("oh")

    object.__setattr__(km101_undefined_subset.RULE, "check", crash)
    try:
        assert main(["doctor", "-f", "examples", "-o", "json"]) == 1
        plain = capsys.readouterr()
        assert main(["doctor", "-f", "examples", "-o", "json", "-v"]) == 1
        verbose = capsys.readouterr()
    finally:
        object.__setattr__(km101_undefined_subset.RULE, "check", km101_undefined_subset.check)
    codes = {found["code"] for found in json.loads(plain.out)["findings"]}
    assert codes == {"KM999", "KM201", "KM303", "KM401", "KM501"}
    assert plain.err == ""
    assert "KeyError: 'oh'" in verbose.err


def test_an_interrupt_ends_it_at_once() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "kubectl_mesh", "doctor", "-f", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    with process:
        assert process.stdin is not None
        process.stdin.write(b"apiVersion: v1\n")
        process.stdin.flush()
        try:
            process.wait(2)  # it waits for the rest of its standard input
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [
        (">&-", 1, ""),
        ("2>&-", 1, ""),
        (">/dev/full", 3, "error: the output cannot be written: No space left on device\n"),
        ("| (sleep 0.1; true); exit ${PIPESTATUS[0]}", 1, ""),
    ],
)
def test_streams_that_are_closed_or_full(redirection: str, status: int, said: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m kubectl_mesh doctor -f examples {redirection}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr) == (status, said)
    assert "Traceback" not in done.stdout
