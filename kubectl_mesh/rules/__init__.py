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
    km301_port_without_protocol,
    km302_port_name_and_app_protocol_disagree,
    km303_http_rules_on_tcp_port,
    km304_conflicting_protocols,
    km305_pod_in_no_service,
    km306_missing_subset_label,
    km307_target_port_not_served,
    km308_proxy_uid,
    km309_host_network,
    km310_sidecar_missing,
    km311_service_selects_nothing,
    km312_destination_port_needed,
    km313_unknown_destination_port,
    km401_nginx_http10_upstream,
    km402_nginx_keepalive_without_connection_header,
    km501_citadel_restarts_envoys,
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
        km301_port_without_protocol,
        km302_port_name_and_app_protocol_disagree,
        km303_http_rules_on_tcp_port,
        km304_conflicting_protocols,
        km305_pod_in_no_service,
        km306_missing_subset_label,
        km307_target_port_not_served,
        km308_proxy_uid,
        km309_host_network,
        km310_sidecar_missing,
        km311_service_selects_nothing,
        km312_destination_port_needed,
        km313_unknown_destination_port,
        km401_nginx_http10_upstream,
        km402_nginx_keepalive_without_connection_header,
        km501_citadel_restarts_envoys,
        km900_unreadable_input,
        km901_wrong_type,
        km902_duplicate_manifest,
        km999_rule_crashed,
    )
)

BY_CODE: Mapping[str, Rule] = {rule.code: rule for rule in RULES}
