"""The files for Databricks, EMR, Kubernetes and Docker, against their vendors' models and the job's flags."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator
from databricks.bundles.jobs import Job
from kubeflow_spark_api.models.spark_v1beta2_spark_application import SparkV1beta2SparkApplication
from support import ROOT
from uniques import __version__
from uniques.apps import count_flags, rollup_flags

if TYPE_CHECKING:
    from pathlib import Path

CONF = ROOT / "conf"
COMPOSE = ROOT / "docker" / "compose.yaml"
# What Docker Compose itself reads compose files with.
COMPOSE_GO = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"


def read_bundle() -> dict[str, Any]:
    bundle: dict[str, Any] = yaml.safe_load((CONF / "databricks.yml").read_text())
    return bundle


def read_application() -> dict[str, Any]:
    application: dict[str, Any] = yaml.safe_load((CONF / "spark-application.yaml").read_text())
    return application


def read_rights() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CONF / "spark-rights.yaml").read_text()))


def read_compose() -> dict[str, Any]:
    compose: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return compose


def read_serverless() -> dict[str, Any]:
    run: dict[str, Any] = json.loads((CONF / "emr-serverless.json").read_text())
    return run


def read_step() -> list[str]:
    (step,) = json.loads((CONF / "emr-step.json").read_text())["Steps"]
    arguments: list[str] = step["HadoopJarStep"]["Args"]
    return arguments


def find_job_flags() -> dict[str, list[str]]:
    """Where each platform file says what the job gets."""
    step = read_step()
    script = next(index for index, argument in enumerate(step) if argument.endswith("unique_users.py"))
    counting, rollups = read_bundle()["resources"]["jobs"]["unique_users"]["tasks"]
    return {
        "databricks": counting["python_wheel_task"]["parameters"],
        "databricks rollups": rollups["python_wheel_task"]["parameters"],
        "emr-serverless": read_serverless()["jobDriver"]["sparkSubmit"]["entryPointArguments"],
        "emr-step": step[script + 1 :],
        "kubernetes": read_application()["spec"]["arguments"],
        "compose": read_compose()["services"]["unique-users"]["command"][1:],
        "compose rollups": read_compose()["services"]["rollup-users"]["command"][1:],
    }


@pytest.mark.parametrize("platform", list(find_job_flags()))
def test_the_job_knows_every_flag_and_value(platform: str) -> None:
    flags = find_job_flags()[platform]
    assert all(flag.startswith("--") for flag in flags)
    parser = rollup_flags.make_parser() if "rollups" in platform else count_flags.make_parser()
    filled = [flag.replace("${var.kafka_bootstrap_servers}", "broker:9092") for flag in flags]
    parser.parse_args([re.sub(r"\$\{var\.\w+\}", "name", flag) for flag in filled])
    assert any(flag.startswith("--bootstrap-servers=") for flag in flags)


@pytest.mark.parametrize(
    ("service", "operation", "file"),
    [("emr-serverless", "StartJobRun", "emr-serverless.json"), ("emr", "AddJobFlowSteps", "emr-step.json")],
)
def test_emr_knows_every_field(service: str, operation: str, file: str) -> None:
    model = botocore.session.get_session().get_service_model(service)
    shape = model.operation_model(operation).input_shape
    given = json.loads((CONF / file).read_text())
    # The client adds the token that makes a retry harmless.
    report = ParamValidator().validate(
        {"clientToken": "token", **given} if service == "emr-serverless" else given, shape
    )
    assert not report.has_errors(), report.generate_report()
    assert find_pattern_errors(given, shape, file) == []
    broken = ParamValidator().validate({**given, "nonsense": 1}, shape)
    assert broken.has_errors()


def find_pattern_errors(given: Any, shape: Any, path: str) -> list[str]:
    """Texts and choices that the service model would not take, which botocore itself leaves to the service."""
    if shape.type_name == "structure":
        return [
            error
            for name, value in given.items()
            for error in find_pattern_errors(value, shape.members[name], f"{path}.{name}")
        ]
    if shape.type_name == "list":
        return [error for value in given for error in find_pattern_errors(value, shape.member, f"{path}[]")]
    if shape.type_name == "map":
        return [error for value in given.values() for error in find_pattern_errors(value, shape.value, f"{path}{{}}")]
    pattern, choices = shape.metadata.get("pattern"), shape.metadata.get("enum")
    if pattern and r"\u" in pattern:  # any printable text, as Java spells it
        pattern = None
    fits = (pattern is None or re.search(f"^(?:{pattern})$", str(given))) and (choices is None or given in choices)
    return [] if fits else [f"{path}: {given!r} is not {pattern or choices}"]


def test_emr_gets_the_connector_of_its_own_spark() -> None:
    serverless = shlex.split(read_serverless()["jobDriver"]["sparkSubmit"]["sparkSubmitParameters"])
    packages = serverless[serverless.index("--packages") + 1]
    assert f"--packages={packages}" in read_step()
    runbook = (ROOT / "docs" / "deploy" / "emr.md").read_text()
    assert packages in runbook
    # Serverless and EC2 start the same release from the same place.
    assert serverless[serverless.index("--py-files") + 1] == next(
        argument.partition("=")[2] for argument in read_step() if argument.startswith("--py-files=")
    )
    assert f"/{__version__}/" in serverless[serverless.index("--py-files") + 1]


def test_databricks_knows_every_field_of_the_job() -> None:
    bundle = read_bundle()
    # Every variable that is used is declared, and the other way round.
    text = (CONF / "databricks.yml").read_text()
    assert set(re.findall(r"\$\{var\.(\w+)\}", text)) == set(bundle["variables"])
    for job in bundle["resources"]["jobs"].values():
        assert_contains(Job.from_dict(job).as_dict(), job)
        broken: Any = {**job, "nonsense": 1}
        with pytest.raises(ValueError, match="nonsense"):
            Job.from_dict(broken)
    assert set(bundle["targets"]) == {"dev", "prod"}
    # Kafka and Delta are built in; setting these breaks a cluster.
    settings = json.dumps(bundle)
    assert not re.search(r"spark\.jars|spark\.sql\.extensions|spark_catalog", settings)
    scripts = (ROOT / "pyproject.toml").read_text().partition("[project.scripts]")[2]
    for task in bundle["resources"]["jobs"]["unique_users"]["tasks"]:
        assert f"{task['python_wheel_task']['entry_point']} = " in scripts


def merge(base: Any, override: Any) -> Any:
    """What the bundle tool deploys: maps are merged, clusters by their key, and everything else is replaced."""
    if isinstance(base, dict) and isinstance(override, dict):
        return {
            **base,
            **{name: merge(base[name], value) if name in base else value for name, value in override.items()},
        }
    if isinstance(base, list) and isinstance(override, list) and "job_cluster_key" in base[0]:
        (own,), (other,) = base, override
        assert own["job_cluster_key"] == other["job_cluster_key"]
        return [merge(own, other)]
    return override


def test_databricks_without_workers_is_a_single_node_cluster() -> None:
    bundle = read_bundle()
    # The clusters of the target prod have workers; dev has none, and says so in the three places Databricks wants.
    assert bundle["variables"]["workers"]["default"] >= 1
    assert bundle["targets"]["prod"]["variables"]["workers"] >= 1
    dev = merge(bundle["resources"]["jobs"], bundle["targets"]["dev"]["resources"]["jobs"])["unique_users"]
    assert_contains(Job.from_dict(dev).as_dict(), dev)
    ((_, cluster),) = ((each["job_cluster_key"], each["new_cluster"]) for each in dev["job_clusters"])
    assert cluster["num_workers"] == 0
    assert cluster["spark_conf"]["spark.databricks.cluster.profile"] == "singleNode"
    assert cluster["spark_conf"]["spark.master"] == "local[*]"
    assert cluster["custom_tags"] == {"ResourceClass": "SingleNode"}
    # The rest stays as it was.
    assert cluster["spark_conf"]["spark.sql.streaming.metricsEnabled"] == "true"


def test_databricks_tells_somebody_about_a_backlog() -> None:
    bundle = read_bundle()
    job = bundle["resources"]["jobs"]["unique_users"]
    (rule,) = job["health"]["rules"]
    assert rule["metric"] == "STREAMING_BACKLOG_RECORDS"
    assert job["email_notifications"]["on_streaming_backlog_exceeded"] == ["${var.alert_email}"]
    assert job["email_notifications"]["on_failure"] == ["${var.alert_email}"]
    # Nothing is deployed to prod before somebody is named.
    assert "default" not in bundle["variables"]["alert_email"]
    assert "alert_email" not in bundle["targets"]["prod"]["variables"]


def test_databricks_keeps_production_away_from_the_workspace_users() -> None:
    prod = read_bundle()["targets"]["prod"]
    assert prod["mode"] == "production"
    assert prod["workspace"]["root_path"].startswith("/Workspace/Users/${var.service_principal}/")
    assert prod["run_as"] == {"service_principal_name": "${var.service_principal}"}
    managers = [each for each in prod["permissions"] if each["level"] == "CAN_MANAGE"]
    assert managers == [{"level": "CAN_MANAGE", "service_principal_name": "${var.service_principal}"}]
    assert not any(each.get("group_name") == "users" for each in prod["permissions"])


def test_the_driver_has_the_rights_that_spark_uses_and_executors_have_none() -> None:
    rights = read_rights()
    spec = read_application()["spec"]
    namespace = read_application()["metadata"]["namespace"]
    assert {each["metadata"]["namespace"] for each in rights} == {namespace}
    accounts = {each["metadata"]["name"] for each in rights if each["kind"] == "ServiceAccount"}
    driver, executor = spec["driver"]["serviceAccount"], spec["executor"]["serviceAccount"]
    assert accounts == {driver, executor}
    assert driver != executor
    (role,) = (each for each in rights if each["kind"] == "Role")
    (binding,) = (each for each in rights if each["kind"] == "RoleBinding")
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": role["metadata"]["name"],
    }
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": driver, "namespace": namespace}]
    # What the rules allow is in test_kubernetes.py.
    assert all(rule["apiGroups"] == [""] for rule in role["rules"])
    # Without these two the driver asks for rights on volume claims.
    assert spec["sparkConf"]["spark.kubernetes.driver.ownPersistentVolumeClaim"] == "false"
    assert spec["sparkConf"]["spark.kubernetes.driver.reusePersistentVolumeClaim"] == "false"


def test_metrics_that_are_read_from_outside_are_served_on_every_interface() -> None:
    for platform, port in (("kubernetes", 9108), ("compose", 9108), ("compose rollups", 9108)):
        assert f"--metrics-port=0.0.0.0:{port}" in find_job_flags()[platform]
    annotations = read_application()["spec"]["sparkConf"]
    assert annotations["spark.kubernetes.driver.annotation.prometheus.io/port"] == "9108"


def test_the_files_for_clusters_authenticate_encrypt_and_let_nobody_kill_by_the_ui() -> None:
    wanted = {
        "spark.authenticate": "true",
        "spark.network.crypto.enabled": "true",
        "spark.network.crypto.cipher": "AES/GCM/NoPadding",
        "spark.network.crypto.authEngineVersion": "2",
        "spark.network.crypto.saslFallback": "false",
        "spark.io.encryption.enabled": "true",
        "spark.ui.killEnabled": "false",
    }
    step = dict(
        argument.removeprefix("--conf=").split("=", 1) for argument in read_step() if argument.startswith("--conf=")
    )
    for settings in (read_application()["spec"]["sparkConf"], step):
        assert {name: settings.get(name) for name in wanted} == wanted
    # YARN's external shuffle service would have to know the secret.
    assert step["spark.shuffle.service.enabled"] == "false"
    assert "spark.ui.killEnabled=false" in read_serverless()["jobDriver"]["sparkSubmit"]["sparkSubmitParameters"]
    assert re.search(r"^spark\.ui\.killEnabled +false$", (CONF / "spark-defaults.conf").read_text(), re.MULTILINE)


def test_the_spark_operator_knows_every_field() -> None:
    application = read_application()
    understood = SparkV1beta2SparkApplication.from_dict(application)
    assert understood is not None
    assert_contains(json.loads(understood.to_json()), application)
    spec = application["spec"]
    assert spec["restartPolicy"]["type"] in {"Never", "OnFailure", "Always"}
    assert (spec["type"], spec["mode"]) == ("Python", "cluster")
    assert f'"pyspark=={spec["sparkVersion"]}"' in (ROOT / "pyproject.toml").read_text()
    assert spec["image"].endswith(f":{__version__}")
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    assert f"USER {spec['driver']['podSecurityContext']['runAsUser']}:" in dockerfile
    for mount in spec["driver"]["volumeMounts"]:
        assert mount["name"] in {volume["name"] for volume in spec["volumes"]}


def assert_contains(whole: Any, part: Any, path: str = "") -> None:
    """Whatever is in `part` is in `whole`, at the same place: the model has dropped nothing."""
    if isinstance(part, dict):
        for name, value in part.items():
            assert name in (whole or {}), f"{path}/{name} is unknown"
            assert_contains(whole[name], value, f"{path}/{name}")
    elif isinstance(part, list):
        assert len(whole or []) == len(part), path
        for index, value in enumerate(part):
            assert_contains(whole[index], value, f"{path}/{index}")
    else:
        assert whole == part, path


def check_compose(file: Path, *profile: str) -> subprocess.CompletedProcess[str]:
    """Has Docker Compose, or the library it reads files with, read a file."""
    docker = ["docker", "compose"]
    if (
        shutil.which("docker")
        and subprocess.run([*docker, "version"], capture_output=True, check=False).returncode == 0
    ):
        command = [*docker, *profile, "--file", str(file), "config", "--quiet"]
    elif shutil.which("go"):
        command = ["go", "run", COMPOSE_GO, str(file)]
    else:
        pytest.skip("neither docker compose nor go is here")
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_docker_compose_takes_the_file_with_and_without_the_profile(tmp_path: Path) -> None:
    with_profile = check_compose(COMPOSE, "--profile", "monitoring")
    assert with_profile.returncode == 0, with_profile.stderr
    # compose-go reads all services: leave out what the profile would.
    compose = read_compose()
    compose["services"] = {name: service for name, service in compose["services"].items() if "profiles" not in service}
    assert set(compose["services"]) == {
        *("kafka", "topics", "generator", "unique-users", "rollup-users", "query-service")
    }
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(compose))
    without = check_compose(tmp_path / "compose.yaml")
    assert without.returncode == 0, without.stderr
    compose["services"]["unique-users"]["nonsense"] = True
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(compose))
    assert check_compose(tmp_path / "compose.yaml").returncode != 0


def test_what_compose_and_prometheus_call_the_job_is_the_same() -> None:
    services = read_compose()["services"]
    prometheus = yaml.safe_load((ROOT / "docker" / "monitoring" / "prometheus.yml").read_text())
    targets = [
        target for job in prometheus["scrape_configs"] for each in job["static_configs"] for target in each["targets"]
    ]
    assert {target.split(":")[0] for target in targets} <= set(services)
    assert {"127.0.0.1:4040:4040", "127.0.0.1:9108:9108"} == set(services["unique-users"]["ports"])
    # Prometheus reads Spark's metrics from the UI, which the image keeps on loopback.
    assert services["unique-users"]["environment"]["SPARK_LOCAL_IP"] == "0.0.0.0"
    assert "SPARK_LOCAL_IP=127.0.0.1" in (ROOT / "docker" / "Dockerfile").read_text()
    datasource = yaml.safe_load(
        (ROOT / "docker" / "monitoring" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    )["datasources"][0]
    assert datasource["url"].removeprefix("http://").split(":")[0] in services
