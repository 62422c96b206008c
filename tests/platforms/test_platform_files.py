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
from uniques.apps import count_flags, rollup_flags

if TYPE_CHECKING:
    from pathlib import Path

CONF = ROOT / "conf"
COMPOSE = ROOT / "docker" / "compose.yaml"
# What Docker Compose itself reads compose files with.
COMPOSE_GO = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"
VERSION = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]  # type: ignore[index]


def read_bundle() -> dict[str, Any]:
    bundle: dict[str, Any] = yaml.safe_load((CONF / "databricks.yml").read_text())
    return bundle


def read_application() -> dict[str, Any]:
    application: dict[str, Any] = yaml.safe_load((CONF / "spark-application.yaml").read_text())
    return application


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
    assert f"/{VERSION}/" in serverless[serverless.index("--py-files") + 1]


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


def test_the_spark_operator_knows_every_field() -> None:
    application = read_application()
    understood = SparkV1beta2SparkApplication.from_dict(application)
    assert understood is not None
    assert_contains(json.loads(understood.to_json()), application)
    spec = application["spec"]
    assert spec["restartPolicy"]["type"] in {"Never", "OnFailure", "Always"}
    assert (spec["type"], spec["mode"]) == ("Python", "cluster")
    assert f'"pyspark=={spec["sparkVersion"]}"' in (ROOT / "pyproject.toml").read_text()
    assert spec["image"].endswith(f":{VERSION}")
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
    assert set(compose["services"]) == {"kafka", "topics", "generator", "unique-users", "rollup-users"}
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
    datasource = yaml.safe_load(
        (ROOT / "docker" / "monitoring" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    )["datasources"][0]
    assert datasource["url"].removeprefix("http://").split(":")[0] in services
