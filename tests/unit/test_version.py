"""The version stands in one place of the code; every file that names it for a platform names the same."""

from __future__ import annotations

import re

import pytest
from support import ROOT
from uniques import __version__

# File -> a pattern whose group is the version, and how often it stands there.
PLACES = {
    "conf/spark-application.yaml": (r"(?:unique-users:|version: )(\d+\.\d+\.\d+)$", 2),
    "conf/query-service.yaml": (r"unique-users-service:(\S+)$", 1),
    "conf/emr-step.json": (r"/unique-users/(\d[^/]*)/", 2),
    "conf/emr-serverless.json": (r"/unique-users/(\d[^/]*)/", 2),
    "docker/Dockerfile": (r"^ARG VERSION=(\S+)$", 1),
    "docker/service.Dockerfile": (r"^ARG VERSION=(\S+)$", 1),
    "docs/deploy/emr.md": (r"/unique-users/(\d[^/]*)/", 2),
    "docs/deploy/kubernetes.md": (r"(?:unique-users:|ref=v)(\d+\.\d+\.\d+)", 4),
}


@pytest.mark.parametrize("file", PLACES)
def test_a_file_names_this_version(file: str) -> None:
    pattern, times = PLACES[file]
    assert re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE) == [__version__] * times


def test_the_package_takes_its_version_from_the_code() -> None:
    assert 'version = { attr = "uniques.__version__" }' in (ROOT / "pyproject.toml").read_text()


def test_the_changelog_has_a_section_of_this_version_with_a_date() -> None:
    heading = rf"^## \[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d$"
    assert re.search(heading, (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_upgrade_test_has_a_checkpoint_of_this_version() -> None:
    # A new version gets its checkpoint before it is released, by the code that is released.
    assert (ROOT / "tests" / "kafka" / "checkpoints" / f"{__version__}.tar.gz").exists()
