"""What KM401 and KM402 tell the operator, beyond where."""

from __future__ import annotations

from pathlib import Path

from tests.rules.stored import HERE
from tests.rules.test_rules import run

CONFIG = """\
apiVersion: v1
kind: ConfigMap
metadata: {{name: web, namespace: shop}}
data:
  default.conf: |
    {text}
"""


def test_message_names_line_block_target_and_the_other_lines() -> None:
    (finding,) = run(HERE / "KM401" / "bad-default-of-old-nginx.yaml").findings
    assert finding.message.startswith(
        "default.conf line 8 (server 8080, location /api/) proxies to http://api:8080/ in HTTP/1.0"
    )
    assert "nginx 1.25.3" in finding.message
    assert finding.message.endswith("so does line 18")
    assert finding.next.endswith("kubectl -n shop rollout restart deployment/web")


def test_a_version_set_in_a_line_is_changed_in_that_line() -> None:
    (finding,) = run(HERE / "KM401" / "bad-explicit-on-new-nginx.yaml").findings
    assert finding.next.startswith("change line 8 to `proxy_http_version 1.1;`")


def test_the_workload_to_blame_is_the_one_with_the_old_nginx() -> None:
    (finding,) = run(HERE / "KM401" / "bad-two-workloads.yaml").findings
    assert [str(related) for related in finding.related] == ["Deployment shop/web-old"]


def test_the_header_goes_where_those_in_force_stand() -> None:
    (finding,) = run(HERE / "KM402" / "bad-default-header.yaml").findings
    assert 'add `proxy_set_header Connection "";` after line 11 (location)' in finding.next


def test_nginx_text_that_cannot_be_read_is_skipped_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    text = "server {\n      listen 80;\n      location / {\n        proxy_pass http://api;\n      }"
    file.write_text(CONFIG.format(text=text))
    report = run(file)
    assert not report.findings
    (skipped,) = report.skipped
    assert skipped.code == "KM401"
    assert "ConfigMap shop/web data.default.conf line" in skipped.reason
