"""Kafka with TLS, SASL/SCRAM and ACLs: the job works with the documented rights, and no secret gets out."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kafka_broker import KafkaBroker
from kafka_security import STORE_PASSWORD, add_user, allow, deny, describe_client, make_stores
from load_events import load_lines
from support import (
    ROOT,
    SPARK_SUBMIT,
    assert_close,
    count_exactly,
    find_group,
    make_events,
    plain_environment,
    read_messages,
    read_records,
    wait_until,
)
from uniques.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support import InProcess

LOG4J = f"-Dlog4j2.configurationFile={(ROOT / 'conf' / 'log4j2.properties').as_uri()}"
PASSWORD = "correct-horse-battery"
TOPICS = {"in": 2, "out": 1, "rejects": 1}


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaBroker]:
    """A broker whose user `job` has the documented rights, and whose user `reader` may write nowhere."""
    with KafkaBroker(secure=True) as running:
        for topic, partitions in TOPICS.items():
            running.create_topic(topic, partitions)
        add_user(running.bootstrap_servers, "job", PASSWORD)
        for right in documented_acls():
            allow(running.bootstrap_servers, "job", *right)
        add_user(running.bootstrap_servers, "reader", PASSWORD)
        for topic in TOPICS:
            allow(running.bootstrap_servers, "reader", "Read", "topic", topic)
        add_user(running.bootstrap_servers, "nobody", PASSWORD)
        add_user(running.bootstrap_servers, "plain", PASSWORD)
        for operation, topic in (("Read", "in"), ("Write", "out"), ("Read", "out")):
            allow(running.bootstrap_servers, "plain", operation, "topic", topic)
        yield running


def documented_acls() -> Iterator[tuple[str, str, str, bool]]:
    """What the `kafka-acls` commands of the documentation allow the user `job`, as `allow` takes it."""
    for command in re.findall(
        r"^kafka-acls (?:.*\\\n)*.*$", (ROOT / "docs" / "deploy" / "security.md").read_text(), re.MULTILINE
    ):
        words = shlex.split(command.replace("\\\n", " "), comments=True)
        flags = list(pairwise(words))
        assert ("--allow-principal", "User:job") in flags
        prefixed = ("--resource-pattern-type", "prefixed") in flags
        operations = [value for flag, value in flags if flag == "--operation"]
        for flag, name in flags:
            if flag in ("--topic", "--group", "--transactional-id"):
                yield from ((operation, flag.removeprefix("--"), name, prefixed) for operation in operations)


def write_config(folder: Path, broker: KafkaBroker, user: str = "job", password: str = PASSWORD) -> Path:
    config = folder / "client.properties"
    config.write_text(describe_client(broker.truststore, user, password))
    return config


def read_arguments(group: int) -> str:
    """The command lines of all processes of a process group."""
    lines = [Path(f"/proc/{process}/cmdline").read_text() for process in find_group(group)]
    assert len(lines) >= 2  # the JVM and Python
    return "\n".join(lines)


def read_pages(ui: str) -> dict[str, str]:
    """The pages of Spark's UI, and what its REST interface says, that could show options."""
    pages = ["/environment/", "/SQL/", "/StreamingQuery/", "/jobs/", "/api/v1/applications"]
    found = {page: read_page(ui + page) for page in pages}
    (application,) = json.loads(found["/api/v1/applications"])
    rest = f"/api/v1/applications/{application['id']}"
    for page in (
        f"{rest}/environment",
        f"{rest}/sql?details=true&planDescription=true&length=100",
        "/SQL/execution/?id=3",
    ):
        found[page] = read_page(ui + page)
    return found


def read_page(address: str) -> str:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return str(answer.read().decode())


def find_ui(log: Path) -> str:
    """Where Spark said that its UI is."""
    found = re.search(r"Successfully started service 'SparkUI' on port (\d+)", log.read_text())
    assert found
    return f"http://127.0.0.1:{found[1]}"


def test_no_secret_gets_out_of_a_run_over_tls_with_the_rights_of_the_readme(
    broker: KafkaBroker, tmp_path: Path
) -> None:
    events = make_events(events=6_000, rate=50)
    load_lines((event.line for event in events), broker.bootstrap_servers, "in")
    folders = {name: tmp_path / name for name in ("checkpoint", "events", "logs")}
    for folder in folders.values():
        folder.mkdir()
    log4j = folders["logs"] / "log4j2.properties"
    # All that Spark and Kafka say, not only what the job's own settings let through.
    loud = re.sub(r"level = \w+", "level = info", (ROOT / "conf" / "log4j2.properties").read_text())
    log4j.write_text(loud + "logger.edges.name = org.apache.spark.sql.kafka010\nlogger.edges.level = debug\n")
    config = write_config(tmp_path, broker)
    settings = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": folders["events"].as_uri(),
        "spark.eventLog.compress": "false",
        "spark.ui.enabled": "true",
        "spark.ui.port": "0",
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={log4j.as_uri()}",
    }
    command = [str(SPARK_SUBMIT), *(word for name, value in settings.items() for word in ("--conf", f"{name}={value}"))]
    command += [str(ROOT / "jobs" / "unique_users.py"), "--kafka-config", str(config), "--rejects-topic", "rejects"]
    command += ["--bootstrap-servers", broker.secure_bootstrap_servers, "--consumer-group", "unique-users"]
    command += ["--checkpoint-location", str(folders["checkpoint"]), "--summary", str(tmp_path / "summary.json")]
    command += ["--idle-timeout", "2 seconds"]
    with (folders["logs"] / "stderr").open("w+") as stderr:
        process = subprocess.Popen(
            command, stdout=stderr, stderr=stderr, env=plain_environment(), start_new_session=True, cwd=tmp_path
        )
        try:
            exact = count_exactly(events)
            wait_until(lambda: len(read_records(broker, "out")) >= len(exact), lambda: process.poll() is None)
            seen = {"argv": read_arguments(process.pid)}
            seen |= read_pages(find_ui(folders["logs"] / "stderr"))
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
    for key, value in read_records(broker, "out"):
        assert_close(value, exact[key])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(read_messages(broker, "rejects")) == sum(summary["rejected_by_reason"].values()) > 0

    for folder in folders.values():
        seen |= {str(path): path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()}
    said = seen[str(folders["logs"] / "stderr")]
    assert "batch=" in said
    assert "ProducerConfig values" in said  # Kafka did say what it was configured with
    assert any(name.startswith(str(folders["events"])) and "unique_users" in text for name, text in seen.items())
    assert any("spark.app.id" in text for name, text in seen.items() if name.endswith("/environment"))
    leaks = [name for name, text in seen.items() if PASSWORD in text or STORE_PASSWORD in text]
    assert leaks == []


REFUSED = {
    "wrong password": ("job", "wrong", "{kafka} refused the login: check the credentials in --kafka-config"),
    "unknown user": ("who", PASSWORD, "{kafka} refused the login: check the credentials in --kafka-config"),
    "unknown CA": (
        "job",
        PASSWORD,
        "the TLS handshake with {kafka} failed: check the trust and key store in --kafka-config",
    ),
    "no trust store": (
        "job",
        PASSWORD,
        "a trust or key store of --kafka-config can't be opened: check its path, password and type",
    ),
    "JAAS line that is none": (
        "job",
        'x" y',
        "sasl.jaas.config of --kafka-config can't be read: check its quotes and the semicolon",
    ),
    "no rights": ("nobody", PASSWORD, "{kafka} does not let the job use topic 'in': check the ACLs of the topic"),
    "no right to write": (
        "reader",
        PASSWORD,
        (
            "{kafka} does not let the job write topic 'out': give it the right (kafka-acls --add --allow-principal "
            "User:NAME --operation Write --topic out)"
        ),
    ),
    "no right to write transactions": (
        "plain",
        PASSWORD,
        (
            "{kafka} does not let the job write transactions: give it the right (kafka-acls --add --allow-principal "
            "User:NAME --operation Write --operation Describe --transactional-id unique_users- "
            "--resource-pattern-type prefixed), or --delivery at-least-once"
        ),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_kafka_refuses_gets_one_line(broker: KafkaBroker, tmp_path: Path, case: str) -> None:
    user, password, reason = REFUSED[case]
    config = write_config(tmp_path, broker, user, password)
    if case == "unknown CA":
        make_stores(tmp_path / "other")
        config.write_text(config.read_text().replace(str(broker.truststore), str(tmp_path / "other/truststore.p12")))
    if case == "no trust store":
        config.write_text(config.read_text().replace("truststore.p12", "no-such.p12"))
    flags = ["--bootstrap-servers", broker.secure_bootstrap_servers, "--kafka-config", str(config)]
    flags += ["--checkpoint-location", str(tmp_path / "checkpoint")]
    command = [str(SPARK_SUBMIT), "--conf", "spark.ui.enabled=false", "--driver-java-options", LOG4J]
    command += [str(ROOT / "jobs" / "unique_users.py"), *flags]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=plain_environment()
    )
    said = [line for line in done.stdout.splitlines() if "incubator" not in line and "arrival times" not in line]
    kafka = f"Kafka at {broker.secure_bootstrap_servers}"
    assert said == [f"unique_users: error: {reason.format(kafka=kafka)}"]
    assert done.returncode == 1


@pytest.mark.parametrize(("operation", "topic"), [("Read", "in"), ("Write", "out")])
def test_a_right_that_is_taken_away_ends_the_query_with_one_line(
    job: InProcess, broker: KafkaBroker, tmp_path: Path, operation: str, topic: str
) -> None:
    source, sink = f"in-{operation}", f"out-{operation}"
    for name in (source, sink):
        broker.create_topic(name)
    for right, name in (("Read", source), ("Write", sink), ("Read", sink)):
        allow(broker.bootstrap_servers, "job", right, "topic", name)
    load_lines([b'{"ts":1468244384,"uid":"a"}'], broker.bootstrap_servers, source)
    flags = [
        "--bootstrap-servers",
        broker.secure_bootstrap_servers,
        "--kafka-config",
        str(write_config(tmp_path, broker)),
    ]
    flags += ["--input-topic", source, "--output-topic", sink, "--checkpoint-location", str(tmp_path / "checkpoint")]
    flags += ["--trigger", "100 milliseconds", "--idle-timeout", "1 second"]
    with ThreadPoolExecutor() as pool:
        running = pool.submit(job.run, *flags)
        wait_until(lambda: read_records(broker, sink) != [], lambda: not running.done())
        deny(broker.bootstrap_servers, "job", operation, "topic", f"{topic}-{operation}")
        load_lines([b'{"ts":1468244444,"uid":"a"}'], broker.bootstrap_servers, source)
        with pytest.raises(JobError) as failed:
            running.result(120)
    # Spark reads, the driver writes: only the latter knows the servers.
    who = "the query failed: Kafka" if operation == "Read" else f"Kafka at {broker.secure_bootstrap_servers}"
    assert str(failed.value) == (
        f"{who} does not let the job use topic '{topic}-{operation}': check the ACLs of the topic"
    )


def test_the_inspector_reads_with_the_client_properties_of_the_job(broker: KafkaBroker, tmp_path: Path) -> None:
    lines = [json.dumps({"at": 1468244384 + i, "user_id": f"u{i % 9}"}).encode() for i in range(50)]
    broker.create_topic("inspected", 1)
    allow(broker.bootstrap_servers, "reader", "Read", "topic", "inspected")
    load_lines(lines, broker.bootstrap_servers, "inspected")
    config = write_config(tmp_path, broker, "reader")
    done = inspect(config, "--bootstrap-servers", broker.secure_bootstrap_servers)
    assert done.returncode == 0, done.stderr
    assert "of these 50 it counts 50, of 9 users; filters 0; rejects 0" in done.stdout
    assert f"--bootstrap-servers {broker.secure_bootstrap_servers} --kafka-config {config} --input-topic inspected" in (
        done.stdout.replace(" \\\n   ", "")
    )
    assert PASSWORD not in done.stdout + done.stderr
    # The servers may be in the file, as for the job.
    config.write_text(f"bootstrap.servers={broker.secure_bootstrap_servers}\n{config.read_text()}")
    assert "counts 50" in inspect(config).stdout


@pytest.mark.parametrize(
    ("user", "password", "store_password", "says"),
    [
        ("reader", "wrong-horse", STORE_PASSWORD, "Kafka at "),
        ("nobody", PASSWORD, STORE_PASSWORD, "topic 'inspected' may not be read by this user"),
        ("reader", PASSWORD, "wrong-store", "ssl.truststore.location: keytool reads no certificate"),
    ],
)
def test_what_kafka_refuses_the_inspector_gets_one_line(
    broker: KafkaBroker, tmp_path: Path, user: str, password: str, store_password: str, says: str
) -> None:
    config = write_config(tmp_path, broker, user, password)
    config.write_text(config.read_text().replace(STORE_PASSWORD, store_password))
    done = inspect(config, "--bootstrap-servers", broker.secure_bootstrap_servers)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not any(secret in done.stderr for secret in (password, store_password))


def inspect(config: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "inspect_topic.py"), "--kafka-config", str(config)]
    return subprocess.run([*command, "--topic", "inspected", *flags], capture_output=True, text=True, check=False)
