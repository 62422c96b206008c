"""The job beside other engines that do the same work on the same topic: `make bench ARGS=engines`.

Every engine is started as its user starts it, by itself, and works off JSON events of 2 kB from two partitions: the
unique users of every minute of event time, with 5 s of disorder, as JSON to an output topic of its own. All of them
follow the same rules: `ts` whole seconds, as a number or a string, at most 5 s ahead of the arrival; `uid` not empty;
anything else is skipped. The programs of the other engines stand in `others/`; what they need is fetched into `.cache/`
when it is first asked for.

A rate is taken between two runs, on a small topic and on the whole one: events more over seconds more. So start-up,
compilation of the plan, and waiting for the end fall out, and stand by themselves as the time of the small one. A run
lasts from the start of its process until the broker has its last result.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import tokenize
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from generate_events import Settings, generate_events
from install_spark import resolve_package
from kafka_broker import KafkaBroker
from load_events import load_lines
from packages import CACHE
from report import make_table, save_bars, show_spread
from rows import ratios, say
from truth import WINDOW_SECONDS, Truth, compare_results, flip_times, name_window, read_leniently
from uniques.core.events import REJECT_REASONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rows import Recorder, Row
    from truth import Bounds, Verdict

PACKAGES = ("confluent-kafka", "msgspec")

ROOT = Path(__file__).resolve().parent.parent
JOB = ROOT / "jobs" / "unique_users.py"
OTHERS = Path(__file__).resolve().parent / "others"
SPARK_SUBMIT = Path(sys.executable).parent / "spark-submit"
VENVS = CACHE / "engines"

FLINK = "apache-flink==2.3.0"
FLINK_CONNECTOR = "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2"
QUIX = "quixstreams==3.28.1"
STREAMS = "org.apache.kafka:kafka-streams:4.1.1"
# As much as Spark gives its driver, and the collector that docs/guides/tuning.md advises for so little.
COLLECTOR = "-XX:+UseParallelGC"
JAVA_OPTIONS = ("-Xmx1g", COLLECTOR)

# Of the events, where all of them would take too long.
SLOW_PART = 0.3
# The events of a topic go on for so long after its last window that is compared: enough to close it.
TAIL_SECONDS = 20
SAMPLE_SECONDS = 0.5
LIMIT_SECONDS = 900.0
STOP_SECONDS = 20.0
# Of approx_count_distinct with the job's 2 %: two and a half standard errors.
TOLERANCE = 0.05
AWKWARD_BATCHES = 5

JOB_NAME = "job"
FAST_NAME = "job, --counter hll_sketch --exactly-once, batches of 1 M"
FROM_JSON_NAME = "job, --json-parser spark"
FLINK_NAME = "Flink SQL"
QUIX_NAME = "Quix Streams"
PLAIN_NAME = "plain Python"
STREAMS_NAME = "Kafka Streams"

# The flags of each way to run the job.
JOB_WAYS = {
    JOB_NAME: (),
    FAST_NAME: ("--counter", "hll_sketch", "--max-offsets-per-trigger", "1000000"),
}
# Behind its name: other engine, and by how much the fast path has to be faster.
PROMISES = {FLINK_NAME: 1.5, QUIX_NAME: 5.0}

AS_GENERATED = "as generated"
FLIPPED = "1 bit of ts flipped in 1 of 500"

# What each awkward topic holds instead of the benchmark's events.
AWKWARD: dict[str, Callable[[Settings], Settings]] = {
    "nothing awkward": lambda settings: settings,
    "5 % late by 5 minutes": partial(replace, late=0.05, late_by=300.0),
    "all shuffled within 5 s": partial(replace, delayed=1.0, max_delay=5.0),
    "every ts a string": partial(replace, string_ts=1.0),
    "5 % malformed": partial(replace, malformed=0.05),
    FLIPPED: lambda settings: settings,
}

# What each engine's program here does; a reader can check every word in `others/` and in the job's documentation.
FEATURES = (
    ("", JOB_NAME, PLAIN_NAME, QUIX_NAME, FLINK_NAME, STREAMS_NAME),
    (
        "a result in the output topic",
        "once",
        "whatever was sent before it ended",
        "at least once",
        "once",
        "once",
    ),
    (
        "killed, it goes on",
        "from its checkpoint",
        "no: starts over, and writes all again",
        "from its changelog topic",
        "from a checkpoint on disk that has to be named",
        "from its changelog topic",
    ),
    (
        "late events",
        "correct the record for an hour; then dropped, counted",
        "dropped in silence",
        "dropped, a warning or a callback each",
        "dropped, counted in a metric",
        "dropped in silence",
    ),
    (
        "malformed records",
        f"rejected with one of {len(REJECT_REASONS)} reasons, counted, kept on demand",
        "skipped in silence",
        "skipped in silence",
        "skipped in silence",
        "skipped in silence",
    ),
    (
        "`ts` ahead of the arrival",
        "rejected, counted",
        "skipped in silence",
        "skipped in silence",
        "skipped in silence",
        "skipped in silence",
    ),
    ("flipped `ts` in history", "moves nothing: the other windows are right", *("makes others late",) * 4),
    ("users", "sketch, 2 %; or exact", "exact", "exact", "exact", "exact"),
    ("mergeable sketches in the results", "`--sketch`", "no", "no", "no", "no"),
    (
        "partitions read at different speeds",
        "progress of the one behind: nothing is late",
        "watermark of the one behind",
        "one clock: what is behind is late",
        "watermark of the one behind",
        "one clock: what is behind is late",
    ),
    (
        "last windows of a stream that stops",
        "published when they are over by the clock",
        "closed at the end",
        "stay open",
        "closed at the end of a bounded scan, else stay open",
        "stay open",
    ),
)


METHOD = (
    "Every engine started by itself, cold, all in turn on one topic of two partitions, broker on the same cores: "
    "unique users and events of every minute, 5 s of disorder, JSON to a topic of its own. Events/s are taken "
    "between a run on the first {small} events and one on all: events more over seconds more; so start-up falls "
    "out, and the warming of JVMs. Slow engines get a part of both. The job runs with `--trigger available-now`. "
    "Every JVM has a heap of 1 GB at most, and the parallel collector. Quix Streams and Kafka Streams end a window "
    "only when later events come: the last one of the topic is not validated. They also have one clock for all "
    "partitions: of a backlog, what is read from the partition behind may come too late for them, which does not "
    "happen to the others."
)
COLUMNS = (
    "Memory: the highest sum over the processes of an engine (PSS). Lines: without blank ones and comments; the "
    "job's are all of its package, with backfill, accounting, metrics and transactions, where the others "
    "are a program for this one task. Windows right: of all rounds; users exact, those of the job within "
    f"{100 * TOLERANCE:.0f} %, and every event counted."
)
AWKWARD_METHOD = (
    f"Windows right of all, once on each topic; the job in {AWKWARD_BATCHES} batches. An event that is late, "
    "damaged or hardly readable may be counted or left out; each other one has to be counted. *+n*: results for "
    "minutes without an undamaged event; *n again*: results written again; †: the program ended with an error."
)


class EngineError(Exception):
    """An engine can't be had on this machine; the message is one line."""


@dataclass(frozen=True)
class Topic:
    """A loaded topic, its number of events, and what a right engine finds in it."""

    name: str
    events: int
    truth: dict[str, Bounds]
    unfinished: str


@dataclass(frozen=True)
class Run:
    """What a program is started with."""

    servers: str
    input_topic: str
    output_topic: str
    folder: Path


@dataclass(frozen=True)
class Engine:
    """A way to count: the command that starts it, how far its users may be off, and the programs it is made of."""

    name: str
    command: Callable[[Run], list[str]]
    programs: tuple[Path, ...]
    tolerance: float = 0.0
    part: float = 1.0  # of the events of both topics, where all of them would take too long


@dataclass(frozen=True)
class Outcome:
    """How a run went."""

    seconds: float
    memory_mb: float
    survived: bool
    verdict: Verdict


def make_settings(events: int, windows: int) -> Settings:
    """Events in so many full windows, and a tail that closes the last of them."""
    return Settings(events=events, rate=events / (windows * WINDOW_SECONDS + TAIL_SECONDS))


def load_topic(broker: KafkaBroker, name: str, settings: Settings, flipped: bool = False) -> Topic:
    """Fills a new topic of two partitions, and keeps the exact answer for the windows that its events close."""
    truth = Truth()

    def make_lines() -> Iterator[bytes]:
        events = generate_events(settings)
        for event, shown in flip_times(events, settings.seed) if flipped else ((event, None) for event in events):
            if event.ts is not None and event.uid is not None:
                truth.add(event.ts if shown is None else shown, event.uid, certain=not event.late and shown is None)
            elif readable := read_leniently(event.line):
                truth.add(*readable, certain=False)
            yield event.line

    broker.create_topic(name, 2)
    load_lines(make_lines(), broker.bootstrap_servers, name)
    # Engines without an end close a window only when later events come: the last one stays open, and is not validated.
    last = name_window(settings.start + int(settings.events / settings.rate))
    return Topic(name, settings.events, {start: each for start, each in truth.bounds().items() if start != last}, last)


def find_engines() -> tuple[list[Engine], dict[str, str]]:
    """The engines that this machine can run, in the order of the report; and why each of the others can't."""
    engines = [make_job(name, flags) for name, flags in JOB_WAYS.items()]
    missing = {}
    for name, make in (
        (PLAIN_NAME, make_plain),
        (QUIX_NAME, make_quix),
        (FLINK_NAME, make_flink),
        (STREAMS_NAME, make_streams),
    ):
        try:
            engines.append(make())
        except (EngineError, OSError, SystemExit) as error:
            missing[name] = str(error)
            say(f"engines: without {name}: {error}")
    return engines, missing


def make_job(name: str, flags: Sequence[str]) -> Engine:
    """The job with some flags, through spark-submit."""

    def command(run: Run) -> list[str]:
        topics = ["--input-topic", run.input_topic, "--output-topic", run.output_topic]
        where = ["--bootstrap-servers", run.servers, "--checkpoint-location", str(run.folder / "checkpoint")]
        submit = [str(SPARK_SUBMIT), "--conf", "spark.ui.enabled=false", "--driver-java-options", COLLECTOR]
        return [*submit, str(JOB), *where, *topics, "--trigger", "available-now", *flags]

    programs = (JOB, *sorted((JOB.parent / "uniques").glob("*.[jp]*")))
    return Engine(name, command, programs, TOLERANCE)


def make_plain() -> Engine:
    """One Python process, with this environment's packages."""
    program = OTHERS / "plain_python.py"
    return Engine(
        PLAIN_NAME,
        lambda run: [sys.executable, str(program), run.servers, run.input_topic, run.output_topic],
        (program,),
    )


def make_quix() -> Engine:
    """Quix Streams, whose confluent-kafka is another one."""
    python = make_venv("quix", [QUIX, "msgspec"])
    program = OTHERS / "quix_application.py"
    return Engine(
        QUIX_NAME,
        lambda run: [str(python), str(program), run.servers, run.input_topic, run.output_topic, str(run.folder)],
        (program,),
        part=SLOW_PART,
    )


def make_flink() -> Engine:
    """Flink in one process, with its SQL connector for Kafka."""
    python = make_venv("flink", [FLINK])
    connector = resolve_package(FLINK_CONNECTOR, VENVS / "flink-jars")[0]
    program = OTHERS / "flink_sql.py"

    def command(run: Run) -> list[str]:
        java = ["env", f"JVM_ARGS={' '.join(JAVA_OPTIONS)}"]
        topics = [run.servers, run.input_topic, run.output_topic]
        return [*java, str(python), str(program), *topics, str(connector), str(run.folder)]

    return Engine(FLINK_NAME, command, (program,))


def make_streams() -> Engine:
    """Kafka Streams, compiled here."""
    program, jars, classes = OTHERS / "UniqueUsers.java", VENVS / "streams-jars", VENVS / "streams-classes"
    resolve_package(STREAMS, jars)
    compiler = ["javac", "-nowarn", "-d", str(classes), "-cp", f"{jars}/*", str(program)]
    done = subprocess.run(compiler, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"javac: {done.stderr.strip().splitlines()[0]}")

    def command(run: Run) -> list[str]:
        java = ["java", *JAVA_OPTIONS, "-cp", f"{classes}{os.pathsep}{jars}/*", program.stem]
        # A name of its own a run: offsets and internal topics are kept under it.
        return [*java, run.servers, run.input_topic, run.output_topic, str(run.folder), f"streams-{run.output_topic}"]

    return Engine(STREAMS_NAME, command, (program,), part=SLOW_PART)


def make_venv(name: str, requirements: Sequence[str]) -> Path:
    """The Python of an environment of its own with these packages, made once; raises EngineError, one line."""
    folder = VENVS / f"{name}-venv"
    python, done = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join(requirements) + "\n"
    if done.exists() and done.read_text() == wanted:
        return python
    say(f"engines: installing {' '.join(requirements)}")
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], install):
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise EngineError(f"{requirements[0]} could not be installed: {made.stderr.strip().splitlines()[-1]}")
    done.write_text(wanted)
    return python


def run_engine(engine: Engine, broker: KafkaBroker, topic: Topic, output_topic: str) -> Outcome:
    """Starts the engine's program, waits for its end, and checks what it wrote."""
    # The broker says when a result came: an engine's own time stamp may be that of the window.
    broker.create_topic(output_topic, config={"message.timestamp.type": "LogAppendTime"})
    with tempfile.TemporaryDirectory(prefix="engine-", ignore_cleanup_errors=True) as folder:
        run = Run(broker.bootstrap_servers, topic.name, output_topic, Path(folder))
        log = run.folder / "engine.log"
        began = time.time()
        with log.open("wb") as file:
            process = subprocess.Popen(
                engine.command(run), stdout=file, stderr=file, cwd=folder, start_new_session=True
            )
        memory = watch_memory(process)
        survived = process.returncode == 0
        if not survived:
            words = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] or ["nothing said"]
            say(f"engines: {engine.name} on {topic.name} ended with {process.returncode}: {words[-1][:300]}")
        ended = time.time()
    results = read_results(broker.bootstrap_servers, output_topic)
    last = max((at for at, _ in results), default=ended)
    verdict = compare_results((result for _, result in results), topic.truth, engine.tolerance, topic.unfinished)
    return Outcome(last - began, memory, survived, verdict)


def watch_memory(process: subprocess.Popen[bytes]) -> float:
    """Waits for the process and returns the most memory that it and all it started held at a time, MB.

    One that takes too long is killed.
    """
    highest = 0.0
    deadline = time.monotonic() + LIMIT_SECONDS
    tree = {process.pid}
    while process.poll() is None:
        tree = find_tree(process.pid)
        highest = max(highest, sum(read_memory(pid) for pid in tree))
        if time.monotonic() > deadline:
            for pid in tree:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(STOP_SECONDS)
        with suppress(subprocess.TimeoutExpired):
            process.wait(SAMPLE_SECONDS)
    return highest


def find_tree(root: int) -> set[int]:
    """The process and all that it started, directly or not."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name in brackets may hold anything.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children[parent].append(int(stat.parent.name))
    tree, left = set(), [root]
    while left:
        pid = left.pop()
        tree.add(pid)
        left.extend(children[pid])
    return tree


def read_memory(pid: int) -> float:
    """Memory of a process, MB: its own, and its share of what it has in common with others."""
    with suppress(OSError):
        found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        return int(found[1]) / 1024 if found else 0.0
    return 0.0


def read_results(servers: str, topic: str) -> list[tuple[float, dict[str, Any]]]:
    """All committed results, each with the time, unix seconds, at which the broker took it."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "engines",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    found = []
    try:
        while (message := consumer.poll(30)) is not None:
            error = message.error()
            if error is None:
                found.append((message.timestamp()[1] / 1_000, json.loads(message.value() or b"{}")))
            elif error.code() == KafkaError._PARTITION_EOF:
                break
            else:
                raise KafkaException(error)
    finally:
        consumer.close()
    return found


def count_lines(program: Path) -> int:
    """Lines of a program that are neither blank, nor comment, nor docstring."""
    text = program.read_text()
    if program.suffix != ".py":
        bare = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
        return sum(bool(line.strip()) for line in bare.splitlines())
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    starts = True
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        # A string that begins a statement is a docstring.
        if token.type not in skipped and not (starts and token.type == tokenize.STRING):
            lines.update(range(token.start[0], token.end[0] + 1))
        if token.type not in {tokenize.COMMENT, tokenize.NL}:
            starts = token.type in {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    return len(lines)


class Bench:
    """The broker's topics, and what was measured on them."""

    def __init__(self, recorder: Recorder, broker: KafkaBroker, engines: Sequence[Engine]) -> None:
        """Nothing runs yet."""
        self._recorder = recorder
        self._broker = broker
        self._engines = engines
        self._runs = 0

    def measure_rates(self, few: int, events: int, windows: int, rounds: int) -> None:
        """Every engine in turn, on the first `few` events and on all, or on a part of both."""
        settings = make_settings(events, windows)
        topics = {
            part: (
                load_topic(self._broker, f"few-{part:g}", replace(settings, events=int(part * few))),
                load_topic(self._broker, f"all-{part:g}", replace(settings, events=int(part * events))),
            )
            for part in {engine.part for engine in self._engines}
        }
        outcomes: dict[str, list[tuple[Outcome, Outcome]]] = {engine.name: [] for engine in self._engines}
        for round_ in range(rounds):
            for engine in self._engines:
                small, whole = topics[engine.part]
                pair = self._run(engine, small), self._run(engine, whole)
                outcomes[engine.name].append(pair)
                rate = find_rate(*pair, small.events, whole.events)
                say(f"  round {round_ + 1} of {rounds}: {engine.name}: {rate:,.0f} events/s")
        rates = {
            engine.name: [
                find_rate(*pair, *(topic.events for topic in topics[engine.part])) for pair in outcomes[engine.name]
            ]
            for engine in self._engines
        }
        for engine in self._engines:
            small, whole = topics[engine.part]
            pairs = outcomes[engine.name]
            add = self._recorder.add
            add(engine.name, "rate", "events/s", rates[engine.name], events=whole.events, small=small.events)
            if all(rates[JOB_NAME]):
                add(engine.name, "ratio", "of job", ratios(rates[engine.name], rates[JOB_NAME]))
            add(engine.name, "start", "s", [first.seconds for first, _ in pairs], events=small.events)
            add(engine.name, "total", "s", [second.seconds for _, second in pairs], events=whole.events)
            add(engine.name, "memory", "MB", [second.memory_mb for _, second in pairs], events=whole.events)
            add(engine.name, "lines", "lines", [sum(map(count_lines, engine.programs))], files=len(engine.programs))
            self._add_verdicts(engine.name, AS_GENERATED, [second for _, second in pairs], engine.tolerance)

    def measure_awkward(self, events: int, windows: int) -> None:
        """Every engine once on every awkward topic; the job in several batches, so that its watermark moves."""
        batches = ("--max-offsets-per-trigger", str(events // AWKWARD_BATCHES))
        jobs = [make_job(JOB_NAME, batches), make_job(FROM_JSON_NAME, ("--json-parser", "spark", *batches))]
        engines = [*jobs, *(engine for engine in self._engines if engine.name not in JOB_WAYS)]
        settings = make_settings(events, windows)
        for index, (kind, change) in enumerate(AWKWARD.items()):
            topic = load_topic(self._broker, f"awkward-{index}", change(settings), flipped=kind == FLIPPED)
            for engine in engines:
                self._add_verdicts(engine.name, kind, [self._run(engine, topic)], engine.tolerance)

    def _run(self, engine: Engine, topic: Topic) -> Outcome:
        self._runs += 1
        return run_engine(engine, self._broker, topic, f"out-{self._runs}")

    def _add_verdicts(self, name: str, kind: str, outcomes: Sequence[Outcome], tolerance: float) -> None:
        verdicts = [outcome.verdict for outcome in outcomes]
        add = self._recorder.add
        windows = verdicts[0].windows
        add(name, "right", "windows", [one.right for one in verdicts], input=kind, windows=windows, tolerance=tolerance)
        add(name, "duplicates", "results", [one.duplicates for one in verdicts], input=kind)
        add(name, "others", "results", [one.others for one in verdicts], input=kind)
        add(name, "survived", "runs", [outcome.survived for outcome in outcomes], input=kind)


def find_rate(small: Outcome, whole: Outcome, few: int, events: int) -> float:
    """Events a second between two runs; 0 when one of them did not end well."""
    seconds = whole.seconds - small.seconds
    return (events - few) / seconds if small.survived and whole.survived and seconds > 0 else 0.0


def measure(recorder: Recorder, rounds: int) -> None:
    """Measures all engines on one broker."""
    few, events = (2_000, 50_000) if recorder.quick else (1_400_000, 3_500_000)
    windows, awkward = (3, 20_000) if recorder.quick else (16, 100_000)
    engines, missing = find_engines()
    for name, reason in missing.items():
        recorder.add(name, "left out", "", [0], reason=reason)
    with KafkaBroker() as broker:
        bench = Bench(recorder, broker, engines)
        bench.measure_rates(few, events, windows, rounds)
        bench.measure_awkward(awkward, 8)


def describe(rows: Sequence[Row], plots: Path) -> str:
    """The chapter of the report."""
    rates = [row for row in rows if row.metric == "rate"]
    save_bars(rates, plots / "engines.svg", "The same work by other engines", "events of 2 kB a second")
    left_out = [f"Left out: {row.what}: {row.parameters['reason']}." for row in rows if row.metric == "left out"]
    sections = [
        "## Beside other engines",
        METHOD.format(small=show_events(rates, "small")),
        describe_ratios(rows),
        "![Events a second](plots/engines.svg)",
        make_table(
            [
                "",
                "events/s: median (range)",
                "events",
                "the first, s",
                "all, s",
                "memory, MB",
                "lines",
                "windows right",
            ],
            [describe_engine(rows, row) for row in rates],
        ),
        COLUMNS,
        "### Awkward input",
        AWKWARD_METHOD,
        describe_awkward(rows),
        "### What the programs do",
        "Those of the other engines as they stand in `others/`, by their own code or by the engine's.",
        make_table(FEATURES[0], FEATURES[1:]),
        *left_out,
    ]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def show_events(rows: Sequence[Row], parameter: str) -> str:
    """A number of events from the parameters of the first row."""
    return f"{int(rows[0].parameters[parameter] or 0):,}"


def describe_ratios(rows: Sequence[Row]) -> str:
    """What comes first: every engine over the job, and what the fast path has to be faster than."""
    found = {row.what: row for row in rows if row.metric == "ratio"}
    rates = {row.what: row.values for row in rows if row.metric == "rate"}
    others = [f"{name} {show_spread(row, 2)}" for name, row in found.items() if name != JOB_NAME]
    lines = [f"Of the job's rate, round by round: {'; '.join(others)}."] if others else []
    for name, factor in PROMISES.items():
        if FAST_NAME in rates and all(rates.get(name, [0])):
            values = ratios(rates[FAST_NAME], rates[name])
            reached = statistics.median(values)
            word = "pass" if reached >= factor else "miss"
            lines.append(f"{FAST_NAME} over {name}: {reached:.2f} (asked: at least {factor:g}): **{word}**.")
        else:
            lines.append(f"{FAST_NAME} over {name} (asked: at least {factor:g}): not measured.")
    return "\n".join(f"- {line}" for line in lines) + "\n"


def describe_engine(rows: Sequence[Row], rate: Row) -> list[str]:
    """An engine's line of the table."""
    found = {row.metric: row for row in rows if row.what == rate.what and row.parameters.get("input") is None}
    return [
        rate.what,
        show_spread(rate),
        show_events([rate], "events"),
        *(show_spread(found[metric], 1) for metric in ("start", "total")),
        show_spread(found["memory"]),
        f"{found['lines'].median:,.0f}",
        show_verdict([row for row in rows if row.what == rate.what and row.parameters.get("input") == AS_GENERATED]),
    ]


def show_verdict(rows: Sequence[Row]) -> str:
    """Windows right of all, over all repetitions, with what was written beside them."""
    found = {row.metric: row for row in rows}
    right = found["right"]
    text = f"{sum(right.values):.0f} of {int(right.parameters['windows'] or 0) * len(right.values)}"
    if extra := sum(found["others"].values):
        text += f" +{extra:.0f}"
    if duplicates := sum(found["duplicates"].values):
        text += f" {duplicates:.0f} again"
    return text if all(found["survived"].values) else text + " †"


def describe_awkward(rows: Sequence[Row]) -> str:
    """A column a kind of input, a line an engine."""
    validated = [row for row in rows if row.parameters.get("input") not in {None, AS_GENERATED}]
    kinds = list(dict.fromkeys(str(row.parameters["input"]) for row in validated))
    body = []
    for name in dict.fromkeys(row.what for row in validated):
        cells = [[row for row in validated if (row.what, row.parameters["input"]) == (name, kind)] for kind in kinds]
        body.append([name, *(show_verdict(cell) if cell else "" for cell in cells)])
    return make_table(["", *kinds], body)
