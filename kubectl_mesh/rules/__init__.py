"""Every rule, in order of code. A new rule is added here, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

from kubectl_mesh.rules import (
    km101_undefined_subset,
    km102_subset_without_pods,
    km103_unknown_host,
    km104_destination_rule_without_host,
    km105_subset_added_and_used_at_once,
    km106_subset_removed_while_used,
    km900_unreadable_input,
    km901_wrong_type,
    km902_duplicate_manifest,
    km999_rule_crashed,
)
from kubectl_mesh.rules.rule import Rule

RULES: tuple[Rule, ...] = tuple(
    module.RULE
    for module in (
        km101_undefined_subset,
        km102_subset_without_pods,
        km103_unknown_host,
        km104_destination_rule_without_host,
        km105_subset_added_and_used_at_once,
        km106_subset_removed_while_used,
        km900_unreadable_input,
        km901_wrong_type,
        km902_duplicate_manifest,
        km999_rule_crashed,
    )
)

BY_CODE: Mapping[str, Rule] = {rule.code: rule for rule in RULES}
