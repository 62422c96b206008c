"""The object store of the tests, without the store: its versions, its log, and what is said where Go is missing."""

from __future__ import annotations

from pathlib import Path

import object_store
import packages
import pyspark
import pytest
from jar_lock import find_jars
from object_store import Request, StoreError, read_request


def test_the_file_system_for_s3_is_of_the_hadoop_that_spark_has() -> None:
    version = packages.S3A_PACKAGE.rpartition(":")[2]
    assert (Path(pyspark.__file__).parent / "jars" / f"hadoop-client-api-{version}.jar").exists()
    assert f"hadoop-aws-{version}.jar" in find_jars([packages.S3A_PACKAGE])


@pytest.mark.parametrize(
    ("method", "path", "request_"),
    [
        ("PUT", "/uniques/a/b", Request("PUT", "a/b", 200)),
        ("GET", "/uniques/a", Request("GET", "a", 200)),
        ("GET", "/uniques/", Request("LIST", "", 200)),
        ("GET", "/uniques", Request("LIST", "", 200)),
        ("HEAD", "/uniques", Request("HEAD", "", 200)),
    ],
)
def test_a_get_of_a_bucket_is_a_list(method: str, path: str, request_: Request) -> None:
    assert read_request(method, path, "200") == request_


def test_a_line_of_the_log_is_read_and_others_are_not() -> None:
    line = 'I1128 02:00:58.316837 stats.go:42 "jobs" PUT "/uniques/exp/cond" 412 2.699277ms'
    match = object_store.REQUEST.search(line)
    assert match
    assert match.groups() == ("PUT", "/uniques/exp/cond", "412")
    assert not object_store.REQUEST.search("I1128 02:00:58.316837 node.go:224 topo failed to pick 1")


def test_go_that_is_missing_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "STORE_BINARY", tmp_path / "weed")
    monkeypatch.setattr("go_programs.shutil.which", lambda *_, **__: None)
    with pytest.raises(StoreError, match=r"^Go is not there, which builds the object store: install Go 1\.26 or newer"):
        object_store.build()


def test_another_module_than_the_pinned_one_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "STORE_BINARY", tmp_path / "weed")
    monkeypatch.setattr(object_store, "find_go", lambda *_: "go")
    monkeypatch.setattr(object_store, "run_go", lambda *_, **__: '{"Sum": "h1:other", "Dir": "/nowhere"}')
    with pytest.raises(StoreError, match=r"has the sum h1:other, but tools/packages\.py says h1:LOYZ"):
        object_store.build()
