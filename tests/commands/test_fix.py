"""`kubectl mesh fix` on manifests."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_mesh.changes.patch import patched
from kubectl_mesh.cli import main
from tests.rules.stored import EVERYTHING, MANIFESTS, ways

ROOT = Path(__file__).parents[2]
OUTLIVING = ("bad-replica-set-of-deployment",)
"""What the repair of a template does not change: the pods that there are until a rollout."""
ASSUMING = ("bad-two-virtual-services-alone",)
"""Repaired by a subset whose DestinationRule is not in the input, which KM101 tells."""
EXAMPLE = "2-rules-without-effect-on-ingress.yaml"
BAD = [file for file in MANIFESTS if file.stem.startswith("bad")]


class Run:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        status = main([*arguments])
        return (status, *self._capsys.readouterr())

    def findings(self, file: Path) -> list[dict[str, Any]]:
        _, out, _ = self("doctor", "-f", str(file), "-o", "json")
        found: list[dict[str, Any]] = json.loads(out)["findings"]
        return found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "examples" / EXAMPLE, tmp_path))


def test_a_preview_touches_nothing_and_ends_with_the_proof(run: Run, example: Path) -> None:
    before = example.read_bytes()
    status, out, err = run("fix", "-f", str(example), "--color", "never")
    assert (status, err, example.read_bytes()) == (1, "", before)
    assert f"--- a{example}\n+++ b{example}\n@@ -69,7 +69,7 @@\n" in out
    assert (
        "\n+    - destination: {host: helloworld.greetings.svc.cluster.local, subset: v1}\n" in out
    )
    assert "TO BE REPAIRED\n  KM201 VirtualService greetings/myapp: send to subset v1" in out
    assert out.endswith(
        f"differs (1 class)\n\nTo make these changes: kubectl mesh fix -f {example} --write\n"
    )


def test_written_once_there_is_nothing_left_to_do(run: Run, example: Path) -> None:
    status, out, _ = run("fix", "-f", str(example), "--write")
    assert (status, "REPAIRED\n" in out) == (0, True)
    assert run.findings(example) == []
    before = example.read_bytes()
    status, out, _ = run("fix", "-f", str(example), "--write")
    assert (status, out, example.read_bytes()) == (0, "Nothing to repair.\n", before)


def identities(findings: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    return {(each["code"], *map(str, each["resource"].values())) for each in findings}


@pytest.mark.parametrize(
    "file",
    [file for file in BAD if ways(file) and file.stem not in OUTLIVING],
    ids=lambda file: f"{file.parent.name}-{file.stem}",
)
def test_what_is_repaired_is_gone_and_nothing_new_is_found(
    run: Run, tmp_path: Path, file: Path
) -> None:
    """By the first of several ways, in one run: a second one has nothing to do."""
    copy = Path(shutil.copy(file, tmp_path))
    before = run.findings(copy)
    chosen = [part for each in ways(copy) if each[1:] for part in ("--choose", each[0].name)]
    status, _, err = run("fix", "-f", str(copy), "--write", *EVERYTHING, *chosen)
    told = [line for line in err.splitlines() if not line.startswith("Warning: not read: ")]
    assert (status in (0, 3), told) == (True, [])
    assert ways(copy) == []
    after = run.findings(copy)
    if file.stem in ASSUMING:
        after = [each for each in after if each["code"] != "KM101"]
    assert identities(after) <= identities(before)
    assert len(after) < len(before)
    text = copy.read_bytes()
    status, out, _ = run("fix", "-f", str(copy), *EVERYTHING)
    assert (status in (0, 3), "--- " in out, copy.read_bytes()) == (True, False, text)


def patches(run: Run, file: Path) -> list[dict[str, Any]]:
    _, out, _ = run("fix", "-f", str(file), "-o", "jsonpatch")
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_every_format_says_the_same(run: Run, example: Path) -> None:
    (patch,) = patches(run, example)
    assert patch["target"] == {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": "VirtualService",
        "namespace": "greetings",
        "name": "myapp",
    }
    documents = list(yaml.safe_load_all(example.read_text()))
    before = next(each for each in documents if each["metadata"]["name"] == "myapp")
    after = patched(before, patch["patch"])
    _, out, _ = run("fix", "-f", str(example), "-o", "yaml")
    assert list(yaml.safe_load_all(out)) == [after]
    _, out, _ = run("fix", "-f", str(example), "-o", "kustomize")
    (block,) = yaml.safe_load(out)["patches"]
    assert block["target"] == {
        "group": "networking.istio.io",
        "version": "v1beta1",
        "kind": "VirtualService",
        "namespace": "greetings",
        "name": "myapp",
    }
    assert json.loads(block["patch"]) == patch["patch"]
    _, out, _ = run("fix", "-f", str(example), "-o", "kubectl")
    words = shlex.split(out)
    assert words[:7] == [
        *("kubectl", "patch", "virtualservices.v1beta1.networking.istio.io", "myapp"),
        *("-n", "greetings", "--type=json"),
    ]
    assert json.loads(words[8]) == patch["patch"]


def test_kubectl_stops_at_the_first_patch_that_fails(run: Run) -> None:
    """A shell reads the lines; kubectl is a function that fails."""
    _, out, _ = run("fix", "-f", str(ROOT / "examples"), "-o", "kubectl")
    assert out.count("kubectl patch ") > 1
    assert "\n# TO BE REPAIRED\n" in out
    script = f"kubectl() {{ echo called; return 1; }}\n{out}"
    tried = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (tried.returncode, tried.stdout, tried.stderr) == (1, "called\n", "")


def test_mtls_is_turned_off_only_for_who_says_so(run: Run, tmp_path: Path) -> None:
    """In the order of the guidelines: the ConfigMap, pilot, citadel."""
    file = Path(shutil.copy(ROOT / "examples" / "5-headless-tcp-and-citadel.yaml", tmp_path))
    file.write_text(
        "apiVersion: apps/v1\nkind: Deployment\n"
        "metadata: {name: istio-pilot, namespace: istio-system}\n"
        "spec: {template: {spec: {containers: [{name: pilot}]}}}\n---\n" + file.read_text()
    )
    for flags in ((), ("--unsafe",)):
        status, out, _ = run("fix", "-f", str(file), *flags)
        assert (status, "ONLY WITH --accept-mtls-off" in out) == (0, True)
        assert "whoever can listen on the network reads it" in " ".join(out.split())
    _, out, _ = run("fix", "-f", str(file), "--accept-mtls-off", "-o", "jsonpatch")
    patches = json.loads(out)
    assert [each["target"]["name"] for each in patches] == ["istio", "istio-pilot", "istio-citadel"]
    assert "authPolicy: NONE" in patches[0]["patch"][1]["value"]
    restarted = "/spec/template/metadata"
    assert patches[1]["patch"][-1] == {
        "op": "add",
        "path": restarted,
        "value": {"annotations": {"mesh.kubectl.dev/mtls": "off"}},
    }
    assert patches[2]["patch"][-1]["value"] == 0
    assert run("fix", "-f", str(file), "--accept-mtls-off", "--write")[0] == 0
    assert run.findings(file) == []


def test_what_may_change_more_is_asked_for(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
        "spec: {selector: {app: web}, ports: [{name: htpp, port: 80}]}\n"
    )
    arguments = ("fix", "-f", str(file), "--rule", "KM301")
    status, out, _ = run(*arguments)
    assert (status, "ONLY WITH --unsafe\n  KM301 Service default/web" in out) == (0, True)
    status, out, _ = run(*arguments, "--unsafe")
    assert (status, "{name: htpp, port: 80, appProtocol: http}" in out) == (1, True)
    file.write_text(file.read_text().replace("htpp", "web"))
    status, out, _ = run(*arguments, "--unsafe")
    assert (status, "CHOOSE\n" in out) == (0, True)
    status, out, _ = run(*arguments, "--unsafe", "--choose", "grpc")
    assert (status, "appProtocol: grpc" in out) == (1, True)


@pytest.mark.parametrize(
    "file",
    [file for file in BAD if file.parent.name in ("KM201", "KM202")],
    ids=lambda file: f"{file.parent.name}-{file.stem}",
)
def test_a_gateways_requests_notice_what_is_copied_from_the_mesh(run: Run, file: Path) -> None:
    code = file.parent.name
    chosen = [name for each in ways(file) if each[1:] for name in ("--choose", each[0].name)]
    _, out, _ = run("fix", code, "-f", str(file), "--all-rules", *chosen)
    found = json.loads(
        run("fix", code, "-f", str(file), "--all-rules", *chosen, "-o", "jsonpatch")[1]
    )
    assert ("\n1. " in out) == bool(found)
    assert out.count("   from    the proxies of Gateway ") == out.count("\n   from ")


def test_settings_of_the_mesh_are_copied_for_who_says_so(run: Run) -> None:
    file = ROOT / "tests" / "rules" / "KM202" / "bad-timeout-and-retries.yaml"
    status, out, _ = run("fix", "-f", str(file))
    assert (status, "ONLY WITH --all-rules\n  KM202 VirtualService" in out) == (0, True)
    status, out, _ = run("fix", "-f", str(file), "--all-rules")
    added = "+    timeout: 2s\n+    retries:\n+      attempts: 3\n+      perTryTimeout: 500ms\n"
    assert (status, added in out) == (1, True)
    assert "   differs timeout, retries\n" in out


def test_shares_of_the_mesh_are_copied_for_who_says_so(run: Run) -> None:
    file = ROOT / "tests" / "rules" / "KM201" / "bad-weights.yaml"
    status, out, _ = run("fix", "-f", str(file))
    assert (status, "ONLY WITH --all-rules\n  KM201 VirtualService" in out) == (0, True)
    status, out, _ = run("fix", "-f", str(file), "--all-rules")
    added = (
        "     - destination:\n         host: shop\n+        subset: v1\n+      weight: 90\n"
        "+    - destination:\n+        host: shop\n+        subset: v2\n+      weight: 10\n"
    )
    assert (status, added in out) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--write"], "--write changes the files of -f"),
        (["-f", EXAMPLE, "--with-cluster"], "--with-cluster is for the doctor"),
        (["-f", EXAMPLE, "--choose", "nothing"], "no repair has that name; there are: v1"),
        (["-f", EXAMPLE, "--rule", "KM999x"], "no rule is called"),
        (["-f", EXAMPLE, "KM201=a/b/c/d"], "KM201=a/b/c/d: expected CODE, CODE=kind/name or"),
        (
            ["-f", EXAMPLE, "KM201=Virtualservce/myapp"],
            "'Virtualservce' is no kind that findings are about; did you mean VirtualService?",
        ),
        (["-f", EXAMPLE, "KM201=/a/b"], "'' is no kind that findings are about; there are "),
        (["-f", EXAMPLE, "KM201="], "KM201=: expected CODE, CODE=kind/name or"),
        (["-f", EXAMPLE, "KM201=vs/"], "KM201=vs/: expected CODE, CODE=kind/name or"),
        (["-f", EXAMPLE, "myapp"], "'myapp' is no code; expected one such as KM101"),
    ],
)
def test_command_lines_that_make_no_sense(
    run: Run, example: Path, arguments: list[str], said: str
) -> None:
    words = [str(example) if word == EXAMPLE else word for word in arguments]
    status, out, err = run("fix", *words)
    assert (status, out) == (2, "")
    assert said in err


@pytest.mark.parametrize(
    ("selector", "status"),
    [
        ("KM201", 1),
        ("*", 1),
        ("KM205", 0),
        ("KM201=virtualservice/myapp", 1),
        ("KM201=VirtualService/greet*/myapp", 1),
        ("KM201=vs/myapp", 1),
        ("KM201=virtualservices/myapp", 1),
        ("KM201=virt*/myapp", 1),
        ("KM201=VirtualService/elsewhere/myapp", 0),
        ("KM201=Gateway/myapp", 0),
    ],
)
def test_only_the_findings_that_are_named(
    run: Run, example: Path, selector: str, status: int
) -> None:
    found, out, _ = run("fix", selector, "-f", str(example))
    nothing = "None of these findings is there: nothing to repair.\n"
    assert (found, out == nothing) == (status, status == 0)


def test_what_could_not_be_read_is_named(run: Run, example: Path) -> None:
    example.write_text("a: [\n---\n" + example.read_text())
    status, out, err = run("fix", "-f", str(example), "--write")
    assert (status, err) == (3, "")
    assert "REPAIRED\n" in out
    assert f"COULD NOT BE EXAMINED\n  {example}:2:1: " in out.replace("\n    ", " ")
    example.write_text("a: [\n")
    status, out, err = run("fix", "-f", str(example), "-o", "jsonpatch", "--no-headers")
    assert (status, json.loads(out)) == (3, [])
    assert err.startswith("COULD NOT BE EXAMINED\n")


def test_what_can_be_examined_once_it_is_repaired_is_not_named(run: Run, tmp_path: Path) -> None:
    """The pods that the DestinationRule selects have the subset then."""
    file = tmp_path / "it.yaml"
    file.write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n"
        "spec: {ports: [{name: http, port: 80}], selector: {app: web}}\n---\n"
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\n"
        "spec:\n  selector: {matchLabels: {app: web}}\n"
        "  template: {metadata: {labels: {app: web, version: v9}}, spec: {containers: []}}\n---\n"
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        "metadata: {name: web, namespace: shop}\n"
        "spec: {hosts: [web], http: [{route: [{destination: {host: web, subset: v9}}]}]}\n---\n"
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        "metadata: {name: web, namespace: shop}\n"
        "spec: {host: web, workloadSelector: {matchLabels: {app: caller}}}\n"
    )
    look = ("fix", "KM101", "-f", str(file), "--choose", "define-v9")
    unknown = "whether pods that DestinationRule shop/web selects"
    assert unknown in " ".join(run("doctor", "-f", str(file))[1].split())
    status, out, _ = run(*look, "--write")
    assert (status, "COULD NOT BE EXAMINED" in out) == (0, False)


@pytest.mark.parametrize("name", ["", "--help", '"a\\e[31m"', "a/b"])
def test_nothing_is_repaired_in_what_the_api_server_would_refuse(
    run: Run, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        f"metadata: {{name: {name}, namespace: shop}}\n"
        "spec: {hosts: [x, x.shop.svc.cluster.local]}\n"
    )
    status, out, _ = run("fix", "KM609", "-f", str(file), "-o", "kubectl")
    assert (status, out) == (0, "")


def test_hostile_names_are_made_visible(run: Run, example: Path) -> None:
    example.write_text(example.read_text().replace("prefix: /hello", 'prefix: "/\\e[31m"'))
    for output in ("diff", "jsonpatch", "kustomize", "kubectl", "yaml"):
        _, out, err = run("fix", "-f", str(example), "-o", output, "--color", "never")
        assert "\x1b" not in out + err


def test_a_deletion_in_every_format(run: Run, tmp_path: Path) -> None:
    text = (ROOT / "tests" / "rules" / "KM501" / "bad-mesh-policy.yaml").read_text()
    file = tmp_path / "it.yaml"
    file.write_text(
        text + "---\napiVersion: apps/v1\nkind: Deployment\n"
        "metadata: {name: istio-pilot, namespace: istio-system}\n"
        "spec: {template: {spec: {containers: [{name: pilot}]}}}\n"
    )

    def shown(output: str) -> str:
        return run("fix", "-f", str(file), "--accept-mtls-off", "-o", output)[1]

    policy = {"apiVersion": "authentication.istio.io/v1alpha1", "kind": "MeshPolicy"}
    assert json.loads(shown("jsonpatch"))[0] == {
        "target": {**policy, "name": "default"},
        "delete": True,
    }
    lines = shown("kubectl").splitlines()
    assert lines[0] == "kubectl delete meshpolicies.v1alpha1.authentication.istio.io default &&"
    assert lines[2] == "kubectl rollout status deployment/istio-pilot -n istio-system &&"
    assert lines[3].startswith("kubectl patch deployments.v1.apps istio-citadel ")
    assert shown("yaml").startswith("# delete MeshPolicy default\n---\n")
    (patch, *_) = yaml.safe_load(shown("kustomize"))["patches"]
    assert yaml.safe_load(patch["patch"]) == {
        "$patch": "delete",
        **policy,
        "metadata": {"name": "default"},
    }


def test_what_a_repair_reveals_is_told(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: front}\n"
        "spec: {selector: {a: b}, servers: [{port: {number: 80, name: http, protocol: HTTP}, "
        "hosts: [shop.com]}]}\n---\n"
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\n"
        "spec: {hosts: [other.com], gateways: [fornt], http: [{directResponse: {status: 200}}]}\n"
    )
    _, out, _ = run("fix", "-f", str(file))
    assert "+spec: {hosts: [other.com], gateways: [front]" in out
    assert "\nNEW FINDINGS AFTER THIS\n  KM206 VirtualService default/web: spec.hosts[0]" in out


BEHIND = """\
apiVersion: v1
kind: Service
metadata: {name: hello}
spec: {selector: {app: hello}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello-v1}
spec:
  selector: {matchLabels: {app: hello, version: v1}}
  template:
    metadata: {labels: {app: hello, version: v1}}
    spec: {containers: [{name: hello, image: "hello:1", ports: [{containerPort: 80}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello-v2}
spec:
  selector: {matchLabels: {app: hello, version: v2}}
  template:
    metadata: {labels: {app: hello, version: v2}}
    spec: {containers: [{name: hello, image: "hello:2", ports: [{containerPort: 80}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [hello.com]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: public}
spec:
  hosts: [hello.com, hello.com] # twice
  gateways: [front]
  http:
  - route:
    - destination: {host: hello}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: hello}
spec:
  host: hello
  subsets:
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hello}
spec:
  hosts: [hello]
  http:
  - route:
    - destination: {host: hello, subset: v1}
"""
"""The gateway's route can only name subset v1 once the DestinationRule defines it."""
CURED = (
    BEHIND.replace("[hello.com, hello.com] # twice", "[hello.com] # twice")
    .replace("{host: hello}", "{host: hello, subset: v1}")
    .replace(
        "  - {name: v2, labels: {version: v2}}\n",
        "  - {name: v2, labels: {version: v2}}\n  - name: v1\n    labels:\n      version: v1\n",
    )
)


def test_a_repair_behind_another_is_part_of_the_same_run(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(BEHIND)
    status, out, _ = run("fix", "-f", str(file))
    assert status == 1
    repaired = " ".join(out.split("TO BE REPAIRED")[1].split())
    assert [each in repaired for each in ("KM609 ", "KM101 ", "KM201 ")] == [True] * 3
    assert run("fix", "-f", str(file), "--write")[0] == 0
    assert file.read_text() == CURED
    assert run("fix", "-f", str(file))[:2] == (0, "Nothing to repair.\n")


def test_what_is_rendered_is_repaired_in_one_run_too(run: Run, tmp_path: Path) -> None:
    base, overlay = tmp_path / "base", tmp_path / "prod"
    for folder in (base, overlay):
        folder.mkdir()
    (base / "it.yaml").write_text(BEHIND)
    (base / "kustomization.yaml").write_text("resources: [it.yaml]\n")
    (overlay / "kustomization.yaml").write_text("resources: [../base]\nnamespace: prod\n")
    status, _, err = run("fix", "-k", str(overlay), "--write")
    assert (status, err) == (0, "")
    assert (base / "it.yaml").read_text() == CURED
    assert run("fix", "-k", str(overlay))[:2] == (0, "Nothing to repair.\n")


def test_a_repair_that_relies_on_another_comes_later(run: Run, tmp_path: Path) -> None:
    """Proxies have the subset before a route to it."""
    file = tmp_path / "it.yaml"
    file.write_text(BEHIND)
    _, out, _ = run("fix", "-f", str(file), "-o", "kubectl", "--no-headers")
    lines = out.splitlines()
    subset = next(number for number, line in enumerate(lines) if "destinationrules" in line)
    route = next(
        number
        for number, line in enumerate(lines)
        if '"subset": "v1"' in line or 'subset", "value"' in line
    )
    assert subset < lines.index("sleep 5 &&") < route, out


NGINX = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data:
  default.conf: |
    upstream http_backend {
        server api:8080;

        keepalive 16;
    }

    server {
        listen 8080;

        location /http/ {
            proxy_pass http://http_backend;
        }
    }
---
apiVersion: v1
kind: Service
metadata: {name: api}
spec: {selector: {app: api}, ports: [{name: http, port: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api, version: v1}}
    spec: {containers: [{name: api, image: "api:1", ports: [{containerPort: 8080}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, version: v1}}
    spec:
      containers:
      - name: nginx
        image: IMAGE
        volumeMounts: [{name: conf, mountPath: /etc/nginx/conf.d}]
      volumes: [{name: conf, configMap: {name: web}}]
"""
"""The listing of Istio's guidelines without the two lines that it adds."""


@pytest.mark.parametrize(
    ("image", "flags"), [("nginx:1.25.5", ()), ("example.com/shop/nginx:1.25.5", ("--unsafe",))]
)
def test_the_two_lines_of_nginx_are_one_cure(
    run: Run, tmp_path: Path, image: str, flags: tuple[str, ...]
) -> None:
    """Of an image whose nginx.conf is not known the header may hide others, and is asked for."""
    file = tmp_path / "it.yaml"
    text = NGINX.replace("IMAGE", image)
    file.write_text(text)
    assert run("fix", "-f", str(file), "--write", *flags)[0] == 0
    lines = 'proxy_http_version 1.1;\n            proxy_set_header Connection "";'
    assert file.read_text() == text.replace("proxy_pass", f"{lines}\n            proxy_pass")
    assert {each["code"] for each in run.findings(file)} <= {"KM305"}


def test_all_steps_against_citadel_are_in_one_diff(run: Run) -> None:
    file = ROOT / "examples" / "5-headless-tcp-and-citadel.yaml"
    status, out, _ = run("fix", "-f", str(file), "--accept-mtls-off")
    assert (status, "+    authPolicy: NONE\n" in out, "+  replicas: 0\n" in out) == (1, True, True)
    assert (
        "istio-pilot is not in the input: restart it before Deployment istio-system/istio-citadel "
        "is scaled to 0" in " ".join(out.split())
    )


def test_what_is_left_is_named_by_its_place_in_the_file(run: Run, tmp_path: Path) -> None:
    """Although a repair moves it."""
    file = tmp_path / "it.yaml"
    file.write_text(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n"
        "  hosts: [a, a]\n  http:\n  - name: all\n    directResponse: {status: 200}\n"
        "  - match: [{uri: {exact: /}}]\n    name: idle\n    route:\n"
        "    - {destination: {host: a}, weight: 40}\n    - {destination: {host: b}, weight: 50}\n"
    )
    status, out, _ = run("fix", "-f", str(file))
    assert (status, "move spec.http[0] to the end" in " ".join(out.split())) == (1, True)
    assert f"KM605 VirtualService default/a ({file}:11:5): the weights of spec.http[1].route" in (
        " ".join(out.split())
    )


GUIDELINES = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: myapp
spec:
  hosts:
  - "myapp.com" # or maybe "*" while there is no DNS name
  gateways:
  - myapp-gateway
  http:
  - match:
    - uri:
        prefix: /hello
    route:
    - destination:
        host: helloworld.default.svc.cluster.local
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: helloworld
spec:
  hosts:
  - helloworld.default.svc.cluster.local
  http:
  - route:
    - destination:
        host: helloworld.default.svc.cluster.local
        subset: v1
"""
"""The two VirtualServices of Istio's guidelines, without the objects that they name."""


def test_two_virtual_services_alone_are_repaired_and_the_assumptions_named(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(GUIDELINES)
    _, out, _ = run("doctor", "-f", str(file))
    assert "KM201" in out
    assert "Gateway default/myapp-gateway is not in the input: taken to admit myapp.com" in (
        " ".join(out.split())
    )
    status, out, _ = run("fix", "KM201", "-f", str(file))
    said = " ".join(out.split())
    assert status == 1
    for assumed in (
        "Gateway default/myapp-gateway is not in the input: taken to admit myapp.com",
        "no DestinationRule for helloworld.default.svc.cluster.local is in the input: the one on "
        "which VirtualService default/helloworld relies is taken to define v1 for the gateway",
        "Gateway default/myapp-gateway is not in the input: taken to serve every host",
        "after helloworld.default.svc.cluster.local:80 subset v1 by VirtualService default/myapp",
    ):
        assert assumed in said
    assert run("fix", "KM201", "-f", str(file), "--write")[0] == 0
    head, rest = GUIDELINES.split("---\n")
    assert file.read_text() == head + "        subset: v1\n---\n" + rest


def test_no_subset_is_assumed_where_the_destination_rules_are_in_the_input(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(
        GUIDELINES + "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        "metadata: {name: other}\nspec: {host: other}\n"
    )
    status, out, _ = run("fix", "KM201", "-f", str(file))
    assert (status, out.startswith("BY HAND\n  KM201 ")) == (0, True)


def test_moved_rules_are_proved_or_left_to_people(run: Run) -> None:
    rules = ROOT / "tests" / "rules"
    status, out, _ = run("fix", "-f", str(rules / "KM603" / "bad-on-a-gateway.yaml"))
    assert (status, "KM603 VirtualService shops/shop: move spec.http[0] to the end" in out) == (
        1,
        True,
    )
    status, out, _ = run("fix", "-f", str(rules / "KM601" / "bad-same-twice-on-both.yaml"))
    assert (status, out.startswith("BY HAND\n  KM601 VirtualService shops/shop")) == (0, True)


def test_objects_that_stand_twice_are_left_to_people(run: Run, tmp_path: Path) -> None:
    """Else one of two MeshPolicies is left, and mTLS on without a citadel."""
    text = (ROOT / "tests" / "rules" / "KM501" / "bad-mesh-policy.yaml").read_text()
    policy = next(part for part in text.split("---\n") if "kind: MeshPolicy" in part)
    (tmp_path / "one.yaml").write_text(text)
    (tmp_path / "two.yaml").write_text(policy)
    status, out, _ = run("fix", "-f", str(tmp_path), "--accept-mtls-off")
    assert (status, "BY HAND\n  KM501 Service data/mysql" in out) == (0, True)


def test_a_file_that_cannot_be_edited_stops_no_other(run: Run, tmp_path: Path) -> None:
    rule = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: %s}\nspec:\n"
    (tmp_path / "good.yaml").write_text(
        rule % "a" + "  hosts: [a, a]\n  http: [{directResponse: {}}]\n"
    )
    shared = "  hosts: &hosts [b, b]\n  http: [{directResponse: {status: 200}}]\n"
    (tmp_path / "shared.yaml").write_text(rule % "b" + shared)
    status, out, err = run("fix", "KM609", "-f", str(tmp_path), "--write")
    assert (status, "shared.yaml: VirtualService default/b: " in err) == (0, True)
    assert "BY HAND\n  KM609 VirtualService default/b" in out
    assert "hosts: [a]" in (tmp_path / "good.yaml").read_text()


def test_a_diff_with_tabs_can_be_applied(run: Run, example: Path) -> None:
    example.write_text(example.read_text().replace("    route:", "    #\t\u00a0here\n    route:"))
    _, out, _ = run("fix", "-f", str(example))
    assert "     #\t\u00a0here\n" in out
