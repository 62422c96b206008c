"""The service on tables that the rollup job has really written, with Spark."""

from __future__ import annotations

import json
import random
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from load_events import load_lines
from service_tables import TOTAL, Group, Tables, draw_minutes
from support import ROOT, SPARK_SUBMIT, plain_environment
from test_questions import assert_right, open_store
from test_topics import make_record
from unique_users_service.calendar import Calendar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kafka_broker import KafkaBroker

FIRST = 1476918000  # 2016-10-19T23:00:00Z
GROUPS: list[Group] = [('{"country":"CH"}', False), ('{"country":null}', False), ('{"country":null}', True)]


def run_rollups(broker: KafkaBroker, folder: Path, source: str) -> None:
    flags = ["--bootstrap-servers", broker.bootstrap_servers, "--input-topic", source, "--rollup-topic", "off"]
    flags += [
        "--minutes-table",
        f"{folder}/minutes",
        "--rollups-table",
        f"{folder}/rollups",
        "--trigger",
        "available-now",
    ]
    flags += ["--checkpoint-location", f"{folder}/checkpoint", "--timezone", "Europe/Zurich"]
    command = [str(SPARK_SUBMIT), "--conf", "spark.ui.enabled=false", "jobs/rollup_users.py", *flags]
    done = subprocess.run(command, cwd=ROOT, env=plain_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]


@pytest.mark.slow
def test_tables_of_the_job_with_deletion_vectors_are_read_right(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    tables, out, draw = Tables(tmp_path, zone="Europe/Zurich"), new_topic("out"), random.Random(3)
    minutes = draw_minutes(FIRST, 600, 41 * 60)  # over the end of summer time
    for key in GROUPS:
        minutes += [replace(minute, group=key) for minute in draw_minutes(FIRST, 200, 123 * 60, seed=len(key[0] or ""))]
    corrected = [
        replace(minute, users=[*minute.users, "late1", "late2"], revision=1) for minute in draw.sample(minutes, 90)
    ]
    load_lines([make_record(minute) for minute in minutes], broker.bootstrap_servers, out)
    run_rollups(broker, tmp_path, out)
    tables.minutes |= {(minute.group, minute.start): minute for minute in minutes}
    store = open_store(tables)
    assert store.problem is None
    assert store.state.calendar == Calendar("Europe/Zurich", "monday")
    pages = store.state.pages

    load_lines([make_record(minute) for minute in corrected], broker.bootstrap_servers, out)
    run_rollups(broker, tmp_path, out)
    tables.minutes |= {(minute.group, minute.start): minute for minute in corrected}
    logs = [json.loads(line) for log in (tmp_path / "minutes" / "_delta_log").glob("*.json") for line in log.open()]
    assert any(action.get("add", {}).get("deletionVector") for action in logs)

    assert store.refresh()
    assert store.state.pages is pages  # the changes alone were read
    for state in (store.state, open_store(tables).state):
        for _ in range(100):
            start = FIRST + 60 * draw.randrange(24_000)
            key = draw.choice([TOTAL, *GROUPS])
            assert_right(tables, state, start, start + 60 * draw.choice([1, 60, 1_000, 20_000]), key)
        for key in (TOTAL, *GROUPS):
            assert_right(tables, state, FIRST - 400 * 86_400, FIRST + 400 * 86_400, key)
    assert not store._derived
