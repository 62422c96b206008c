"""What `make release` builds, twice: from two clones, at two places, at different times, under different settings."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from typing import TYPE_CHECKING

import pytest
from make_release import read_notes
from support import ROOT
from uniques import __version__

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(1800)  # the notebook of the documentation is executed in each build


def clone_commit(folder: Path) -> Path:
    """A clone of the last commit, as it is: what is not committed is in no release."""
    subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(folder)], check=True)
    return folder


def build(clone: Path, output: Path, mask: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """A release without images, of a clone."""
    return subprocess.run(
        [sys.executable, "tools/make_release.py", "--without-image", "--output", str(output)],
        cwd=clone,
        env={**os.environ, **environment},
        umask=mask,
        capture_output=True,
        text=True,
        check=False,
    )


def read_files(folder: Path) -> dict[str, str]:
    """File name -> SHA-256."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of two builds."""
    outputs = []
    settings = [
        (0o022, {"TZ": "UTC", "LANG": "C", "PYTHONHASHSEED": "1"}),
        (0o077, {"TZ": "Asia/Kathmandu", "LANG": "C.UTF-8", "PYTHONHASHSEED": "2"}),
    ]
    for number, (mask, environment) in enumerate(settings):
        clone = clone_commit(tmp_path_factory.mktemp(f"place-{'x' * number}") / "clone")
        if number:
            # Files are younger here, and the clock is another one.
            for path in clone.rglob("*"):
                os.utime(path, (time.time() - 86_400, time.time() - 86_400), follow_symlinks=False)
        output = tmp_path_factory.mktemp("release") / "dist"
        built = build(clone, output, mask, **environment)
        assert built.returncode == 0, built.stderr
        outputs.append(output)
    return outputs


def test_two_builds_give_the_same_bytes(releases: list[Path]) -> None:
    first, second = map(read_files, releases)
    assert set(first) == {
        "RELEASE_NOTES.md",
        "SHA256SUMS",
        "sbom.json",
        f"unique-users-{__version__}-docs.tar.gz",
        f"unique-users-{__version__}-source.tar.gz",
        f"unique_users-{__version__}-py3-none-any.whl",
        "uniques.zip",
    }
    assert first == second


def test_the_checksums_are_those_of_the_files(releases: list[Path]) -> None:
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=releases[0], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert len(checked.stdout.splitlines()) == len(list(releases[0].iterdir())) - 1


def test_every_file_has_the_time_of_the_commit_and_no_owner(releases: list[Path]) -> None:
    show = ["git", "log", "-1", "--format=%ct"]
    epoch = int(subprocess.run(show, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    for path in releases[0].glob("*.tar.gz"):
        with tarfile.open(path) as archive:
            entries = archive.getmembers()
        assert len(entries) > 100
        assert {(each.mtime, each.uid, each.gid, each.uname, each.gname) for each in entries} == {(epoch, 0, 0, "", "")}
        assert {each.mode for each in entries} <= {0o644, 0o755}
        assert [each.name for each in entries] == sorted(each.name for each in entries)
    with zipfile.ZipFile(releases[0] / "uniques.zip") as wheel:
        # A zip keeps times in steps of two seconds.
        assert {each.date_time for each in wheel.infolist()} == {(*time.gmtime(epoch)[:5], epoch % 60 // 2 * 2)}


def test_the_notes_are_the_section_of_the_changelog(releases: list[Path]) -> None:
    notes = (releases[0] / "RELEASE_NOTES.md").read_text()
    assert notes.startswith(f"# unique-users [{__version__}] - ")
    assert "\n## " not in notes
    changelog = "## Unreleased\n\n- x\n\n## [2.0.0] - 2027-01-02\n\n### Added\n\n- y\n\n## [1.0.0] - 2026\n"
    assert read_notes(changelog, "2.0.0") == "# unique-users [2.0.0] - 2027-01-02\n\n### Added\n\n- y\n"
    with pytest.raises(SystemExit, match=r"no section \"## \[3.0.0\] - DATE\""):
        read_notes(changelog, "3.0.0")


def test_what_is_not_committed_is_not_released(tmp_path: Path) -> None:
    clone = clone_commit(tmp_path / "clone")
    (clone / "README.md").write_text("changed")
    built = build(clone, tmp_path / "dist", 0o022)
    assert (built.returncode, built.stdout) == (1, "")
    said = "release: error: 1 files differ from the last commit: commit them, or take them back"
    assert built.stderr.splitlines() == [said]
    assert not (tmp_path / "dist").exists()
