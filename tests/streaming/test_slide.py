"""Hopping windows: each has all its events, and the accounting counts each event once."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from load_events import load_lines
from support import InProcess, read_records, utc
from uniques.apps.count import parse_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from kafka_broker import KafkaBroker

START = 1_700_000_100  # of five minutes


def make_lines(events: Iterable[tuple[int, str, str]]) -> list[bytes]:
    return [json.dumps({"ts": ts, "uid": uid, "app": app}).encode() for ts, uid, app in events]


def test_a_window_every_minute_has_the_events_of_five(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    draw = random.Random(1)
    times = sorted(START + draw.randrange(1_200) for _ in range(3_000))
    events = [(ts, f"u{draw.randrange(200)}", draw.choice("ab")) for ts in times]
    source, sink = new_topic("in"), new_topic("out")
    load_lines(make_lines(events), broker.bootstrap_servers, source)
    flags = ["--input-topic", source, "--output-topic", sink, "--window", "5 minutes", "--slide", "1 minute"]
    flags += ["--by", "app", "--counter", "exact", "--trigger", "available-now", "--max-offsets-per-trigger", "700"]
    summary = tmp_path / "summary.json"
    job.run(*flags, "--checkpoint-location", str(tmp_path / "checkpoint"), "--summary", str(summary))
    users = defaultdict(list)
    for ts, uid, app in events:
        for start in range(ts // 60 * 60 - 240, ts // 60 * 60 + 60, 60):
            users[utc(start)].append(uid)
            users[f'{utc(start)} {{"app":"{app}"}}'].append(uid)
    found: dict[str, Any] = dict(read_records(broker, sink, "read_committed"))
    exact = {key: (len(set(of)), len(of)) for key, of in users.items()}
    assert {key: (value["unique_users"], value["events"]) for key, value in found.items()} == exact
    told = json.loads(summary.read_text())
    assert (told["read"], told["counted"], told["late"], told["in_open_windows"]) == (3_000, 3_000, 0, 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--window", "5 minutes", "--slide", "2 minutes"], "--slide 2 minutes is no part of --window 5 minutes"),
        (["--slide", "2 minutes"], "--slide 2 minutes is no part of --window 1 minute"),
        (["--window", "5 minutes", "--slide", "1 minute", "--backfill"], "--slide: not allowed with --backfill"),
    ],
)
def test_windows_that_can_not_be_are_refused(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_settings(flags)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
