"""The lines that an nginx configuration gets: where, and what stays as it was."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.repair import Repair
from tests.routing.given import deployment, service, snapshot, thing
from tests.rules.stored import HERE
from tests.rules.test_rules import run

DEPLOYMENT = thing(
    "apps/v1",
    "Deployment",
    "front",
    {
        "template": {
            "metadata": {"labels": {"app": "front", "sidecar.istio.io/inject": "true"}},
            "spec": {
                "containers": [
                    {
                        "name": "nginx",
                        "image": "nginx:1.25.3",
                        "volumeMounts": [{"name": "conf", "mountPath": "/etc/nginx/conf.d"}],
                    }
                ],
                "volumes": [{"name": "conf", "configMap": {"name": "conf"}}],
            },
        }
    },
)
OWN_IMAGE = json.loads(json.dumps(DEPLOYMENT).replace("nginx:1.25.3", "example.com/nginx:1.25.3"))
API = (service("api"), deployment("api", **{"sidecar.istio.io/inject": "true"}))


def repair(
    text: str, code: str = "KM401", reader: dict[str, Any] = OWN_IMAGE, **more: str
) -> Repair | None:
    """What repairs the finding of a rule in a.conf, which an nginx reads; None for no way."""
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "conf", "namespace": "a"},
        "data": {"a.conf": text, **more},
    }
    found = list(BY_CODE[code].check(snapshot(config_map, reader, *API)))
    (finding,) = [each for each in found if hasattr(each, "repairs")]
    return finding.repairs[0] if finding.repairs else None


def repaired(
    text: str, code: str = "KM401", reader: dict[str, Any] = OWN_IMAGE, **more: str
) -> str | None:
    """The text of a.conf once the finding of a rule is repaired; None where there is no way."""
    found = repair(text, code, reader, **more)
    if found is None:
        return None
    (edit,) = found.edits
    assert isinstance(edit.resource, Resource)
    assert edit.path == ("data", "a.conf")
    return str(edit.value)


def server(*lines: str) -> str:
    return "server {\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


VERSION, HEADER = "proxy_http_version 1.1;", 'proxy_set_header Connection "";'
PASS = "proxy_pass http://api;"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            server("location / {", f"  {PASS} # there", "}"),
            server("location / {", f"  {VERSION}", f"  {PASS} # there", "}"),
        ),
        (
            server(f"location / {{ {PASS} }}"),
            server(f"location / {{ {VERSION} {PASS} }}"),
        ),
        (
            server("proxy_set_header Host $host;", f"location / {{ {PASS} }}"),
            server(HEADER, "proxy_set_header Host $host;", f"location / {{ {VERSION} {PASS} }}"),
        ),
        (
            server(
                "proxy_set_header Host $host;",
                "location / {",
                "  proxy_set_header X-A b;",
                f"  {PASS}",
                "}",
            ),
            server(
                "proxy_set_header Host $host;",
                "location / {",
                f"  {HEADER}",
                "  proxy_set_header X-A b;",
                f"  {VERSION}",
                f"  {PASS}",
                "}",
            ),
        ),
        (
            server("proxy_http_version  1.0 ; # old", f"location / {{ {PASS} }}"),
            server(f"{VERSION} # old", f"location / {{ {PASS} }}"),
        ),
        (
            server('proxy_set_header Connection "close";', f"location / {{ {PASS} }}"),
            server(HEADER, f"location / {{ {VERSION} {PASS} }}"),
        ),
        (
            server('proxy_set_header Connection "upgrade";', f"location / {{ {PASS} }}"),
            server('proxy_set_header Connection "upgrade";', f"location / {{ {VERSION} {PASS} }}"),
        ),
        (
            server(
                "# proxy_pass http://old;", f"location /a {{ {PASS} }}", f"location /b {{ {PASS} }}"
            ),
            server(
                "# proxy_pass http://old;",
                f"location /a {{ {VERSION} {PASS} }}",
                f"location /b {{ {VERSION} {PASS} }}",
            ),
        ),
    ],
)
def test_the_lines_stand_where_they_lose_nothing(before: str, after: str) -> None:
    assert repaired(before) == after


def test_with_all_blocks_in_sight_the_header_is_set_too() -> None:
    text = f"events {{}}\nhttp {{\n  server {{\n    location / {{\n      {PASS}\n    }}\n  }}\n}}\n"
    assert repaired(text) == text.replace(PASS, f"{VERSION}\n      {HEADER}\n      {PASS}")


def test_with_nginx_own_main_file_the_header_is_set_too() -> None:
    text = server("location / {", f"  {PASS}", "}")
    found = repair(text, reader=DEPLOYMENT)
    assert found is not None
    assert found.edits[0].value == text.replace(PASS, f"{VERSION}\n    {HEADER}\n    {PASS}")
    assert found.title == (
        "set proxy_http_version 1.1 and clear the Connection header where line 3 of a.conf proxies"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("command", ["nginx", "-c", "/my.conf"]),
        ("args", ["nginx", "-c", "/my.conf"]),
        ("volumeMounts", [{"name": "conf", "mountPath": "/etc/nginx/"}]),
        (
            "volumeMounts",
            [
                {"name": "conf", "mountPath": "/etc/nginx/conf.d"},
                {"name": "secret", "mountPath": "/etc/nginx/nginx.conf", "subPath": "nginx.conf"},
            ],
        ),
    ],
)
def test_another_main_file_may_set_headers(key: str, value: object) -> None:
    reader = copy.deepcopy(DEPLOYMENT)
    reader["spec"]["template"]["spec"]["containers"][0][key] = value
    text = server("location / {", f"  {PASS}", "}")
    assert repaired(text, reader=reader) == text.replace(PASS, f"{VERSION}\n    {PASS}")


def test_it_says_no_more_than_it_does() -> None:
    found = repair(server(f"location / {{ {PASS} }}"))
    assert found is not None
    assert found.title == "set proxy_http_version 1.1 where line 2 of a.conf proxies"
    assert found.affects[0].startswith("nginx goes on to send `Connection: close` where line 2 of")
    found = repair(server('proxy_set_header Connection "upgrade";', f"location / {{ {PASS} }}"))
    assert found is not None
    assert found.title == "set proxy_http_version 1.1 where line 3 of a.conf proxies"
    assert len(found.affects) == 1
    both = server(
        f"location /a {{ {PASS} }}",
        f"location /b {{ proxy_set_header A b; {PASS.replace('api', 'API')} }}",
    )
    found = repair(both)
    assert found is not None
    assert found.title == (
        "set proxy_http_version 1.1 where each of lines 2, 3 proxies, and clear the Connection "
        "header where line 3 of a.conf does"
    )


def test_keepalive_gets_its_header_where_it_may_hide_others_only_if_asked() -> None:
    text = "upstream u { server api:80; keepalive 8; }\n" + server(
        VERSION, "location / { proxy_pass http://u; }"
    )
    cured = text.replace("proxy_pass", f"{HEADER} proxy_pass")
    for reader, flag in ((OWN_IMAGE, True), (DEPLOYMENT, False)):
        found = repair(text, "KM402", reader)
        assert found is not None
        assert (found.edits[0].value, bool(found.unsafe)) == (cured, flag)
        assert found.title == "clear the Connection header where line 4 of a.conf proxies"


def test_keepalive_gets_its_header() -> None:
    text = "upstream u { server api:80; keepalive 8; }\n" + server(
        VERSION, "proxy_set_header Host $host;", "location / { proxy_pass http://u; }"
    )
    assert repaired(text, "KM402") == text.replace(
        "  proxy_set_header Host", f"  {HEADER}\n  proxy_set_header Host"
    )


@pytest.mark.parametrize(
    "text",
    [
        server(f"location / {{ if ($a) {{ {PASS} }} }}"),
        server("proxy_http_version $version;", f"location / {{ {PASS} }}"),
        server(f"location / {{ {PASS} }} location /b {{ {PASS} }}"),
        server('location / { proxy_pass\n"http://api"; }'),
    ],
)
def test_where_it_is_not_clear_it_is_left_to_people(text: str) -> None:
    assert repaired(text) is None, json.dumps(repaired(text))


def test_of_several_connection_headers_none_is_chosen() -> None:
    two = ('proxy_set_header Connection "close";', 'proxy_set_header connection "upgrade";')
    assert repaired(server("location / {", *two, PASS, "}")) is None
    assert repaired(server("location / {", two[0], PASS, "}")) is not None


def test_all_that_read_a_file_are_to_be_restarted() -> None:
    found = run(HERE / "KM401" / "bad-two-workloads.yaml").findings
    commands = "kubectl -n shop rollout restart deployment/web and kubectl -n shop rollout restart"
    for finding in found:
        assert commands in finding.next
        assert (
            finding.repairs[0]
            .affects[0]
            .startswith(f"nginx reads it once it is restarted: {commands}")
        )
    assert found
