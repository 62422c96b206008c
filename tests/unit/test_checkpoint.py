from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from uniques import __version__
from uniques.apps.count import parse_settings
from uniques.apps.fixed_parameters import IMPLIED_PARAMETERS, list_fixed_parameters
from uniques.errors import JobError, UsageError
from uniques.runtime.failures import JVM_ENDED, explain_failure
from uniques.state.checkpoint import report_damage
from uniques.state.manifest import compare_parameters, read_parameters
from uniques.state.punctuation import relocate_entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession

MADE_BY_0_1_0 = {
    "--input-topic": "in",
    "--window": "1 minute",
    "--rsd": "0.02",
    "--output-mode": "append",
    "--state-partitions": "2",
    "--rejects-topic": "off",
}


@pytest.mark.parametrize(
    ("made_with", "differences"),
    [
        ({"version": "9.9", "--old": "1"}, []),
        ({"--old": "1"}, []),  # made before there was --new and before the version was noted
        ({"--old": "2"}, ["--old 2 (now 1)"]),
        ({"--old": "1", "--new": "other"}, ["--new other (now before)"]),
        ({"--old": "2", "--new": "other"}, ["--old 2 (now 1)", "--new other (now before)"]),
        ({}, ["--old unset (now 1)"]),
        ({"--old": "1", "--newer": "x"}, [f"--newer x (unknown to version {__version__})"]),
    ],
)
def test_every_difference_is_listed(made_with: dict[str, str], differences: list[str]) -> None:
    parameters = {"--old": "1", "--new": "before"}
    assert compare_parameters(made_with, parameters, implied={"--new": "before"}) == differences


def test_a_flag_that_the_first_release_had_not_is_not_taken_for_a_difference() -> None:
    defaults = list_fixed_parameters(parse_settings(["--rsd", "0.02"]))  # the default then
    assert compare_parameters(MADE_BY_0_1_0, defaults, IMPLIED_PARAMETERS) == []


NO_STATE = "[CANNOT_LOAD_STATE_STORE.UNCATEGORIZED] An error occurred during loading state."
WHOLE = 'v1\n{"batchWatermarkMs":0}\n-\n{"in":{"0":5}}'


@pytest.mark.parametrize(
    ("offsets", "commits", "last_commit", "reason", "damaged"),
    [
        (WHOLE[:-3], "v1\n{}", 6, "x", "offsets/7 is damaged: delete offsets/7 in"),
        (WHOLE[:-3], "v1\n{}", 7, "x", "offsets/7 is damaged: delete offsets/7 and commits/7 in"),
        ("", "v1\n{}", 6, "x", "offsets/7 is damaged: delete offsets/7 in"),
        ("v1\n", "v1\n{}", 6, "x", "offsets/7 is damaged: delete offsets/7 in"),
        (WHOLE, "v1\n{", 6, "x", "commits/6 is damaged: delete commits/6 in"),
        (WHOLE, "", 7, "x", "commits/7 is damaged: delete commits/7 in"),
        (WHOLE, "v1\n{}", 7, NO_STATE, "the state of batch 7 is damaged: delete commits/7 in"),
        (WHOLE, "v1\n{}", 6, NO_STATE, "the state of batch 6 is damaged: delete commits/6 and offsets/7 in"),
    ],
)
def test_a_damaged_checkpoint_is_named_with_the_way_out(
    spark: SparkSession, tmp_path: Path, offsets: str, commits: str, last_commit: int, reason: str, damaged: str
) -> None:
    files = (
        ("offsets", 7, offsets),
        ("offsets", 6, WHOLE),
        ("commits", last_commit, commits),
        ("commits", 5, "v1\n{}"),
    )
    for log, number, content in files:
        (tmp_path / "query" / log).mkdir(parents=True, exist_ok=True)
        (tmp_path / "query" / log / str(number)).write_text(content)
    with pytest.raises(UsageError) as refused, report_damage(spark, str(tmp_path)):
        raise JobError("the query failed") from RuntimeError(reason)
    assert str(refused.value) == (
        f"--checkpoint-location {tmp_path}: {damaged} {tmp_path / 'query'}, with the .crc file of each; the next start "
        "does the batch again"
    )


def test_a_duration_of_an_earlier_release_is_compared_by_its_length() -> None:
    made_with = {**list_fixed_parameters(parse_settings([])), "--window": "60 seconds"}
    assert compare_parameters(made_with, list_fixed_parameters(parse_settings([])), {}) == []
    longer = list_fixed_parameters(parse_settings(["--window", "2 minutes"]))
    assert compare_parameters(made_with, longer, {}) == ["--window 60 seconds (now 2 minutes)"]


class RefusingStore(BaseHTTPRequestHandler):
    """A WebHDFS server that lists a checkpoint and refuses to open its files, as a store without rights does."""

    def do_GET(self) -> None:
        path, _, query = self.path.removeprefix("/webhdfs/v1").partition("?")
        operation = dict(pair.split("=") for pair in query.split("&") if "=" in pair)["op"]
        folder = not path.rpartition("/")[2].isdigit()
        status: dict[str, object] = {
            "accessTime": 0, "blockSize": 1024, "childrenNum": 0, "fileId": 1, "group": "g", "modificationTime": 0,
            "owner": "o", "pathSuffix": "", "permission": "755", "replication": 1, "storagePolicy": 0,
            "length": 0 if folder else 20, "type": "DIRECTORY" if folder else "FILE",
        }  # fmt: skip
        if operation == "GETFILESTATUS":
            self.answer(200, {"FileStatus": status})
        elif operation == "LISTSTATUS" and folder:
            file = {**status, "type": "FILE", "length": 20, "pathSuffix": "7"}
            self.answer(200, {"FileStatuses": {"FileStatus": [file]}})
        elif operation == "LISTSTATUS":
            self.answer(200, {"FileStatuses": {"FileStatus": [status]}})
        else:
            refusal = {"exception": "AccessControlException", "message": "Permission denied: user=job, access=READ"}
            refusal["javaClassName"] = "org.apache.hadoop.security.AccessControlException"
            self.answer(403, {"RemoteException": refusal})

    def answer(self, status: int, body: dict[str, object]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_args: object) -> None:
        """Says nothing."""


@pytest.fixture
def refusing_store() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), RefusingStore) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"webhdfs://127.0.0.1:{server.server_port}/checkpoint"
        server.shutdown()


def test_a_checkpoint_that_can_not_be_read_is_not_called_damaged(spark: SparkSession, refusing_store: str) -> None:
    with pytest.raises(JobError, match=r"^the query failed: first$") as failed, report_damage(spark, refusing_store):
        raise JobError("the query failed: first")
    assert failed.value.status == 1
    with pytest.raises(JobError, match=r"^webhdfs://.*/parameters can't be read: .+") as refused:
        read_parameters(spark, refusing_store)
    assert refused.value.status == 1
    assert "\n" not in str(refused.value)


def test_state_that_the_store_refuses_is_not_called_damaged(spark: SparkSession, tmp_path: Path) -> None:
    for log in ("offsets", "commits"):
        (tmp_path / "query" / log).mkdir(parents=True)
        (tmp_path / "query" / log / "7").write_text(WHOLE)
    refused = f"{NO_STATE} Caused by: java.nio.file.AccessDeniedException: s3a://bucket: Forbidden (403)"
    with pytest.raises(JobError, match=r"^the query failed$") as failed, report_damage(spark, str(tmp_path)):
        raise JobError("the query failed") from RuntimeError(refused)
    assert failed.value.status == 1


def test_a_failure_with_a_whole_checkpoint_stays_what_it_is(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"^the query failed$"), report_damage(spark, str(tmp_path)):
        raise JobError("the query failed")


GONE = (
    "events of the input topic are gone before they were read: retention removed them, the topic was deleted and "
    "created again, or a broker that lacked them became the leader (unclean leader election); take another "
    "--checkpoint-location, which starts with what there is"
)
FULL = (
    "no space left on the disk of --checkpoint-location or of Spark's local folders: make room, then start the job "
    "again; it continues where it was"
)
MEMORY = (
    "out of memory: lower --max-offsets-per-trigger, or give more (spark-submit --driver-memory 2g, on a cluster "
    "--executor-memory)"
)


@pytest.mark.parametrize(
    ("message", "status", "said"),
    [
        ("Query [id = a] terminated with: Some data may have been lost because they\n either", 2, GONE),
        ("[FOREACH_BATCH_USER_FUNCTION_ERROR] An\nCaused by: No space left on device", 1, FULL),
        ("[FOREACH_BATCH_USER_FUNCTION_ERROR] An\nPy4JJavaError: An error\n: a.X: aborted\n\tat x", 1, "a.X: aborted"),
        ("[STREAM_FAILED] first\nsecond", 1, "[STREAM_FAILED] first"),
        ("[STREAM_FAILED] first\nCaused by: java.lang.OutOfMemoryError: Java heap space", 1, MEMORY),
        ("Job aborted: ExecutorLostFailure (executor 3 exited caused by\nCommand exited with code 52", 1, MEMORY),
    ],
    ids=["data loss", "full disk", "in foreachBatch", "unknown", "memory of the driver", "memory of an executor"],
)
def test_why_a_query_failed_is_one_line_with_the_way_out(message: str, status: int, said: str) -> None:
    error = explain_failure(message)
    assert (error.status, str(error)) == (status, f"the query failed: {said}")


def test_an_error_of_java_without_a_message_means_that_the_jvm_ended() -> None:
    assert str(explain_failure("An error occurred while calling o323.collectToPython.")) == JVM_ENDED


def test_another_size_of_sketches_is_a_difference_where_there_are_sketches() -> None:
    def fixed(*flags: str) -> dict[str, str]:
        return list_fixed_parameters(parse_settings(flags))

    for flags in (("--sketch",), ("--counter", "hll_sketch")):
        differences = compare_parameters(fixed(*flags), fixed(*flags, "--lg-k", "14"), {})
        assert differences == ["--lg-k 12 (now 14)"]
    assert compare_parameters(fixed(), fixed("--lg-k", "14"), {}) == []


def test_an_entry_of_punctuation_is_found_where_the_checkpoint_is_now() -> None:
    entry = '{"path":"file:///old%20place/punctuation/a.txt","timestamp":1,"batchId":0}'
    moved = '{"path":"s3a://bucket/new/punctuation/a.txt","timestamp":1,"batchId":0}'
    assert relocate_entry(entry, "s3a://bucket/new/punctuation") == moved
    assert relocate_entry(entry, "file:/old%20place/punctuation") == entry
    for other in ("v1", "", '{"in":{"0":1}}', "[1]", '{"path":{"0":1}}'):
        assert relocate_entry(other, "s3a://bucket/new/punctuation") == other
