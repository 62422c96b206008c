"""Builds everything that a release consists of, from the last commit, into dist/.

    python tools/make_release.py
    python tools/make_release.py --output /tmp/release --without-image

`make release` calls it. Two builds of one commit with the same packages give the same bytes, wherever and whenever they
run: every file takes its time from the commit, and no file names its owner or its place. An image is the exception,
because it has what Debian serves on that day; so its checksum is in a file of its own.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
NAME = "unique-users"


def main() -> None:
    """Builds, and prints the name of every file."""
    parser = argparse.ArgumentParser(description="Build a release of the last commit.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder, made anew (default: dist)")
    parser.add_argument("--without-image", action="store_true", help="build no container images")
    args = parser.parse_args()
    changed = git("status", "--porcelain", "--untracked-files=no").strip()
    if changed:
        fail(f"{len(changed.splitlines())} files differ from the last commit: commit them, or take them back")
    # Files that tools make have the rights of a clone with the usual mask, whatever the mask is here.
    os.umask(0o022)
    os.environ["SOURCE_DATE_EPOCH"] = git("log", "-1", "--format=%ct").strip()
    if args.output.exists():
        shutil.rmtree(args.output)
    args.output.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="unique-users-release-") as scratch:
        source = export_commit(Path(scratch))
        version = read_version(source)
        (args.output / "RELEASE_NOTES.md").write_text(read_notes((source / "CHANGELOG.md").read_text(), version))
        # First, because the other steps leave files in the folder.
        files = [path for path in source.rglob("*") if path.is_file()]
        write_archive(source, args.output / f"{NAME}-{version}-source.tar.gz", f"{NAME}-{version}", files)
        build_packages(source, args.output)
        run([sys.executable, "tools/make_sbom.py", str(args.output / "sbom.json")], source)
        build_site(source, args.output / f"{NAME}-{version}-docs.tar.gz")
        write_checksums(args.output, args.output / "SHA256SUMS")
        if not args.without_image:
            build_images(source, args.output, version)
    for path in sorted(args.output.iterdir()):
        print(f"release: {path.name}, {path.stat().st_size} bytes")


def fail(message: str) -> NoReturn:
    """Ends with one line, and status 1."""
    sys.exit(f"release: error: {message}")


def run(command: list[str], folder: Path, **environment: str) -> str:
    """What a program prints; ends with its last line when it fails."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip().splitlines() or ["no message"]
        fail(f"{Path(command[0]).name} {' '.join(command[1:4])}: {said[-1]}")
    return done.stdout


def git(*arguments: str) -> str:
    """What git prints in this checkout."""
    return run(["git", *arguments], ROOT)


def export_commit(scratch: Path) -> Path:
    """A folder with the files of the last commit, and nothing else."""
    packed = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    folder = scratch / "source"
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        # The filter takes the rights of group and others to write, which depend on git's settings.
        archive.extractall(folder, filter="data")
    return folder


def read_version(source: Path) -> str:
    """The version, from the one place that has it."""
    found = re.search(
        r'^__version__ = "(.+)"$', (source / "jobs" / "uniques" / "__init__.py").read_text(), re.MULTILINE
    )
    if found is None:
        fail("jobs/uniques/__init__.py has no __version__")
    return found[1]


def read_notes(changelog: str, version: str) -> str:
    """The section of a version in the changelog, with its heading as the title; ends when there is none."""
    found = re.search(rf"^## (\[?{re.escape(version)}\]? - .+)\n+((?:(?!## ).*\n)*)", changelog, re.MULTILINE)
    if found is None:
        fail(f'CHANGELOG.md has no section "## [{version}] - DATE": give the changes their version and date')
    return f"# {NAME} {found[1]}\n\n{found[2].rstrip()}\n"


def build_packages(source: Path, output: Path) -> None:
    """The wheel, and the same file under the name that `--py-files` takes."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", str(output), "."], source)
    (wheel,) = output.glob("*.whl")
    shutil.copyfile(wheel, output / "uniques.zip")
    shutil.rmtree(source / "build", ignore_errors=True)


def build_site(source: Path, target: Path) -> None:
    """The documentation as a site, with the notebook executed."""
    run([sys.executable, "tools/render_notebook.py"], source)
    mkdocs = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    run([*mkdocs, "--config-file", "docs/site/mkdocs.yml"], source, NO_MKDOCS_2_WARNING="1")
    site = source / "build" / "site"
    write_archive(
        site, target, target.name.removesuffix(".tar.gz"), [path for path in site.rglob("*") if path.is_file()]
    )


def write_archive(folder: Path, target: Path, prefix: str, files: list[Path]) -> None:
    """Packs files below `folder`: sorted, with the commit's time and nobody's name."""
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    with (
        target.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(files):
            entry = archive.gettarinfo(path, f"{prefix}/{path.relative_to(folder)}")
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = epoch, 0, 0, "", ""
            entry.mode = 0o755 if entry.mode & 0o100 else 0o644
            with path.open("rb") as content:
                archive.addfile(entry, content)


def write_checksums(folder: Path, target: Path, pattern: str = "*") -> None:
    """The SHA-256 of each file, as `sha256sum --check` reads them."""
    files = sorted(path for path in folder.glob(pattern) if path != target)
    target.write_text("".join(f"{hash_file(path)}  {path.name}\n" for path in files))


def hash_file(path: Path) -> str:
    """The SHA-256 of a file of any size, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def build_images(source: Path, output: Path, version: str) -> None:
    """The two images as archives, where Docker or buildah is; otherwise one line says that there are none."""
    script = str(source / "docker" / "image.sh")
    tool = subprocess.run([script, "tool"], capture_output=True, text=True, check=False)
    if tool.returncode != 0:
        print(f"release: no images: {tool.stderr.strip().removeprefix('image: error: ')}")
        return
    for image in (NAME, f"{NAME}-service"):
        archive = output / f"{image}-{version}-image.tar"
        run([script, "save", image, version, str(archive)], source)
    write_checksums(output, output / "SHA256SUMS.images", "*-image.tar")


if __name__ == "__main__":
    main()
