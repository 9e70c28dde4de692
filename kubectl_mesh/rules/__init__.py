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
    km201_gateway_route_without_subset,
    km202_gateway_route_without_policy,
    km203_mesh_route_without_subset,
    km204_match_gateway_not_in_spec,
    km205_unknown_gateway,
    km206_host_not_admitted_by_gateway,
    km207_match_gateways_disable_source,
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
        km201_gateway_route_without_subset,
        km202_gateway_route_without_policy,
        km203_mesh_route_without_subset,
        km204_match_gateway_not_in_spec,
        km205_unknown_gateway,
        km206_host_not_admitted_by_gateway,
        km207_match_gateways_disable_source,
        km900_unreadable_input,
        km901_wrong_type,
        km902_duplicate_manifest,
        km999_rule_crashed,
    )
)

BY_CODE: Mapping[str, Rule] = {rule.code: rule for rule in RULES}
