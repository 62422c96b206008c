"""The files that start the service: their flags, their users, and that they open nothing to others."""

from __future__ import annotations

import re
from typing import Any

import yaml
from packaging.requirements import Requirement
from support import ROOT
from unique_users_service.flags import make_service_parser
from uniques import __version__

DOCKERFILE = (ROOT / "docker" / "service.Dockerfile").read_text()


def read_manifests() -> dict[str, Any]:
    found = yaml.safe_load_all((ROOT / "conf" / "query-service.yaml").read_text())
    return {each["kind"]: each for each in found}


def read_compose() -> dict[str, Any]:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    return compose


def test_the_service_knows_every_flag_that_it_is_given() -> None:
    (container,) = read_manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    (last,) = re.findall(r"^CMD \[(.+)\]$", DOCKERFILE, re.MULTILINE)[-1:]
    for flags in (container["args"], read_compose()["services"]["query-service"]["command"], [last.strip('"')]):
        args = make_service_parser().parse_args(flags)
        assert args.port == ("0.0.0.0", 8050)


def test_compose_opens_the_page_to_this_machine_only_and_lets_the_service_write_nothing() -> None:
    service = read_compose()["services"]["query-service"]
    assert service["ports"] == ["127.0.0.1:8050:8050"]
    assert service["volumes"] == ["rollups:/var/lib/unique-users:ro"]
    assert "rollups:/var/lib/unique-users" in read_compose()["services"]["rollup-users"]["volumes"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


def test_kubernetes_starts_it_without_rights_and_asks_for_tokens() -> None:
    manifests = read_manifests()
    pod = manifests["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert manifests["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["securityContext"]["runAsUser"] == int(re.findall(r"^USER (\d+):", DOCKERFILE, re.MULTILINE)[0])
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert any(flag.startswith("--token-file=") for flag in container["args"])
    assert container["image"].endswith(f":{__version__}")
    names = {volume["name"] for volume in pod["spec"]["volumes"]}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert set(mounts) == names
    assert all(mount["readOnly"] for name, mount in mounts.items() if name != "tmp")


def test_the_image_has_what_the_extra_names() -> None:
    extra = re.search(r"^service = \[(.+?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert extra is not None
    wanted = {Requirement(text) for text in re.findall(r'"(.+)"', extra[1])}
    pinned = (ROOT / "docker" / "requirements-service.txt").read_text()
    for requirement in wanted:
        assert re.search(rf"^{requirement} \\$", pinned, re.MULTILINE), requirement
    assert "pyspark" not in pinned
