"""The files for Kubernetes: the API's own schemas, the rights that Spark asks for, safe pods, and who reaches whom."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from kubernetes_api import DRIVER, KubernetesApi
from support import ROOT, plain_environment, wait_until

CONF = ROOT / "conf"
MANIFESTS = ("spark-rights.yaml", "network-policies.yaml", "spark-application.yaml", "query-service.yaml")
KUBERNETES = "k8s.io/kubernetes@v1.34.2"
OPERATOR = "github.com/kubeflow/spark-operator/v2@v2.4.0"
KUBECONFORM = "github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0"

needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="Go, which brings the schemas, is not here")
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which has kustomize, is not here")


def read_all(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each]


def read_manifests() -> list[dict[str, Any]]:
    return [each for name in MANIFESTS for each in read_all((CONF / name).read_text())]


def find(kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in read_manifests() if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def download(module: str, folder: Path) -> Path:
    """The folder of a Go module."""
    done = subprocess.run(["go", "mod", "download", "-json", module], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["Dir"])


def close(schema: Any) -> Any:
    """A schema that takes no field it does not name, as `kubectl apply` with strict validation."""
    if isinstance(schema, list):
        return [close(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: close(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the schema of every kind in `conf/`: Kubernetes' own, and the operator's definition."""
    folder = tmp_path_factory.mktemp("schemas")
    api = json.loads((download(KUBERNETES, folder) / "api" / "openapi-spec" / "swagger.json").read_text())
    definitions = close(api["definitions"])
    # Two types that are a text or a number, which the specification calls a text.
    for name in ("api.resource.Quantity", "util.intstr.IntOrString"):
        definitions[f"io.k8s.apimachinery.pkg.{name}"] = {"type": ["string", "number"]}
    wanted = {(each["apiVersion"], each["kind"]) for each in read_manifests()}
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            version = "/".join(filter(None, (kind["group"], kind["version"])))
            if (version, kind["kind"]) in wanted:
                write_schema(
                    folder, version, kind["kind"], {"$ref": f"#/definitions/{name}", "definitions": definitions}
                )
    operator = download(OPERATOR, folder) / "config" / "crd" / "bases" / "sparkoperator.k8s.io_sparkapplications.yaml"
    (crd,) = read_all(operator.read_text())
    for served in crd["spec"]["versions"]:
        schema = close(served["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        write_schema(
            folder, f"{crd['spec']['group']}/{served['name']}", crd["spec"]["names"]["kind"], {"allOf": [schema]}
        )
    assert len(list(folder.glob("*.json"))) == len(wanted)
    return folder


def write_schema(folder: Path, version: str, kind: str, schema: Any) -> None:
    """Where kubeconform looks for it; it takes `v1` for the group of the kinds that have none."""
    group, _, number = version.rpartition("/")
    (folder / f"{group or number}_{number}-{kind.lower()}.json").write_text(json.dumps(schema))


def validate(schemas: Path, text: str) -> dict[str, Any]:
    """What kubeconform says of manifests."""
    location = f"{schemas}/{{{{ .Group }}}}_{{{{ .ResourceAPIVersion }}}}"
    command = ["go", "run", KUBECONFORM, "-strict", "-summary", "-verbose", "-output", "json"]
    command += ["-schema-location", f"{location}-{{{{ .ResourceKind }}}}.json", "-"]
    done = subprocess.run(command, cwd=schemas, input=text, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@needs_go
def test_the_api_server_would_take_every_field_and_value(schemas: Path) -> None:
    said = validate(schemas, "\n---\n".join((CONF / name).read_text() for name in MANIFESTS))
    assert [each["msg"] for each in said["resources"] if each["status"] != "statusValid"] == []
    assert said["summary"] == {"valid": len(read_manifests()), "invalid": 0, "errors": 0, "skipped": 0}


@needs_go
@pytest.mark.parametrize(
    ("kind", "name", "break_it"),
    [
        ("SparkApplication", "unique-users", lambda each: each["spec"]["driver"].update(nonsense=1)),
        ("SparkApplication", "unique-users", lambda each: each["spec"].update(type="Ruby")),
        ("Role", "unique-users-driver", lambda each: each["rules"][0].update(verbs="get")),
        ("NetworkPolicy", "unique-users-driver", lambda each: each["spec"]["egress"][0].update(port=1)),
        ("Deployment", "unique-users-service", lambda each: each["spec"].update(replicas="two")),
    ],
)
def test_the_schemas_refuse_what_is_wrong(schemas: Path, kind: str, name: str, break_it: Any) -> None:
    broken = find(kind, name)
    break_it(broken)
    assert validate(schemas, yaml.safe_dump(broken))["summary"]["invalid"] == 1


@needs_go
@needs_kubectl
def test_the_base_and_the_overlay_of_the_page_render_what_the_schemas_take(schemas: Path, tmp_path: Path) -> None:
    base = kustomize(CONF)
    assert [each["kind"] for each in read_all(base)].count("NetworkPolicy") == 3
    assert read_all(base)[-1] == find("SparkApplication", "unique-users")
    assert validate(schemas, base)["summary"] == {"valid": 8, "invalid": 0, "errors": 0, "skipped": 0}
    page = (ROOT / "docs" / "deploy" / "kubernetes.md").read_text()
    overlay = page.partition("# kustomization.yaml\n")[2].partition("```")[0]
    remote = "https://github.com/example/unique-users//conf?ref=v0.2.0"
    assert remote in overlay
    (tmp_path / "overlay").mkdir()
    (tmp_path / "conf").symlink_to(CONF)
    (tmp_path / "overlay" / "kustomization.yaml").write_text(overlay.replace(remote, "../conf"))
    rendered = kustomize(tmp_path / "overlay")
    assert validate(schemas, rendered)["summary"] == {"valid": 8, "invalid": 0, "errors": 0, "skipped": 0}
    (application,) = (each for each in read_all(rendered) if each["kind"] == "SparkApplication")
    assert application["metadata"]["namespace"] == "analytics"
    assert application["spec"]["image"] == "registry.example.net/unique-users:0.2.0"
    assert application["spec"]["arguments"][0] == "--bootstrap-servers=broker.example.net:9093"
    assert {each["metadata"]["namespace"] for each in read_all(rendered)} == {"analytics"}
    (binding,) = (each for each in read_all(rendered) if each["kind"] == "RoleBinding")
    assert [each["namespace"] for each in binding["subjects"]] == ["analytics"]


def kustomize(folder: Path) -> str:
    """What kustomize makes of a folder."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


PROGRAM = """\
import json, sys
from pyspark.sql import SparkSession
session = SparkSession.builder.config(map=json.loads(sys.argv[1])).getOrCreate()
print("started", flush=True)
sys.stdin.read()
session.stop()
"""


@pytest.fixture(scope="module")
def driver_calls() -> tuple[set[tuple[str, str]], list[dict[str, Any]]]:
    """The rights that Spark's driver needs with our settings, and what it has created.

    It starts two executors, one of which fails and is replaced, and ends.
    """
    spec = find("SparkApplication", "unique-users")["spec"]
    with KubernetesApi() as api:
        settings = {
            **{name: value for name, value in spec["sparkConf"].items() if not name.startswith("spark.metrics")},
            "spark.master": f"k8s://{api.url}",
            "spark.kubernetes.namespace": "streaming",
            "spark.kubernetes.driver.pod.name": DRIVER,
            "spark.kubernetes.container.image": spec["image"],
            "spark.executor.instances": str(spec["executor"]["instances"]),
            "spark.kubernetes.executor.apiPollingInterval": "1s",
            "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1",
            # Free ports: several tests run side by side.
            "spark.driver.port": "0",
            "spark.driver.blockManager.port": "0",
        }
        driver = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**plain_environment(), "SPARK_LOCAL_IP": "127.0.0.1"},
        )
        try:
            wait_until(lambda: len(api.list_executors()) == 2, lambda: driver.poll() is None)
            failed = api.list_executors()[0]
            api.fail_pod(failed)
            wait_until(
                lambda: failed not in api.list_executors() and len(api.list_executors()) == 2,
                lambda: driver.poll() is None,
            )
            driver.communicate("", timeout=300)
        finally:
            driver.kill()
        return api.calls, api.created


def test_the_role_allows_what_the_driver_asks_for_and_no_more(driver_calls: Any) -> None:
    calls, _ = driver_calls
    role = find("Role", "unique-users-driver")
    allowed = {(verb, name) for rule in role["rules"] for name in rule["resources"] for verb in rule["verbs"]}
    assert calls - allowed == set(), "the driver would be refused"
    assert allowed - calls == set(), "the driver does not ask for this"


def list_violations(pod: dict[str, Any]) -> list[str]:
    """What the pod security standard "restricted" forbids in the specification of a pod (Kubernetes 1.34)."""
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    taken = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    found += [f"volume {each['name']}" for each in pod.get("volumes", []) if not set(each) - {"name"} <= taken]
    common = pod.get("securityContext", {})
    if common.get("sysctls"):
        found.append("sysctls")
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        own = container.get("securityContext", {})
        either = {**common, **own}
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            found.append("privileges")
        if own.get("capabilities", {}).get("drop") != ["ALL"]:
            found.append("capabilities")
        if set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
            found.append("added capabilities")
        if either.get("runAsNonRoot") is not True or either.get("runAsUser") == 0:
            found.append("root")
        if either.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found.append("seccomp")
        if own.get("procMount", "Default") != "Default" or "seLinuxOptions" in either or "windowsOptions" in either:
            found.append("options")
        found += [f"host port {port['hostPort']}" for port in container.get("ports", []) if port.get("hostPort")]
    return found


def make_pod(role: str, made_by_spark: dict[str, Any]) -> dict[str, Any]:
    """The pod of the driver or an executor: what Spark makes, with what the operator adds to it."""
    spec = find("SparkApplication", "unique-users")["spec"]
    containers = [{**each, "securityContext": spec[role]["securityContext"]} for each in made_by_spark["containers"]]
    secrets = [{"name": each["name"], "secret": {"secretName": each["name"]}} for each in spec[role]["secrets"]]
    volumes = [*made_by_spark.get("volumes", []), *spec["volumes"], *secrets]
    security = {**made_by_spark.get("securityContext", {}), **spec[role]["podSecurityContext"]}
    return {**made_by_spark, "containers": containers, "volumes": volumes, "securityContext": security}


@pytest.mark.parametrize("role", ["driver", "executor"])
def test_the_pods_of_spark_satisfy_restricted(driver_calls: Any, role: str) -> None:
    _, created = driver_calls
    made = next(each["spec"] for each in created if each["kind"] == "Pod" and each["metadata"]["name"] != DRIVER)
    assert "privileges" in list_violations(made), "what Spark makes by itself does not satisfy it"
    pod = make_pod(role, made if role == "executor" else {"containers": [{"name": "spark-kubernetes-driver"}]})
    assert list_violations(pod) == []
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_pod_of_the_query_service_satisfies_restricted() -> None:
    assert list_violations(find("Deployment", "unique-users-service")["spec"]["template"]["spec"]) == []


POD = "app.kubernetes.io/name"
DRIVER_POD = {POD: "unique-users", "spark-role": "driver"}
EXECUTOR_POD = {POD: "unique-users", "spark-role": "executor"}
SERVICE_POD = {POD: "unique-users-service"}


class Peer(NamedTuple):
    """A pod, or something that is none: its namespace, empty for none, and its labels."""

    namespace: str
    labels: dict[str, str]


def reaches(source: Peer, target: Peer, port: int) -> bool:
    """Whether the policies let one open a TCP connection to the other."""
    return is_allowed(source, target, port, "egress", "to") and is_allowed(target, source, port, "ingress", "from")


def is_allowed(pod: Peer, other: Peer, port: int, way: str, side: str) -> bool:
    """Whether a rule of a policy of a pod allows a connection; without a policy everything is allowed."""
    policies = [each["spec"] for each in read_manifests() if each["kind"] == "NetworkPolicy"]
    mine = [each for each in policies if each["podSelector"]["matchLabels"].items() <= pod.labels.items()]
    if pod.namespace != "streaming" or not mine:
        return True
    rules = [rule for policy in mine for rule in policy[way] if {"protocol": "TCP", "port": port} in rule["ports"]]
    return any(side not in rule or any(selects(peer, other) for peer in rule[side]) for rule in rules)


def selects(peer: dict[str, Any], other: Peer) -> bool:
    """Whether a peer of a rule is this pod."""
    name = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name", "streaming")
    labels = peer.get("podSelector", {}).get("matchLabels", {})
    return bool(other.namespace == name and labels.items() <= other.labels.items())


def test_the_network_lets_through_what_the_job_needs_and_nothing_else() -> None:
    spec = find("SparkApplication", "unique-users")["spec"]
    assert spec["driver"]["labels"].items() >= {POD: "unique-users"}.items()
    assert spec["executor"]["labels"].items() >= {POD: "unique-users"}.items()
    messages, blocks = (int(spec["sparkConf"][f"spark.{name}.port"]) for name in ("driver", "blockManager"))
    (kafka_port,) = (int(each.rpartition(":")[2]) for each in spec["arguments"] if "--bootstrap-servers" in each)
    driver, executor, service = (Peer("streaming", pod) for pod in (DRIVER_POD, EXECUTOR_POD, SERVICE_POD))
    names, broker = Peer("kube-system", {"k8s-app": "kube-dns"}), Peer("kafka", {"app": "kafka"})
    prometheus, api, other = (
        Peer("monitoring", {"app": "prometheus"}),
        Peer("", {}),
        Peer("streaming", {"app": "other"}),
    )
    needed = [
        *((executor, driver, port) for port in (messages, blocks)),
        *((pod, executor, blocks) for pod in (driver, executor)),
        *((pod, broker, kafka_port) for pod in (driver, executor, service)),
        *((pod, names, 53) for pod in (driver, executor, service)),
        (prometheus, driver, 9108),
        *((driver, api, port) for port in (443, 6443)),
        (other, service, 8050),
    ]
    assert [each for each in needed if not reaches(*each)] == []
    refused = [
        *((other, driver, port) for port in (messages, blocks, 9108, 4040)),
        *((other, executor, port) for port in (blocks, 4040)),
        (executor, api, 443),
        (executor, broker, 9092),
        (service, driver, messages),
        (service, api, 443),
        (driver, other, 80),
        (prometheus, executor, blocks),
    ]
    assert [each for each in refused if reaches(*each)] == []
