"""What is told about a rule, as Markdown: for docs/rules.md, `explain -o markdown` and SARIF."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS
from kubectl_mesh.rules.rule import Rule


def page(rule: Rule) -> str:
    """The rule's section. Its heading is the code alone, so that the anchor is the code."""
    parts = [
        f"## {rule.code}",
        f"**{rule.summary}**",
        _facts(rule),
        advice(rule),
    ]
    if rule.bad:
        parts += ["### With the fault", _manifest(rule.bad)]
    if rule.good:
        parts += ["### Without it", _manifest(rule.good)]
    return "\n\n".join(parts) + "\n"


def advice(rule: Rule) -> str:
    """Why it matters and how to repair it, with the reference."""
    return "\n\n".join(
        (
            rule.explanation.strip(),
            "### What to do",
            rule.fix.strip(),
            f"See <{rule.reference}>.",
        )
    )


def _facts(rule: Rule) -> str:
    facts = [f"`{rule.name}`", rule.severity.label]
    if rule.equivalents:
        facts.append(f"elsewhere {', '.join(rule.equivalents)}")
    if rule.needs:
        facts.append(f"needs {_kinds(rule.needs)}")
    if rule.uses:
        facts.append(f"uses {_kinds(rule.uses)}")
    return " · ".join(facts)


def _manifest(text: str) -> str:
    return f"```yaml\n{text.strip()}\n```"


def _kinds(kinds: Sequence[str]) -> str:
    """Kinds by name, all that are pods or make them in one word."""
    named = [kind for kind in kinds if kind not in WORKLOAD_KINDS]
    if set(WORKLOAD_KINDS) <= set(kinds):
        return ", ".join((*named, "workloads"))
    return ", ".join(kinds)
