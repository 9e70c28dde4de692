"""`kubectl mesh route`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from kubectl_mesh.cli import main
from tests.kube.fake import FakeApiServer

EXAMPLE = "examples/2-rules-without-effect-on-ingress.yaml"
FIELDS = {
    "virtualService",
    "rule",
    "match",
    "status",
    "destinations",
    "directResponse",
    "redirect",
}
MESH = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: a}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: a}
spec:
  hosts: [web]
  http:
  - name: old
    match: [{uri: {exact: /old}}]
    redirect: {uri: /new, redirectCode: 302}
  - match: [{headers: {user: {exact: jason}}}, {method: {exact: PUT}}]
    directResponse: {status: 418, body: {string: "tea\\e[31m"}}
  - name: main
    match: [{uri: {prefix: /api}}]
    route:
    - destination: {host: web, subset: gone}
    rewrite: {uri: /v1}
    timeout: 2s
    retries: {attempts: 3}
    headers: {request: {set: {x: "1"}}}
    mirror: {host: copy}
    fault: {delay: {fixedDelay: 5s, percentage: {value: 10}}}
  - name: odd
    match: [{uri: {regex: "(?=/x).*"}}]
    route: [{destination: {host: web}}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: a, labels: {app: client}}
spec: {containers: [{name: app}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: caller, namespace: b}
spec: {template: {metadata: {labels: {app: caller}}, spec: {containers: [{name: istio-proxy}]}}}
"""


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", os.devnull)
    monkeypatch.chdir(Path(__file__).parents[2])


@pytest.fixture
def mesh(tmp_path: Path) -> str:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH)
    return str(file)


class Run:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        status = main(["route", *arguments])
        captured = self._capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out, captured.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


def document(run: Run, *arguments: str) -> dict[str, Any]:
    status, out, err = run(*arguments, "-o", "json")
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


# One request


def test_the_answer_comes_first_then_the_way_to_it(run: Run) -> None:
    status, out, err = run("http://myapp.com/hello", "--gateway", "myapp-gateway", "-f", EXAMPLE)
    assert (status, err) == (0, "")
    request, source, _, answer, *_ = out.splitlines()
    assert request == "GET http://myapp.com/hello"
    assert source.startswith("from Gateway greetings/myapp-gateway (pods of istio-system")
    assert answer == "Goes to helloworld.greetings.svc.cluster.local port 5000."
    steps = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    assert "port 80 of Gateway greetings/myapp-gateway (HTTP)" in steps["listener"]
    assert "VirtualService greetings/myapp spec.http[0].match[0]" in steps["rule"]
    assert "path prefix '/hello'" in steps["match"]
    assert f"{EXAMPLE}:70:7" in steps["at"]
    assert "DestinationRule greetings/helloworld" in steps["policy"]
    assert "Deployment greetings/helloworld-v1" in steps["endpoints"]


def test_a_rule_tried_in_vain_is_told_with_the_reason(run: Run) -> None:
    _, out, _ = run("http://myapp.com/x", "--gateway", "greetings/myapp-gateway", "-f", EXAMPLE)
    assert "404 (NR): no rule of VirtualService greetings/myapp matches the request." in out
    assert "http[0].match[0]: the path does not begin with" in " ".join(out.split())


def test_what_else_happens_to_a_request_is_told(run: Run, mesh: str) -> None:
    _, out, _ = run("http://web/api/x?q=1", "--from-namespace", "a", "-f", mesh)
    words = " ".join(out.split())
    assert "503 (NC): subset gone is not defined" in words
    for told in (
        "rewrite the path becomes /v1/x?q=1",
        "timeout 2s",
        "retries attempts: 3",
        "headers request: set x: 1",
        "fault delayed by 5s, 10% of requests",
    ):
        assert told in words
    assert "copied" not in words  # Envoy copies what it has found somebody to send to


def test_a_copy_that_nobody_gets_is_told(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    with_pods = MESH.replace("labels: {app: client}", "labels: {app: web}")
    file.write_text(with_pods.replace("host: web, subset: gone", "host: web"))
    _, out, _ = run("http://web/api/x", "--from-namespace", "a", "-f", str(file))
    told = "mirror 100% copied to copy.a.svc.cluster.local port 80, in vain"
    assert told in " ".join(out.split())


def test_a_preflight_is_answered(run: Run, mesh: str, tmp_path: Path) -> None:
    file = tmp_path / "cors.yaml"
    cors = "corsPolicy: {allowOrigins: [{exact: http://one.example}]}"
    file.write_text(MESH.replace("    timeout: 2s", f"    {cors}\n    timeout: 2s"))
    headers = ["-H", "Origin: http://one.example", "-H", "Access-Control-Request-Method: PUT"]
    _, out, _ = run(
        *("http://web/api/x", "-X", "OPTIONS", *headers),
        *("--from-namespace", "a", "-f", str(file)),
    )
    words = " ".join(out.split())
    assert " 200: the rule's corsPolicy answers preflight requests. " in words
    assert "timeout" not in words


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["http://web/old?x=1"], "302, location http://web/new?x=1"),
        (["http://web/", "-X", "PUT"], "418: the proxy answers by itself."),
        (["http://web/", "-H", "User: jason"], r"body 'tea\x1b[31m'"),
        (["http://web/x"], "Not decided: VirtualService a/web spec.http[3].match[0] (odd) may"),
        (["http://1.2.3.4/old", "-H", "Host: web"], "302, location http://web/new"),
        (["http://web:81/"], "Passed through: Service a/web has no port 81: it has 80 (http)"),
        (["http://nowhere.example.com/"], "Passed through: the sidecar knows no such host"),
    ],
)
def test_other_answers(run: Run, mesh: str, arguments: list[str], told: str) -> None:
    status, out, _ = run(*arguments, "--from", "a/client", "-f", mesh)
    assert status == (3 if told.startswith("Not decided") else 0)
    assert told in " ".join(out.split())
    assert "\x1b" not in out


TLS = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: a}
spec:
  hosts: ["*.example.com"]
  ports: [{number: 443, name: tls, protocol: TLS}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: outside, namespace: a}
spec:
  hosts: [one.example.com, two.example.com]
  tls:
  - match:
    - sniHosts: [one.example.com]
    route: [{destination: {host: web, subset: gone}}]
"""


def test_a_connection_is_told_as_a_request_is(run: Run, mesh: str, tmp_path: Path) -> None:
    file = tmp_path / "tls.yaml"
    file.write_text(TLS)
    status, out, _ = run("tls://one.example.com:443", "-n", "a", "-f", mesh, "-f", str(file))
    words = " ".join(out.split())
    assert status == 0
    assert words.startswith("tls://one.example.com:443 from pods of namespace a Closed (NC): ")
    for told in (
        "rule VirtualService a/outside spec.tls[0].match[0]",
        "match server name one.example.com",
        f"at {file}:15:7",
        "cluster outbound|80|gone|web.a.svc.cluster.local",
        "endpoints none (NC): subset gone is not defined",
    ):
        assert told in words
    found = document(run, "tls://one.example.com:443", "-n", "a", "-f", mesh, "-f", str(file))
    assert found["request"]["serverName"] == "one.example.com"
    assert (found["protocol"], found["virtualService"]) == ("tls", "a/outside")
    assert (found["rule"], found["match"], found["outcome"]) == (0, 0, "no-cluster")


def test_a_connection_that_depends_on_an_unknown_address(
    run: Run, mesh: str, tmp_path: Path
) -> None:
    file = tmp_path / "tls.yaml"
    match = "{sniHosts: [one.example.com], destinationSubnets: [192.0.2.0/24]}"
    file.write_text(
        TLS.replace("sniHosts: [one.example.com]", match[1:-1].replace(", d", "\n      d"))
    )
    status, out, _ = run("tls://one.example.com:443", "-n", "a", "-f", mesh, "-f", str(file))
    assert status == 3
    assert "Not decided: the address of the host is not known" in " ".join(out.split())
    status, out, _ = run("tls://two.example.com:443", "-n", "a", "-f", mesh, "-f", str(file))
    assert (status, "Passed through" in out) == (0, True)


def test_connections_among_many_requests(run: Run, mesh: str, tmp_path: Path) -> None:
    file = tmp_path / "tls.yaml"
    file.write_text(TLS)
    expect = {"virtualService": "a/outside", "protocol": "tls", "flag": "NC"}
    requests = requests_file(
        tmp_path,
        asking("tls://x:443", serverName="one.example.com", expect=expect),
        asking("https://one.example.com/path", expect=expect),
        asking("tcp://web.a:80", expect={"outcome": "passthrough"}),
    )
    status, _, err = run("--requests", requests, "-n", "a", "-f", mesh, "-f", str(file))
    assert (status, err) == (0, "")


def test_a_delegates_rule_without_match_is_named_as_it_is_written(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(
        """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root, namespace: a}
spec:
  hosts: [x.com]
  http: [{match: [{uri: {prefix: /}, method: {exact: GET}}], delegate: {name: inner}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inner, namespace: a}
spec:
  http: [{directResponse: {status: 200}}]
"""
    )
    _, out, _ = run("http://x.com/", "-n", "a", "-f", str(file))
    words = " ".join(out.split())
    assert "VirtualService a/inner spec.http[0], delegated by VirtualService a/root" in words
    found = document(run, "http://x.com/", "-n", "a", "-f", str(file))
    assert (found["virtualService"], found["delegate"]) == ("a/root", "a/inner")


def test_json_and_yaml_hold_the_same(run: Run, mesh: str) -> None:
    arguments = ("http://web/api", "--from", "pod/client", "-n", "a", "-f", mesh)
    found = document(run, *arguments)
    _, out, _ = run(*arguments, "-o", "yaml")
    assert yaml.safe_load(out) == found
    assert found["kind"] == "Route"
    assert set(found) >= FIELDS
    assert found["virtualService"] == "a/web"
    assert (found["rule"], found["match"], found["status"]) == ("main", 0, 503)
    assert found["destinations"] == [
        {
            "host": "web.a.svc.cluster.local",
            "port": 80,
            "subset": "gone",
            "weight": 100,
            "cluster": "outbound|80|gone|web.a.svc.cluster.local",
            "flag": "NC",
        }
    ]
    assert found["rewrite"] == {"path": "/v1", "authority": None}
    assert [tried["rule"] for tried in found["tried"]] == ["old", 1, 1]
    assert found["virtualHost"] == "web"


def test_without_a_source_a_sidecar_of_the_namespace_unless_a_gateway_serves_the_host(
    run: Run, mesh: str
) -> None:
    assert document(run, "http://web/old", "-n", "a", "-f", mesh)["from"]["namespace"] == "a"
    status, out, err = run("http://myapp.com/hello", "-f", EXAMPLE)
    assert (status, out) == (2, "")
    assert "--gateway greetings/myapp-gateway" in err


@pytest.mark.parametrize(
    ("flags", "labels", "namespace"),
    [
        (["--from", "client", "-n", "a"], {"app": "client"}, "a"),
        (["--from", "a/client"], {"app": "client"}, "a"),
        (["--from", "deploy/caller", "-n", "b"], {"app": "caller"}, "b"),
        (["--from", "b/deployments/caller"], {"app": "caller"}, "b"),
        (["--from", "b/caller"], {"app": "caller"}, "b"),
        (["--from-labels", "x=y,z=", "-n", "c"], {"x": "y", "z": ""}, "c"),
        (["--from-namespace", "c"], {}, "c"),
    ],
)
def test_sources(
    run: Run, mesh: str, flags: list[str], labels: dict[str, str], namespace: str
) -> None:
    found = document(run, "http://web.a/old", *flags, "-f", mesh)["from"]
    assert (found["kind"], found["labels"], found["namespace"]) == ("sidecar", labels, namespace)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name one URL"),
        (["http://web/", "--requests", "x"], "name one URL"),
        (["web"], "no URL of http or https"),
        (["http://"], "no URL of http or https"),
        (["http://web:x/"], "no URL"),
        (["http://web/", "-H", "nothing"], "no header"),
        (["http://web/", "--from-labels", "nothing"], "no label"),
        (["http://web/", "--from", "a/b/c/d"], "names no pod"),
        (["http://web/", "--from", "a/nobody"], "no pod nobody in namespace a"),
        (["http://web/", "--from", "deploy/client", "-n", "a"], "no Deployment client"),
        (["http://web/", "--gateway", "nothing"], "no Gateway nothing in namespace default"),
        (["http://web/", "--gateway", "a/b", "--from", "c"], "contradict"),
        (["http://web/", "-o", "junit"], "--requests"),
        (["tcp://web"], "write tcp://HOST:PORT or tls://HOST:PORT"),
        (["tcp://web:80", "-X", "PUT"], "a connection has no method"),
        (["http://web/", "--server-name", "a.com"], "a server name is for https and tls"),
        (["tcp://web:80", "--server-name", "a.com"], "not for tcp"),
        (["--requests", "x", "-X", "PUT"], "stand in the file"),
        (["--requests", "-", "-f", "-"], "standard input"),
    ],
)
def test_command_lines_that_cannot_be_answered(
    run: Run, mesh: str, arguments: list[str], said: str
) -> None:
    status, out, err = run(*arguments, "-f", mesh)
    assert (status, out) == (2, "")
    assert said in err


def test_input_that_cannot_be_read_is_named_and_the_answer_still_given(run: Run, mesh: str) -> None:
    status, out, _ = run("http://web/old", "-n", "a", "-f", mesh, "-f", "missing.yaml")
    assert status == 3
    assert "302" in out
    assert "NOT KNOWN\n  missing.yaml: No such file or directory" in out


# Many requests


def requests_file(tmp_path: Path, *lines: str) -> str:
    file = tmp_path / "requests.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines))
    return str(file)


def asking(url: str, **fields: Any) -> str:
    given = {"from": "mesh", "sourceNamespace": "a", "url": url, **fields}
    return json.dumps({key: value for key, value in given.items() if value is not None})


def test_many_requests_are_answered_in_order(run: Run, mesh: str, tmp_path: Path) -> None:
    file = requests_file(
        tmp_path,
        asking("http://web/old"),
        "",
        asking("http://web/", headers={"user": "jason"}),
        asking("http://web/", method="PUT"),
        asking("http://web/nothing"),
        asking("http://web/x"),
    )
    status, out, err = run("--requests", file, "-f", mesh)
    assert (status, err) == (0, "")
    answers = [json.loads(line) for line in out.splitlines()]
    assert all(set(found) >= FIELDS for found in answers)
    assert [(found["rule"], found["match"]) for found in answers] == [
        ("old", 0), (1, 0), (1, 1), ("odd", 0), ("odd", 0),
    ]  # fmt: skip
    assert answers[0]["redirect"] == {"status": 302, "location": "http://web/new"}
    assert answers[1]["directResponse"] == {"status": 418, "body": "tea\x1b[31m"}
    assert [found["status"] for found in answers] == [302, 418, 418, None, None]
    assert "beyond what is compared" in answers[3]["undecided"]


def test_a_gateway_may_be_named_in_the_line_or_by_the_flags(run: Run, tmp_path: Path) -> None:
    named = {"from": "gateway/greetings/myapp-gateway", "sourceNamespace": None}
    file = requests_file(
        tmp_path,
        asking("http://myapp.com/hello", **named),
        json.dumps({"url": "http://myapp.com/hello"}),
        asking("http://helloworld.greetings:5000/"),
    )
    status, out, _ = run("--requests", file, "--gateway", "myapp-gateway", "-f", EXAMPLE)
    assert status == 0
    found = [json.loads(line)["virtualService"] for line in out.splitlines()]
    assert found == ["greetings/myapp", "greetings/myapp", "greetings/helloworld"]


EXPECTED = (
    ({"virtualService": "a/web", "rule": "old", "redirect": {"status": 302}}, None),
    ({"rule": "older"}, 'rule is "old", expected "older"'),
    ({"status": 404}, "status is 302, expected 404"),
    ({"redirect": {"location": "x"}}, 'redirect.location is "http://web/new", expected "x"'),
    ({"destinations": [{"host": "x"}]}, 'destinations is [], expected [{"host": "x"}]'),
    ({"redirect": {"host": "x"}}, "redirect.host is not there"),
    ({"match": False}, "match is 0, expected false"),
)


@pytest.mark.parametrize(("expect", "failure"), EXPECTED)
@pytest.mark.parametrize("output", ["text", "json", "yaml", "junit"])
def test_what_is_expected_holds_or_not(
    run: Run, mesh: str, tmp_path: Path, expect: dict[str, Any], failure: str | None, output: str
) -> None:
    file = requests_file(tmp_path, asking("http://web/old", expect=expect, name="a case"))
    status, out, err = run("--requests", file, "-f", mesh, "-o", output)
    assert status == (1 if failure else 0)
    assert out
    if failure:
        assert f"{file}:1: a case: {failure}" in err
    else:
        assert err == ""


def test_an_undecided_request_meets_no_expectation(run: Run, mesh: str, tmp_path: Path) -> None:
    file = requests_file(tmp_path, asking("http://web/x", expect={"virtualService": "a/web"}))
    status, _, err = run("--requests", file, "-f", mesh)
    assert status == 1
    assert "not decided: the regular expression" in err


@pytest.mark.parametrize(
    ("line", "column", "said"),
    [
        ("{", 2, "no JSON"),
        ("[]", 1, "must be an object"),
        ("[" * 100_000, 1, "no JSON"),
        ('{"url": 1}', 2, "url must be a string"),
        ('{"method": "GET"}', 1, "url is missing"),
        ('{"url": "http://h/", "hosts": []}', 22, "unknown field 'hosts'"),
        ('{"url": "ftp://h/"}', 2, "no URL of http or https"),
        ('{"url": "http://h/", "method": "a b"}', 22, "is no method"),
        ('{"url": "http://h/", "headers": {"a": 1}}', 22, "the value of 'a' must be a string"),
        ('{"url": "http://h/", "from": "here"}', 22, "from must be mesh or gateway/"),
        ('{"url": "http://h/", "from": "gateway/a/b", "sourceNamespace": "a"}', 22, "are for"),
        ('{"url": "tcp://h", "name": "x"}', 2, "write tcp://HOST:PORT"),
        ('{"url": "tcp://h:1", "method": "GET"}', 22, "a connection has no method"),
        ('{"url": "http://h/", "serverName": "a"}', 22, "a server name is for https and tls"),
        ('{"url": "http://h/", "expect": {"host": 1}}', 33, "no answer has a field 'host'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_line_that_is_no_request_is_named_and_the_others_answered(
    run: Run, mesh: str, tmp_path: Path, line: str, column: int, said: str
) -> None:
    file = requests_file(tmp_path, asking("http://web/old"), line, asking("http://web/old"))
    status, out, err = run("--requests", file, "-f", mesh)
    assert status == 3
    assert err.startswith(f"error: {file}:2:{column}: ")
    assert said in err
    first, bad, last = map(json.loads, out.splitlines())
    assert first == last
    assert bad["error"].startswith(f"{file}:2:{column}: ")


def test_junit_has_a_case_for_every_request(run: Run, mesh: str, tmp_path: Path) -> None:
    file = requests_file(
        tmp_path,
        asking("http://web/old", expect={"status": 302}, name="good"),
        asking("http://web/old", expect={"status": 404}, name="bad \x1b[31m"),
        asking("http://web/old"),
        "{",
        asking("http://web/old", **{"from": "gateway/no/gateway", "sourceNamespace": None}),
    )
    status, out, _ = run("--requests", file, "-f", mesh, "-o", "junit")
    assert status == 1
    assert "\x1b" not in out
    root = ElementTree.fromstring(out)
    assert {key: root.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5", "failures": "1", "errors": "2", "skipped": "1",
    }  # fmt: skip
    kinds = [[child.tag for child in case] for case in root.iter("testcase")]
    assert kinds == [[], ["failure"], ["skipped"], ["error"], ["error"]]
    assert [case.get("line") for case in root.iter("testcase")] == ["1", "2", "3", "4", "5"]


def test_a_file_of_requests_that_is_missing(run: Run, mesh: str) -> None:
    status, out, err = run("--requests", "missing.jsonl", "-f", mesh)
    assert (status, out) == (3, "")
    assert err == "error: missing.jsonl: No such file or directory\n"


# A cluster


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    with FakeApiServer(
        {key: value for key, value in item.items() if key != "apiVersion"}
        for item in yaml.safe_load_all(LIVE)
    ) as fake:
        monkeypatch.setenv("KUBECONFIG", fake.kubeconfig(tmp_path, token="t"))
        yield fake


LIVE = """\
{kind: Namespace, metadata: {name: a}}
---
{kind: Namespace, metadata: {name: b}}
---
{kind: Namespace, metadata: {name: edge}}
---
{kind: Namespace, metadata: {name: istio-system}}
---
kind: Service
metadata: {name: web, namespace: b}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
kind: Pod
metadata: {name: web-1, namespace: b, labels: {app: web}}
spec: {containers: [{name: app}]}
status: {phase: Running, conditions: [{type: Ready, status: "True"}]}
---
kind: Pod
metadata: {name: web-2, namespace: b, labels: {app: web}}
spec: {containers: [{name: app}]}
status: {phase: Running, conditions: [{type: Ready, status: "False"}]}
---
kind: Pod
metadata: {name: client, namespace: a, labels: {app: client}}
spec: {containers: [{name: app}]}
status: {phase: Running}
---
kind: Deployment
metadata: {name: web, namespace: b}
spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: app}]}}}
---
kind: VirtualService
metadata: {name: out, namespace: elsewhere}
spec: {hosts: [out.example.com], http: [{directResponse: {status: 204}}]}
---
kind: VirtualService
metadata: {name: shop, namespace: b}
spec: {hosts: [shop.com], gateways: [edge/gw], http: [{route: [{destination: {host: web}}]}]}
---
kind: Gateway
metadata: {name: gw, namespace: edge}
spec:
  selector: {istio: in}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.com]}]
---
kind: Pod
metadata: {name: in-1, namespace: ingress, labels: {istio: in}}
spec: {containers: [{name: istio-proxy}]}
"""


def test_a_cluster_tells_which_pods_are_ready(run: Run, live: FakeApiServer) -> None:
    status, out, err = run("http://web.b/", "--from", "a/client")
    words = " ".join(out.split())
    assert (status, err) == (0, "")
    assert "1 of 2 ready: Pod b/web-1 (ready), Pod b/web-2 (not ready)" in words
    assert "Pod a/client has no sidecar" in words
    istiod = {"labelSelector": "app in (istiod,pilot)"}
    for plural in ("deployments", "configmaps", "secrets", "replicasets", "workloadentries"):
        asked = [
            {key: value for key, value in each.query.items() if key.endswith("Selector")}
            for each in live.asked(plural)
        ]
        assert asked in ([], [{"fieldSelector": "metadata.name=istio"}], [istiod])


def test_rules_for_the_host_count_wherever_in_the_cluster_they_are(
    run: Run, live: FakeApiServer
) -> None:
    found = document(run, "http://out.example.com/", "--from-namespace", "a")
    assert (found["virtualService"], found["status"]) == ("elsewhere/out", 204)


def test_a_gateway_of_a_cluster_is_its_pods(run: Run, live: FakeApiServer) -> None:
    found = document(run, "http://shop.com/", "--gateway", "edge/gw")
    assert found["from"]["namespace"] == "ingress"
    assert found["destinations"][0]["host"] == "web.b.svc.cluster.local"
    assert found["notes"] == []
    status, _, err = run("http://shop.com/", "-n", "edge")
    assert status == 2
    assert "--gateway edge/gw" in err


def test_the_pods_of_a_deployment_of_a_cluster(run: Run, live: FakeApiServer) -> None:
    found = document(run, "http://web/", "--from", "b/deploy/web")
    assert found["from"]["labels"] == {"app": "web"}
    kinds = {each["kind"] for each in found["endpoints"][0]["workloads"]}
    assert kinds == {"Pod"}


def test_what_may_not_be_listed_is_told_with_the_answer(run: Run, live: FakeApiServer) -> None:
    live.forbidden |= {("destinationrules", name) for name in ("", "a", "b", "istio-system")}
    status, out, _ = run("http://web.b/", "--from-namespace", "a")
    words = " ".join(out.split())
    assert status == 3
    assert "Goes to web.b.svc.cluster.local port 80." in words
    assert "NOT KNOWN" in words
    assert "cannot list destinationrules" in words


def test_what_cannot_be_decided_is_no_answer(run: Run, tmp_path: Path) -> None:
    manifest = tmp_path / "claims.yaml"
    manifest.write_text("""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: claims}
spec:
  hosts: [claims.example.com]
  http:
  - match: [{uri: {regex: "["}}]
    directResponse: {status: 200}
""")
    url = "http://claims.example.com/"
    status, out, _ = run(url, "--from-namespace", "default", "-f", str(manifest))
    assert status == 3
    assert "Not decided" in out


ABSOLUTE = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
"""


@pytest.mark.parametrize(
    ("more", "noted"),
    [
        ([], "Istio 1.26 treats this otherwise: 1.31 was assumed (--istio-version 1.26 shows it)"),
        (["--istio-version", "1.29"], ""),
        (["--istio-version", "1.26"], ""),
    ],
)
def test_a_release_that_was_assumed_is_named_where_it_matters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], noted: str
) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(ABSOLUTE)
    outcomes = []
    for host in ("web.shop.svc.cluster.local", "web.shop.svc.cluster.local."):
        main(["route", f"http://{host}/", "-f", str(file), "-n", "shop", "-o", "json", *more])
        found = json.loads(capsys.readouterr().out)
        outcomes.append((found["outcome"] == "passthrough", " ".join(found["notes"])))
    is_unknown = more[1:] == ["1.26"]
    assert outcomes == [(False, ""), (is_unknown, noted)]


def test_a_full_stop_at_the_end_is_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "it.yaml"
    dotted = "web.shop.svc.cluster.local."
    rule = (
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        "metadata: {name: other, namespace: shop}\n"
        f"spec: {{hosts: [other.com], http: [{{route: [{{destination: {{host: {dotted}}}}}]}}]}}\n"
    )
    file.write_text(ABSOLUTE + rule)
    flags = ["-f", str(file), "-n", "shop"]
    main(["route", f"http://{dotted}/", *flags, "--istio-version", "1.26"])
    out = " ".join(capsys.readouterr().out.split())
    assert "before Istio 1.27, sidecars know no host with a full stop at its end" in out
    assert "Sidecar resource" not in out
    main(["route", "http://other.com/", *flags])
    out = " ".join(capsys.readouterr().out.split())
    assert "503 (NC): no host of the registry ends with a full stop: leave it out" in out
