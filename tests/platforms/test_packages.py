"""What `make package` builds, installed where nothing of this checkout is, and run from an empty folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pyspark
import pytest
from support import ROOT, SPARK_SUBMIT, count_exactly, make_events, plain_environment

DIST = ROOT / "dist"


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The one wheel in dist/."""
    (wheel,) = DIST.glob("*.whl")
    return wheel


@pytest.fixture
def events_file(tmp_path: Path) -> Path:
    """Seeded events, one a line."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(event.line for event in make_events(events=3_000, rate=50)))
    return path


def assert_right(stdout: str) -> None:
    """The results on standard output are those of an exact count, within the error they state."""
    records = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
    exact = count_exactly(make_events(events=3_000, rate=50))
    assert [record["window_start"] for record in records] == list(exact)
    for record in records:
        users, events = exact[record["window_start"]]
        assert record["events"] == events
        assert abs(record["unique_users"] / users - 1) <= 3 * record["relative_error"]


def test_the_wheel_holds_the_jobs_and_nothing_of_the_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.split("/")[0] for name in names}
    assert {"rollup_users.py", "unique_users.py", "uniques"} <= roots
    assert not {"tests", "tools", "benchmarks", "support.py"} & roots
    assert {str(path.relative_to(ROOT / "jobs")) for path in (ROOT / "jobs" / "uniques").rglob("*.py")} <= set(names)
    metadata = next(name for name in names if name.endswith("/METADATA"))
    # On a cluster a wheel that asks for a Spark of its own replaces the cluster's.
    required = [line for line in zipfile.ZipFile(wheel).read(metadata).decode().splitlines() if "Requires-Dist" in line]
    assert required
    assert all("extra ==" in line for line in required)


def make_clean_python(folder: Path, with_pip: bool) -> Path:
    """The bin folder of an environment that has PySpark, as a cluster brings it, and nothing of this checkout."""
    venv.create(folder, with_pip=with_pip)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for package in ("pyspark", "py4j"):
        (site / package).symlink_to(Path(pyspark.__path__[0]).parent / package)
    return folder / "bin"


def test_the_wheel_runs_in_a_clean_environment(wheel: Path, tmp_path: Path, events_file: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    clean = make_clean_python(tmp_path / "venv", with_pip=True)
    pip = [str(clean / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    done = subprocess.run(
        [str(clean / "unique-users"), "--input", str(events_file), "--output", "-"],
        capture_output=True,
        text=True,
        check=False,
        cwd=empty,
        env={**plain_environment(), "SPARK_LOCAL_IP": "127.0.0.1"},
    )
    assert done.returncode == 0, done.stderr
    assert_right(done.stdout)

    lacking = subprocess.run(
        [str(clean / "unique-users"), "--metrics-port", "127.0.0.1:9108"],
        capture_output=True,
        text=True,
        check=False,
        cwd=empty,
        env={**plain_environment(), "SPARK_LOCAL_IP": "127.0.0.1"},
    )
    assert lacking.returncode == 2
    said = "--metrics-port needs the Python package prometheus_client: pip install prometheus_client"
    assert lacking.stderr.splitlines()[-1] == f"unique_users: error: {said} (see --help)"


def test_the_zip_goes_with_the_script_alone(tmp_path: Path, events_file: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(ROOT / "jobs" / "unique_users.py", empty)
    clean = make_clean_python(tmp_path / "venv", with_pip=False)
    job = ["unique_users.py", "--input", str(events_file), "--output", "-"]
    said = {}
    for py_files in ([], ["--py-files", str(DIST / "uniques.zip")]):
        done = subprocess.run(
            [str(SPARK_SUBMIT), "--conf", "spark.ui.enabled=false", *py_files, *job],
            capture_output=True,
            text=True,
            check=False,
            cwd=empty,
            env={**plain_environment(), "PYSPARK_PYTHON": str(clean / "python")},
        )
        said[bool(py_files)] = done
    # The script alone is not enough, which shows that this environment has no other copy.
    assert "No module named 'uniques'" in said[False].stdout + said[False].stderr
    assert said[True].returncode == 0, said[True].stderr
    assert_right(said[True].stdout)
