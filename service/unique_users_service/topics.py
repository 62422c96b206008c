"""Follows the topics of both jobs, and reads examples of rejected events. Kafka may be away at any time."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from unique_users_service.records import Window, count_reasons, describe_reject, make_rows, parse_final, parse_window

if TYPE_CHECKING:
    from confluent_kafka import Message

    from unique_users_service.flags import KafkaSettings
    from unique_users_service.store import Store

log = logging.getLogger("unique_users_service")

ASK_SECONDS = 5.0
RETRY_SECONDS = 5.0
PARTITIONS_SECONDS = 60.0  # how often new partitions are looked for
# Records are read from so long before the newest one that the tables have: those of other partitions may be older.
MARGIN_SECONDS = 600
WITHOUT_TABLES_SECONDS = 86_400
BATCH = 2_000


class TopicReader:
    """Brings new records into the store, on a thread of its own.

    `problem`: why Kafka can't be read now, one line, or None; `is_away`: that was tried; `caught_up` is set once
    all was read that was there at the start; `rejected`: records that could not be united, by reason.
    """

    def __init__(self, settings: KafkaSettings, store: Store) -> None:
        """Does not connect yet: see `start`. Raises ValueError, one line, for a property that is none."""
        self._settings = settings
        self._store = store
        self._stop = threading.Event()
        self.refresh_wanted = threading.Event()
        self.caught_up = threading.Event()
        self.problem: str | None = "Kafka was not asked yet"
        self.is_away = False
        self.rejected: Counter[str] = Counter()
        self.taken = 0
        try:
            self._consumer = make_consumer(settings)
        except KafkaException as error:
            raise ValueError(describe_kafka(error.args[0])) from error
        self._thread = threading.Thread(target=self._run, name="topics", daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and the client."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(RETRY_SECONDS)
        self._consumer.close()

    def _run(self) -> None:
        ends: dict[tuple[str, int], int] | None = None
        asked_at = time.monotonic()
        while not self._stop.is_set():
            try:
                if ends is not None and time.monotonic() - asked_at > PARTITIONS_SECONDS:
                    asked_at = time.monotonic()
                    ends = ends if self._has_all_partitions() else None
                if ends is None:
                    ends = self._assign()
                self._take(self._consumer.consume(BATCH, 0.25), ends)
                self.problem, self.is_away = None, False
            except KafkaException as error:
                self._say(describe_kafka(error.args[0]))
                self._stop.wait(RETRY_SECONDS)
            except Exception as error:  # whatever a record holds, the next ones are read
                log.exception("records can't be taken over")
                self._say(f"{type(error).__name__}: {error}")
            if ends is not None and not ends:
                self.caught_up.set()

    def _say(self, problem: str) -> None:
        if self.problem != problem:
            log.warning("warning: Kafka: %s", problem)
        self.problem, self.is_away = problem, True

    def _assign(self) -> dict[tuple[str, int], int]:
        """Starts where the tables end; returns the ends of the partitions that have unread records."""
        begin = self._store.newest_record() or time.time() - WITHOUT_TABLES_SECONDS
        assigned, ends = [], {}
        for topic, since in ((self._settings.minutes, begin), (self._settings.rollups, time.time())):
            if topic is None:
                continue
            found = self._consumer.list_topics(topic, ASK_SECONDS).topics[topic]
            if found.error is not None or not found.partitions:
                raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, f"there is no topic {topic}"))
            wanted = [
                TopicPartition(topic, partition, int(1_000 * (since - MARGIN_SECONDS)))
                for partition in found.partitions
            ]
            for place in self._consumer.offsets_for_times(wanted, ASK_SECONDS):
                low, high = self._consumer.get_watermark_offsets(place, ASK_SECONDS)
                offset = high if place.offset == OFFSET_END else max(place.offset, low)
                assigned.append(TopicPartition(topic, place.partition, offset))
                if offset < high and topic == self._settings.minutes:
                    ends[topic, place.partition] = high
        self._consumer.assign(assigned)
        return ends

    def _has_all_partitions(self) -> bool:
        """Whether the topics have no partitions that are not read yet."""
        assigned = {(place.topic, place.partition) for place in self._consumer.assignment()}
        for topic in {topic for topic, _ in assigned}:
            if len(self._consumer.list_topics(topic, ASK_SECONDS).topics[topic].partitions) > sum(
                name == topic for name, _ in assigned
            ):
                return False
        return True

    def _take(self, messages: list[Message], ends: dict[tuple[str, int], int]) -> None:
        state = self._store.state
        windows: list[Window] = []
        finals = []
        for message in messages:
            error = message.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                ends.pop((message.topic() or "", message.partition() or 0), None)
            elif message.topic() == self._settings.minutes:
                parsed = parse_window(message.value(), state.calendar, state.kept_from)
                self.rejected += count_reasons([parsed])
                if isinstance(parsed, Window):
                    windows.append(parsed)
            elif found := parse_final(message.value()):
                finals.append(found)
        if windows:
            self.taken += len(windows)
            self._store.add_records(make_rows(windows).items())
        for final in finals:
            self._store.set_final(*final)
        if finals:
            self.refresh_wanted.set()


def make_consumer(settings: KafkaSettings) -> Consumer:
    """A client that belongs to no group and commits nothing."""
    defaults: dict[str, Any] = {"log_level": 0, "topic.metadata.refresh.interval.ms": 10_000}
    # Records that retention has removed are in the tables.
    defaults["auto.offset.reset"] = "earliest"
    fixed = {"group.id": "unique-users-service", "enable.auto.commit": False, "enable.partition.eof": True}
    return Consumer({**defaults, **settings.properties, **fixed}, logger=logging.getLogger("librdkafka"))


def describe_kafka(error: Any) -> str:
    """What an error of the client says, one line."""
    return str(error.str()) if isinstance(error, KafkaError) else str(error)


def read_rejects(
    settings: KafkaSettings, reason: str | None, limit: int, scanned: int = 10_000
) -> list[dict[str, Any]]:
    """The newest rejected events, of one reason or of any, the newest first; the last `scanned` are looked through.

    Raises KafkaException where Kafka can't be read.
    """
    topic = settings.rejects or ""
    consumer = make_consumer(settings)
    try:
        partitions = consumer.list_topics(topic, ASK_SECONDS).topics[topic].partitions
        assigned, unread = [], set()
        for partition in partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), ASK_SECONDS)
            if low < high:
                begin = max(low, high - scanned // len(partitions))
                assigned.append(TopicPartition(topic, partition, begin if begin > low else OFFSET_BEGINNING))
                unread.add(partition)
        consumer.assign(assigned)
        found: list[tuple[int, dict[str, Any]]] = []
        deadline = time.monotonic() + ASK_SECONDS
        while unread and time.monotonic() < deadline:
            for message in consumer.consume(BATCH, 0.5):
                error = message.error()
                if error is None:
                    headers: Any = message.headers() or []
                    found.append((message.timestamp()[1], describe_reject(message.value(), headers)))
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()
    found.sort(key=lambda each: -each[0])
    return [each for _, each in found if reason is None or each["reason"] == reason][:limit]
