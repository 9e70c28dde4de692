"""`kubectl mesh explain`."""

from __future__ import annotations

import argparse
import json

import pytest
import yaml

from kubectl_mesh.commands import explain
from kubectl_mesh.errors import UsageError
from kubectl_mesh.rules import BY_CODE, RULES
from kubectl_mesh.rules.named import find
from kubectl_mesh.rules.rule import Rule


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    parser = argparse.ArgumentParser()
    explain.configure(parser)
    assert explain.run(parser.parse_args(arguments)) == 0
    output = capsys.readouterr()
    assert not output.err
    return output.out


def test_without_a_code_every_rule_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    header, *lines = run(capsys).splitlines()
    assert header.split() == ["CODE", "NAME", "SEVERITY", "SUMMARY"]
    assert [line.split(maxsplit=3) for line in lines] == [
        [rule.code, rule.name, rule.severity.label, rule.summary] for rule in RULES
    ]


@pytest.mark.parametrize(
    ("text", "start"), [("KM5", "KM5"), ("km4xx", "KM4"), ("KM60", "KM60"), ("KM1", "KM1")]
)
def test_a_code_that_is_cut_short_lists_its_rules(
    capsys: pytest.CaptureFixture[str], text: str, start: str
) -> None:
    _, *lines = run(capsys, text).splitlines()
    codes = [rule.code for rule in RULES if rule.code.startswith(start)]
    assert [line.split()[0] for line in lines] == codes


def test_on_a_terminal_the_summary_is_folded_below_the_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = run(capsys, "--color", "never").splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["KM101", "error", "undefined-subset"]
    assert lines[2].strip().startswith("A route names a subset")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_rule_is_told_in_full(
    rule: Rule, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = run(capsys, rule.code)
    words = " ".join(text.split())
    assert text.startswith(f"{rule.code} {rule.name} ({rule.severity.label})\n")
    assert " ".join(rule.summary.split()) in words
    assert rule.reference in text
    assert all(code in text for code in rule.equivalents)
    for line in (*rule.bad.splitlines(), *rule.good.splitlines()):
        assert line in text
    for told in (rule.explanation, rule.fix):
        for word in told.replace("**", "").split():
            assert word.startswith("```") or word in words
    assert "**" not in text


@pytest.mark.parametrize("text", ["KM101", "km101", "undefined-subset", "IST0101", "kia1107"])
def test_a_rule_is_found_by_any_of_its_names(text: str) -> None:
    assert BY_CODE["KM101"] in find(text)


def test_a_peers_code_gives_every_rule_that_means_the_same() -> None:
    codes = {code for rule in RULES for code in rule.equivalents}
    for code in codes:
        assert find(code) == tuple(rule for rule in RULES if code in rule.equivalents)


@pytest.mark.parametrize(
    ("text", "hint"),
    [("KM1010", "KM101"), ("undefined-subsets", "undefined-subset"), ("IST0101x", "IST0101")],
)
def test_an_unknown_code_names_what_comes_close(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match=rf"no rule is called {text}: did you mean .*{hint}"):
        find(text)


def test_an_unknown_code_that_resembles_none() -> None:
    with pytest.raises(UsageError, match="no rule is called xyzzy: `kubectl mesh explain` lists"):
        find("xyzzy")


def test_json_and_yaml_hold_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(run(capsys, "-o", "json"))
    assert yaml.safe_load(run(capsys, "-o", "yaml")) == document
    assert [item["code"] for item in document["items"]] == [rule.code for rule in RULES]
    assert document["items"][0]["bad"] == RULES[0].bad


def test_markdown_is_the_page_of_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "KM101", "-o", "markdown")
    assert text.startswith("## KM101\n")
    assert f"```yaml\n{BY_CODE['KM101'].bad}```" in text


def test_reflow_keeps_lists_code_and_tables() -> None:
    markdown = """\
A paragraph that
is **filled** to the width.

- one item that is too
  long for a line
- another

```yaml
a:
  - b
```

| a | b |
|---|---|
| 1 | 2 |
"""
    assert explain.reflow(markdown, 20) == (
        "A paragraph that is\nfilled to the width.\n\n"
        "- one item that is\n  too long for a\n  line\n- another\n\n"
        "    a:\n      - b\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |"
    )


@pytest.mark.parametrize(("code", "rule"), [("IST0173", "KM102"), ("ist0174", "KM104")])
def test_newer_codes_of_istioctl_have_their_rule(
    capsys: pytest.CaptureFixture[str], code: str, rule: str
) -> None:
    assert run(capsys, code, "--color", "never").startswith(f"{rule} ")


@pytest.mark.parametrize(
    ("code", "peer"), [("IST0162", "istioctl analyze"), ("KIA9999", "Kiali"), ("kia0301", "Kiali")]
)
def test_a_peers_code_without_a_rule_has_no_equivalent(code: str, peer: str) -> None:
    with pytest.raises(UsageError) as error:
        find(code)
    assert f"{code.upper()} has no equivalent: no rule finds what {peer} reports" in str(
        error.value
    )
    assert "did you mean" not in str(error.value)
