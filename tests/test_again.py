"""The command that a preview or a report ends with: what was given, and what comes next."""

from __future__ import annotations

import argparse
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest

from kubectl_mesh import cli
from kubectl_mesh.changes.journal import Run as Journaled
from kubectl_mesh.commands.changing import how_to_apply, how_to_undo
from kubectl_mesh.flags import Given
from tests.commands.test_fix import GUIDELINES, ROOT, Run, run

__all__ = ["run"]

CHANGING = ("fix", "merge-vs", "apply", "doctor", "undo")
NOT_GIVEN = ("help", "output", "no_headers", "color", "verbose", "token")
VALUES = {
    "request_timeout": "1m30s",
    "timeout": "0",
    "istio_version": "1.27",
    "wait_for": "delay=250ms",
    "dry_run": "server",
    "fail_on": "warning",
    "remove_subset": "hello/v1",
}


def parsed(line: str) -> argparse.Namespace:
    return cli._parse(shlex.split(line)[2:])


@pytest.mark.parametrize("command", CHANGING)
def test_every_flag_is_given_again(command: str) -> None:
    """Also those that somebody adds later: the parser is asked what there is."""
    parser = parsed(f"kubectl mesh {command}").parser
    for action in parser._actions:
        if action.dest in NOT_GIVEN or action.option_strings == []:
            continue
        flag = action.option_strings[-1]
        value = VALUES.get(action.dest) or (action.choices and [*action.choices][-1]) or "a 'b' $c"
        line = ["kubectl", "mesh", command, flag, *([] if action.nargs == 0 else [value])]
        args = parsed(shlex.join(line))
        told = Given.of(args).again(command)
        assert shlex.split(told)[3] in action.option_strings, told
        repeated = parsed(told)
        assert {**vars(args), "parser": 0} == {**vars(repeated), "parser": 0}, told


def test_nothing_is_given_again_that_was_not_given() -> None:
    for command in CHANGING:
        given = Given.of(parsed(f"kubectl mesh {command}"))
        assert given.again(command) == f"kubectl mesh {command}"


def test_names_values_and_secrets() -> None:
    line = "kubectl mesh fix KM201 KM202=vs/a -f=-x -f 'a b' -o yaml --token hidden -v"
    given = Given.of(parsed(line))
    assert given.again("fix", last="--write") == (
        "kubectl mesh fix KM201 KM202=vs/a -f=-x -f 'a b' --token ... --write"
    )
    assert "hidden" not in repr(given)
    assert parsed(given.again("fix")).filename == ["-x", "a b"]


def test_the_doctor_names_the_repair_and_the_repair_itself(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "my mesh"
    folder.mkdir()
    shutil.copy(ROOT / "examples" / "2-rules-without-effect-on-ingress.yaml", folder)
    given = f"-f '{folder}' -R -n greetings --rule KM2"
    _, out, _ = run("doctor", *shlex.split(given), "--fail-on", "never", "-o", "wide")
    wanted = f"kubectl mesh fix {given}"
    assert out.endswith(f"\nTo preview repairs for this finding: {wanted}\n")
    _, out, _ = run(*shlex.split(wanted)[2:])
    assert out.endswith(f"\n\nTo make these changes: {wanted} --write\n")
    assert run(*shlex.split(wanted)[2:], "--write")[0] == 0
    status, out, _ = run("doctor", *shlex.split(given))
    next_one = "kubectl mesh route http://HOST/PATH"
    assert status == 0
    assert out.endswith(
        f"\nTo see where one request goes: {next_one} -f '{folder}' -R -n greetings\n"
    )


def test_standard_input_has_to_be_piped_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(GUIDELINES.encode())))
    assert run("doctor", "-f", "-")[1].endswith("... | kubectl mesh fix -f - -o yaml\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(GUIDELINES.encode())))
    assert "subset: v1" in run("fix", "-f", "-", "-o", "yaml")[1]


def test_what_is_left_out_comes_before_the_next_command(run: Run, tmp_path: Path) -> None:
    (tmp_path / "it.yaml").write_text(GUIDELINES)
    (tmp_path / "broken.yaml").write_text("apiVersion: v1\nkind: Service\n x: 1\n")
    (tmp_path / "chart").mkdir()
    (tmp_path / "chart" / "Chart.yaml").write_text("apiVersion: v2\nname: x\nversion: 1.0.0\n")
    _, out, _ = run("fix", "-f", str(tmp_path), "-R")
    told = [out.index(words) for words in ("COULD NOT BE EXAMINED", "NOT EXAMINED\n", "To make")]
    assert told == sorted(told)


def test_what_takes_a_choice_is_counted(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
        "spec: {selector: {app: web}, ports: [{name: htpp, port: 80}]}\n"
    )
    _, out, _ = run("doctor", "-f", str(file), "--rule", "KM301")
    assert "for this finding (1 only with a choice or a flag that it names): kubectl" in out


@pytest.mark.parametrize(
    ("example", "said", "last"),
    [
        ("1-subset-not-defined", "To look again after changes by hand", ""),
        (
            "3-rules-without-effect-on-application",
            "To preview what takes --unsafe, too",
            " --unsafe",
        ),
        (
            "5-headless-tcp-and-citadel",
            "To preview what takes --accept-mtls-off, too",
            " --accept-mtls-off",
        ),
    ],
)
def test_a_preview_without_changes_names_what_comes_next(
    run: Run, example: str, said: str, last: str
) -> None:
    file = ROOT / "examples" / f"{example}.yaml"
    _, out, _ = run("fix", "-f", str(file))
    command = "fix" if last else "doctor"
    assert out.endswith(f"\n\n{said}: kubectl mesh {command} -f {file}{last}\n")
    if last:
        _, out, _ = run("fix", "-f", str(file), last.strip())
        assert out.endswith(f"\nTo make these changes: kubectl mesh fix -f {file}{last} --write\n")


@pytest.mark.parametrize("file", ["KM201/bad-header-canary.yaml", "KM301/bad-names.yaml"])
def test_a_choice_is_named_with_its_command(run: Run, file: str) -> None:
    path = ROOT / "tests" / "rules" / file
    _, out, _ = run("fix", file[:5], "-f", str(path), "--unsafe")
    said = re.search(r"^To preview a choice, such as (\S+): (kubectl mesh fix .*)$", out, re.M)
    assert said
    name, line = said.groups()
    _, out, _ = run(*shlex.split(line)[2:])
    made = parsed(out.rpartition("To make these changes: ")[2])
    wanted = parsed(f"{line} --write")
    assert {**vars(made), "parser": 0} == {**vars(wanted), "parser": 0}
    assert (made.choose, made.filename) == ([name], [str(path)])


def test_a_choice_with_a_space_in_its_name_is_quoted(run: Run, tmp_path: Path) -> None:
    text = (ROOT / "tests" / "rules" / "KM201" / "bad-header-canary.yaml").read_text()
    file = tmp_path / "it.yaml"
    file.write_text(text.replace("subset: v2", "subset: v 2").replace("name: v2", "name: v 2"))
    _, out, _ = run("fix", "KM201", "-f", str(file))
    assert "--choose 'v 2' to send to subset v 2" in " ".join(out.split())
    line = out.rpartition("To preview a choice, such as v 2: ")[2]
    assert parsed(line).choose == ["v 2"]
    assert "subset: v 2" in run(*shlex.split(line)[2:])[1]


def test_a_merge_names_the_command_that_makes_it(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(GUIDELINES)
    _, out, _ = run("merge-vs", "-f", str(file))
    line = out.split("  next: ")[1].strip()
    assert line == (
        f"kubectl mesh merge-vs default/helloworld default/myapp --share-routes -f {file}"
    )
    _, out, _ = run(*shlex.split(line)[2:])
    made = line.replace(" --share-routes", "") + " --share-routes --write"
    assert out.endswith(f"\n\nTo make these changes: {made}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor", "--no-headers"),
        ("doctor", "-o", "json"),
        ("doctor", "-o", "sarif"),
        ("doctor", "-o", "junit"),
        ("fix", "--no-headers"),
        ("fix", "-o", "kubectl"),
        ("fix", "-o", "yaml"),
        ("fix", "--write"),
        ("merge-vs", "myapp", "helloworld", "--no-headers"),
    ],
    ids=" ".join,
)
def test_nothing_of_it_for_programs(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(GUIDELINES)
    _, out, err = run(*arguments, "-f", str(file))
    assert "To make these changes" not in out + err
    assert "To preview repairs" not in out + err


def test_no_next_command_where_it_would_be_refused(run: Run, tmp_path: Path) -> None:
    """A merge with differences that are not meant; nothing to repair; nothing examined."""
    file = tmp_path / "it.yaml"
    file.write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: web}\n")
    _, out, _ = run("doctor", "-f", str(file))
    assert "kubectl mesh" not in out
    assert "kubectl mesh" not in run("fix", "-f", str(file))[1]


def test_undo_and_apply_keep_the_cluster() -> None:
    line = (
        "kubectl mesh fix -n shop --context b --journal 'my journal' --apply --dry-run=server --yes"
    )
    given = Given.of(parsed(line))
    made = Journaled("20261129-1", "", "", "", [])
    assert how_to_undo(given, made) == (
        "To undo: kubectl mesh undo 20261129-1 --journal 'my journal' --context b"
    )
    assert how_to_apply(given) == (
        "To apply it: kubectl mesh fix -n shop --apply --yes --journal 'my journal' --context b"
    )
