"""A real S3-compatible object store, SeaweedFS, on this machine, without Docker.

    python tools/object_store.py install
    python tools/object_store.py run --port 8333 --bucket uniques

`install` builds the store with Go, from the Go module that `packages.py` names, and downloads Hadoop's file system for
S3. `make test-object-store` calls it. Tests use the store as a context manager:

    with ObjectStore() as store:
        store.create_bucket("uniques")
        print(store.endpoint, store.spark_settings())
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

from go_programs import find_go, run_go
from install_spark import fetch_jars
from kafka_broker import find_free_port
from packages import S3A_JARS, S3A_PACKAGE, STORE_BINARY, STORE_MODULE, STORE_SUM
from servers import Server

START_TIMEOUT_SECONDS = 120.0
# Made up: the store listens on 127.0.0.1 only.
ACCESS_KEY, SECRET_KEY = "made-up-access-key", "made-up-secret-key"
REGION = "us-east-1"
IDENTITIES = {
    "identities": [
        {
            "name": "jobs",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
    ]
}
# What stats.go of SeaweedFS logs of a request: who asked, the method, the path without its query, the status.
REQUEST = re.compile(r'stats\.go:\d+ .*"[^"]*" ([A-Z]+) "(/[^"]*)" (\d{3}) ')


class StoreError(Exception):
    """The store can't be built or started; the message is one line."""


class Request(NamedTuple):
    """A request that the store answered: `kind` is GET, HEAD, PUT, DELETE, POST or LIST; `key` lacks the bucket."""

    kind: str
    key: str
    status: int


class ObjectStore(Server):
    """One SeaweedFS process with an S3 endpoint; a context manager that starts it and stops it.

    `port` 0 takes a free port. `data` None takes a temporary folder, which is removed at the end. After `stop()` or
    `kill()` the store may `start()` again, with the same ports and data. `pause()` lets it hang until `resume()`.
    """

    title = "the store"
    error = StoreError

    def __init__(self, port: int = 0, data: Path | None = None) -> None:
        """Chooses the ports and the folder, and starts nothing yet."""
        self.port = port or find_free_port()
        self._ports = {name: find_free_port() for name in ("master", "volume", "filer")}
        self._grpc_ports = {name: find_free_port() for name in ("master", "volume", "filer", "s3")}
        self._temporary = data is None
        self._folder = data or Path(tempfile.mkdtemp(prefix="store-"))

    @property
    def endpoint(self) -> str:
        """The address for clients, `http://host:port`."""
        return f"http://127.0.0.1:{self.port}"

    def spark_settings(self) -> dict[str, str]:
        """What Spark needs to reach it as `s3a://`, but for the jars."""
        return {
            "spark.hadoop.fs.s3a.endpoint": self.endpoint,
            "spark.hadoop.fs.s3a.endpoint.region": REGION,
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.hadoop.fs.s3a.access.key": ACCESS_KEY,
            "spark.hadoop.fs.s3a.secret.key": SECRET_KEY,
        }

    def delta_options(self) -> dict[str, str]:
        """What delta-rs needs to reach it as `s3://`: the options of `unique-users-service --storage-options`."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ALLOW_HTTP": "true",
        }

    def start(self) -> None:
        """Starts the store and returns when it answers; raises StoreError when it does not."""
        if not STORE_BINARY.exists():
            raise StoreError(f"no SeaweedFS in {STORE_BINARY.parent}: run make test-object-store")
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        identities = self._folder / "identities.json"
        identities.write_text(json.dumps(IDENTITIES))
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(STORE_BINARY), *self._flags(data, identities)],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,  # Ctrl-C must not reach the store: it is stopped after the jobs
            )
        self._wait_until_ready()

    def create_bucket(self, name: str) -> None:
        """Creates a bucket; one that is there is no error. Raises StoreError when the store refuses."""
        # SeaweedFS keeps buckets as folders of its filer.
        try:
            status, _ = ask(self._ports["filer"], "POST", f"/buckets/{name}/")
        except OSError as error:
            raise StoreError(f"bucket {name} can't be created: {error}") from error
        if status >= 400:
            raise StoreError(f"bucket {name} can't be created: the store answers {status}")

    def list_keys(self, bucket: str) -> list[str]:
        """The keys of all objects of a bucket, sorted."""
        found: list[str] = []
        folders = [""]
        while folders:
            folder = folders.pop()
            _, answer = ask(self._ports["filer"], "GET", f"/buckets/{bucket}/{folder}?limit=100000")
            entries = json.loads(answer)["Entries"] or []
            for entry in entries:
                key = entry["FullPath"].removeprefix(f"/buckets/{bucket}/")
                if entry["Mode"] & 1 << 31:
                    folders.append(f"{key}/")
                else:
                    found.append(key)
        return sorted(found)

    def requests(self) -> list[Request]:
        """The requests that it has answered, in order."""
        found = (REQUEST.search(line) for line in self._log.read_text(errors="replace").splitlines())
        return [read_request(*match.groups()) for match in found if match]

    @property
    def _log(self) -> Path:
        return self._folder / "store.log"

    def _flags(self, data: Path, identities: Path) -> list[str]:
        flags = ["-logtostderr", "-vmodule=stats=2", "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        flags += ["-filer", "-s3", f"-s3.port={self.port}", f"-s3.config={identities}"]
        flags += [f"-{name}.port={port}" for name, port in self._ports.items()]
        flags += [f"-{name}.port.grpc={port}" for name, port in self._grpc_ports.items()]
        flags += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false"]
        flags += [f"-{name}.localSocket={self._folder / name}.sock" for name in ("filer", "s3")]
        # Small volumes, as many as are needed, and no report to SeaweedFS's authors.
        flags += [
            "-master.volumeSizeLimitMB=64",
            "-volume.max=0",
            "-volume.preStopSeconds=0",
            "-master.telemetry=false",
        ]
        return flags

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            process = self.process
            if process is None or process.poll() is not None:
                raise StoreError(f"SeaweedFS ended while starting; its log: {self._last_words()}")
            if self._is_ready():
                return
            if time.monotonic() > deadline:
                self.kill()
                raise StoreError(f"SeaweedFS did not answer on {self.endpoint} in {START_TIMEOUT_SECONDS:.0f} s")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        """Whether it takes a file by way of the filer, which needs a volume, and answers as S3."""
        try:
            status, _ = ask(self._ports["filer"], "PUT", "/ready", b"ready")
            return status < 300 and ask(self.port, "GET", "/")[0] in (200, 403)
        except OSError:
            return False

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return lines[-1] if lines else "empty"

    def clean(self) -> None:
        """Stops it, and removes its temporary folder."""
        if not self._temporary:
            self.stop()
            return
        self.kill()  # it takes many seconds to shut down, for data that is removed anyway
        shutil.rmtree(self._folder, ignore_errors=True)


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and content of an answer on 127.0.0.1; raises OSError when there is none."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"Accept": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def read_request(method: str, path: str, status: str) -> Request:
    """A request as the store logs it. A GET of a bucket is a list."""
    _, _, key = path.lstrip("/").partition("/")
    return Request("LIST" if method == "GET" and not key else method, key, int(status))


def build() -> None:
    """Builds SeaweedFS into the cache folder, unless it is there; raises StoreError when Go is missing or refuses.

    It is built in the folder of the downloaded module, because that module replaces another one in its go.mod, which
    `go install` does not allow.
    """
    if STORE_BINARY.exists():
        return
    go = find_go("the object store", "1.26", StoreError)
    print(f"object store: building SeaweedFS, {STORE_MODULE} (a large program: ten minutes)", flush=True)
    with tempfile.TemporaryDirectory(prefix="store-") as scratch:
        module = json.loads(
            run_go(go, "mod", "download", "-json", STORE_MODULE, error=StoreError, folder=Path(scratch))
        )
    if module["Sum"] != STORE_SUM:
        raise StoreError(f"{STORE_MODULE} has the sum {module['Sum']}, but tools/packages.py says {STORE_SUM}")
    STORE_BINARY.parent.mkdir(parents=True, exist_ok=True)
    fresh = STORE_BINARY.with_suffix(".new")
    flags = ["-trimpath", "-ldflags=-s -w", "-o", str(fresh)]
    run_go(go, "build", *flags, "./weed", error=StoreError, folder=Path(module["Dir"]))
    fresh.rename(STORE_BINARY)


def run_in_foreground(port: int, data: Path | None, buckets: list[str]) -> None:
    """Runs a store until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ObjectStore(port, data) as store:
        for bucket in buckets:
            store.create_bucket(bucket)
        print(f"object store: ready on {store.endpoint}, buckets {buckets or 'none'}; Ctrl-C stops it")
        print(" ".join(f"--conf {name}={value}" for name, value in store.spark_settings().items()))
        print(f"--driver-class-path '{S3A_JARS}/*'", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("object store: stopping", flush=True)


def main() -> None:
    """Command line: `install` what the store needs, or `run` it in the foreground."""
    parser = argparse.ArgumentParser(description="A real S3-compatible object store on this machine, without Docker.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="build SeaweedFS with Go, and download Hadoop's file system for S3")
    run = commands.add_parser("run", help="run a store in the foreground until Ctrl-C")
    run.add_argument("--port", type=int, default=8333, help="port on 127.0.0.1 (default: 8333)")
    run.add_argument(
        "--data", type=Path, help="folder to keep objects in (default: a temporary one, removed at the end)"
    )
    run.add_argument("--bucket", action="append", default=[], metavar="NAME", help="create this bucket")
    args = parser.parse_args()
    try:
        if args.command == "install":
            build()
            fetch_jars([S3A_PACKAGE], S3A_JARS)
        else:
            run_in_foreground(args.port, args.data, args.bucket)
    except StoreError as error:
        sys.exit(f"object_store: error: {error}")


if __name__ == "__main__":
    main()
