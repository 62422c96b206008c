from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support import ROOT
from uniques.apps.count import main, parse_settings
from uniques.apps.count_flags import make_parser
from uniques.apps.count_settings import (
    CountingSettings,
    CountSettings,
    EventSettings,
    OutputSettings,
    RunningSettings,
    SourceSettings,
)
from uniques.apps.shared_flags import cluster_of
from uniques.core.counts import Counter
from uniques.core.fields import TS, UID, EventShape, TimeFormat
from uniques.kafka.properties import KafkaCluster
from uniques.kafka.subscription import Subscription

if TYPE_CHECKING:
    from pathlib import Path


def test_every_flag_has_a_default_that_works_and_the_settings_have_the_same() -> None:
    settings = parse_settings([])
    assert settings == CountSettings()
    assert settings == CountSettings(
        KafkaCluster("localhost:9092"),
        SourceSettings(Subscription(("in",)), None, "earliest", 250_000),
        EventSettings("auto", EventShape(TS, TimeFormat("auto"), (UID,)), None, None, None, 5, None),
        CountingSettings(60, None, 5, 3_600, Counter("approx_count_distinct", 0.05, 12, False)),
        OutputSettings("out", "append", 10, None, None, None),
        RunningSettings("checkpoint/unique_users", False, False, 200, 5, None, None, 2),
    )


def test_flags_say_the_shape_of_events() -> None:
    assert parse_settings(["--ts-unit", "ms"]).events.shape.time_format == TimeFormat("unix", "ms")
    assert parse_settings(["--time-format", "unix"]).events.shape.time_format == TimeFormat("unix", "s")
    shape = parse_settings(
        ["--time-field", "a.`b.c`", "--user-field", "user.id, @key", "--time-format", "dd/MMM/yyyy:HH:mm:ss Z"]
    ).events.shape
    assert shape.time.names == ("a", "b.c")
    assert [field.names for field in shape.users] == [("user", "id"), ("@key",)]
    assert shape.time_format.pattern == "dd/MMM/yyyy:HH:mm:ss Z"


def test_settings_hold_durations_in_seconds_and_what_is_off_as_none() -> None:
    flags = ["--window", "2 minutes", "--watermark", "0 seconds", "--max-future", "off", "--max-age", "1 day"]
    settings = parse_settings([*flags, "--output", "-", "--trigger", "available-now"])
    assert (settings.counting.window_seconds, settings.counting.watermark_seconds) == (120, 0)
    assert (settings.events.max_future_seconds, settings.events.max_age_seconds) == (None, 86_400)
    assert (settings.running.idle_seconds, settings.running.trigger_milliseconds) == (5, None)
    assert settings.output.topic is None
    assert parse_settings(["--idle-timeout", "off"]).running.idle_seconds is None
    assert parse_settings(["--idle-timeout", "90 seconds"]).running.idle_seconds == 90


WRONG = [
    (["--time-field", "a..b"], "--time-field: 'a..b' is not allowed: give the path of a field, such as uid or user.id"),
    (["--time-field", "a,b"], "--time-field: 'a,b' is not allowed: give the path of one field"),
    (["--time-field", "@key"], "--time-field: '@key' is not allowed: give the path of one field"),
    (["--user-field", "@key.x"], "--user-field: '@key.x' is not allowed: give the path of a field"),
    (
        ["--time-format", "rfc"],
        "--time-format: 'rfc' is not allowed: give auto, unix, iso, kafka, or a pattern such as",
    ),
    (["--ts-unit", "m"], "--ts-unit: invalid choice: 'm' (choose from"),
    (["--rsd", "0.9"], "--rsd: '0.9' is not allowed: give a number from 0.005 to 0.39"),
    (["--rsd", "abc"], "--rsd: 'abc' is not allowed: give a number from"),
    (["--rsd", "nan"], "--rsd: 'nan' is not allowed: give a number from"),
    (["--window", "1 fortnight"], "--window: '1 fortnight' is not allowed: give a whole number and seconds,"),
    (["--window", "0 seconds"], "--window: '0 seconds' is not allowed"),
    (["--window", "-1 minute"], "--window: '-1 minute' is not allowed"),
    (["--watermark", "5"], "--watermark: '5' is not allowed"),
    (["--trigger", "soon"], "--trigger: 'soon' is not allowed: give available-now or a duration such as '1 second'"),
    (["--output-mode", "complete"], "--output-mode: invalid choice: 'complete' (choose from"),
    (["--starting-offsets", "5"], "--starting-offsets: invalid choice: '5' (choose from"),
    (["--max-offsets-per-trigger", "0"], "--max-offsets-per-trigger: '0' is not allowed: give a whole number from 1"),
    (["--state-partitions", "1.5"], "--state-partitions: '1.5' is not allowed: give a whole number from 1 to 10,000"),
    (["--input-topic", "a b"], "--input-topic: 'a b' is not allowed: give one topic name"),
    (["--output-topic", ""], "--output-topic: '' is not allowed: give one topic name"),
    (["--checkpoint-location", " "], "--checkpoint-location: ' ' is not allowed: give a folder"),
    (["--consumer-group", ""], "--consumer-group: '' is not allowed: give the name of a consumer group"),
    (["--bootstrap-servers", "localhost"], "--bootstrap-servers: 'localhost' is not allowed: give host:port"),
    (["--metrics-port", "0"], "--metrics-port: '0' is not allowed: give a port from 1 to 65535, or host:port"),
    (["--metrics-port", "70000"], "--metrics-port: '70000' is not allowed"),
    (["--metrics-port", ":9108"], "--metrics-port: ':9108' is not allowed"),
    (["--metrics-port", "localhost"], "--metrics-port: 'localhost' is not allowed"),
    (["--counter", "hll"], "--counter: invalid choice: 'hll' (choose from"),
    (["--lg-k", "3"], "--lg-k: '3' is not allowed: give a whole number from 8 to 18"),
    (["--format", "xml"], "--format: invalid choice: 'xml' (choose from"),
    (["--schema-registry", "registry:8081"], "--schema-registry: give an address such as https://registry:8081"),
    (
        ["--schema-registry", "http://me:secret@registry"],
        "--schema-registry: a user does not belong in the address: give schema.registry.basic.auth.user.info in",
    ),
    (["--start-time", "yesterday"], "--start-time: 'yesterday' is not allowed: give a time such as 2016-07-11T13:39"),
    (["--end-time", "2016-07-11T13:39:00.5"], "--end-time: '2016-07-11T13:39:00.5' is not allowed"),
    (["--what"], "unrecognized arguments: --what"),
    (["--win", "1 minute"], "unrecognized arguments: --win"),
]


@pytest.mark.parametrize(("argv", "message"), WRONG, ids=[" ".join(argv) for argv, _ in WRONG])
def test_a_wrong_value_gets_one_line_and_status_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        make_parser().parse_args(argv)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("unique_users: error: ")
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--input", "x", "--user-field", "@key"],
            "@key is of a topic's records: the lines of --input have none",
        ),
        (
            ["--input", "x", "--time-format", "kafka"],
            "--time-format kafka is for a topic: the lines of --input have no arrival time",
        ),
        (["--format", "avro"], "--format avro needs a schema: give --schema-registry URL, or --schema FILE"),
        (
            ["--format", "avro", "--schema-registry", "http://r", "--schema", "x"],
            "--schema-registry and --schema: give one of them, as values have an id of their schema or not",
        ),
        (["--schema", "x"], "--schema is for --format avro and protobuf: JSON needs no schema"),
        (
            ["--format", "protobuf", "--schema", "x"],
            "--format protobuf with --schema needs --message NAME: a file may have several messages",
        ),
        (
            ["--format", "avro", "--schema", "x", "--message", "M"],
            "--message is for --format protobuf with --schema: elsewhere it is known",
        ),
        (
            ["--format", "avro", "--schema", "nowhere.avsc"],
            "--schema 'nowhere.avsc': the file can't be read (No such file or directory)",
        ),
        (
            ["--format", "avro", "--schema", "x", "--input", "y"],
            "--format avro is for a topic: the lines of --input are JSON",
        ),
        (
            ["--schema-registry", "http://r", "--input", "y"],
            "--schema-registry is for a topic: the lines of --input are JSON",
        ),
        (
            ["--time-format", "iso", "--ts-unit", "ms"],
            "--ts-unit ms is for unix times: leave out --time-format iso, or the unit",
        ),
        (
            ["--backfill", "--start-time", "2016-07-11T13:39:30"],
            "--start-time 2016-07-11T13:39:30Z cuts a window of 1 minute: give the start of a window",
        ),
        (
            ["--end-time", "2016-07-11T13:39"],
            "--end-time is for --backfill and --input: a stream has no end",
        ),
        (
            ["--backfill", "--start-time", "2016-07-12", "--end-time", "2016-07-11"],
            "--end-time 2016-07-11T00:00:00Z is not after --start-time",
        ),
        (
            ["--backfill", "--input", "-"],
            "--backfill can't go on with standard input after a restart: leave it out, or give a file",
        ),
        (
            ["--backfill", "--output-mode", "update"],
            "--output-mode update is for a stream: --backfill writes one final record a window",
        ),
        (
            ["--backfill", "--delivery", "exactly-once"],
            "--delivery exactly-once is for a stream: --backfill may write a record again, equal under its key",
        ),
        (
            ["--keep-staged"],
            "--keep-staged is for --backfill: nothing else stages events",
        ),
        (
            ["--delivery", "exactly-once", "--output", "-"],
            "--delivery exactly-once: not allowed with --input or --output -: it is about topics",
        ),
        (
            ["--output", "-", "--rejects-topic", "rejects"],
            "--rejects-topic: 'rejects' is not allowed with --output - on a stream: give an --output-topic, or --input",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_that_do_not_go_together(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"unique_users: error: {message} (see --help)\n"


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [
        ("--metrics-port", "9108", ("127.0.0.1", 9108)),
        ("--metrics-port", "0.0.0.0:9108", ("0.0.0.0", 9108)),
        ("--metrics-port", "127.0.0.1:9108", ("127.0.0.1", 9108)),
        ("--metrics-port", "[::1]:9108", ("::1", 9108)),
        ("--window", "1 minutes", 60),
        ("--window", " 90  seconds ", 90),
        ("--watermark", "0 seconds", 0),
        ("--trigger", "500 milliseconds", 500),
        ("--start-time", "2016-07-11T13:39", 1468244340),
        ("--start-time", "2016-07-11 13:39:00Z", 1468244340),
        ("--start-time", "2016-07-11T15:39+02:00", 1468244340),
        ("--start-time", "2016-07-11", 1468195200),
        ("--bootstrap-servers", "a:1, [::1]:2", "a:1,[::1]:2"),
    ],
)
def test_durations_and_servers_are_normalised(flag: str, text: str, value: object) -> None:
    assert vars(make_parser().parse_args([flag, text]))[flag[2:].replace("-", "_")] == value


def test_kafka_config_goes_to_the_client_but_the_flag_names_the_servers(tmp_path: Path) -> None:
    config = tmp_path / "client.properties"
    config.write_text("bootstrap.servers=file:1\nsecurity.protocol=SSL\n")
    parser = make_parser()
    from_file = cluster_of(parser, parser.parse_args(["--kafka-config", str(config)]))
    from_flag = cluster_of(parser, parser.parse_args(["--kafka-config", str(config), "--bootstrap-servers", "flag:2"]))
    assert (from_file.bootstrap_servers, from_flag.bootstrap_servers) == ("file:1", "flag:2")
    assert from_file.properties == {"security.protocol": "SSL"}
    assert from_flag.options({"fetch.max.bytes": "1"}) == {
        "kafka.bootstrap.servers": "flag:2",
        "kafka.security.protocol": "SSL",
        "kafka.fetch.max.bytes": "1",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "can't be read (No such file or directory)"),
        ("secret-word", "line 1 must be name=value"),
        ("key.deserializer=x", "key.deserializer is set by Spark"),
    ],
)
def test_a_wrong_kafka_config_gets_one_line_without_its_secrets(
    text: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "client.properties"
    if text is not None:
        config.write_text(text)
    parser = make_parser()
    with pytest.raises(SystemExit) as ended:
        cluster_of(parser, parser.parse_args(["--kafka-config", str(config)]))
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("unique_users: error: argument --kafka-config: ")
    assert message in said
    assert said.count("\n") == 1
    assert "secret-word" not in said


@pytest.mark.parametrize("job", ["unique_users", "rollup_users"])
@pytest.mark.parametrize("flags", [["--bad"], ["--trigger", "soon"], ["--bootstrap-servers", "nowhere"]])
def test_a_wrong_flag_gets_its_line_before_spark_is_imported(job: str, flags: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", str(ROOT / "jobs" / f"{job}.py"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    said = [line for line in lines if not line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert done.returncode == 2
    assert len(said) == 1
    assert said[0].startswith(f"{job}: error: ")
    assert f"uniques.apps.{'count' if job == 'unique_users' else 'rollup'}_flags" in imported
    assert not {"pyspark", "py4j", "uniques.runtime.session"} & imported
