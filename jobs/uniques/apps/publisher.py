"""Publishing at work: takes the batches of the query, and writes the records that are due.

Spark hands each batch over with the windows it changed, in the very batch that changed them. What is due is decided
here on the driver, written to the step log, then sent; see `state.progress`, `state.publishing`, `state.steps`. Between
batches `poll` sends what time has made due.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from uniques.errors import JobError, UsageError
from uniques.kafka.topics import write_topic_once
from uniques.runtime.gate import BatchGate, InterruptedBatchError
from uniques.runtime.listener import Published, span_offsets
from uniques.state.accounting import Done, StepAccounting
from uniques.state.progress import Progress, count_events
from uniques.state.publishing import Change, Publishing, Sent, make_record
from uniques.state.punctuation import write_punctuation
from uniques.state.steps import Step, StepLog
from uniques.times import describe_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.listener import StreamingQueryProgress

    from uniques.apps.count_settings import CountSettings
    from uniques.apps.input_partitions import InputPartitions
    from uniques.kafka.delivery import Writer
    from uniques.kafka.subscription import Partition
    from uniques.state.publishing import Key, Window

log = logging.getLogger("uniques")

ASK_SECONDS = 1.0  # how often Kafka is asked, at most, whether there is nothing left to read
HELD_SECONDS = 60.0  # a partition that holds progress back for so long is named
STOP_SECONDS = 10.0  # how long a batch that runs may keep the last records from being written


class Publisher:
    """Publishes the windows of one query, for one run; `accounting` is where its events went."""

    def __init__(
        self,
        spark: SparkSession,
        settings: CountSettings,
        partitions: InputPartitions,
        writer: Writer,
        drain_to: Mapping[Partition, int] | None = None,
    ) -> None:
        """Goes on where the step log ends, and sends the last step again if it is not written.

        `gate` is closed once each partition is read to its offset in `drain_to`; never when that is None. Raises
        UsageError, one line, when the checkpoint does not fit what is written.
        """
        counting, output, running = settings.counting, settings.output, settings.running
        self._spark = spark
        self._settings = settings
        self._partitions = partitions
        self._writer = writer
        self._location = running.checkpoint_location
        self._lock = threading.Lock()
        self._publishing = Publishing(
            counting.window_seconds, counting.watermark_seconds, output.correction_seconds, output.mode == "update"
        )
        self._log = StepLog(spark, self._location)
        self._publishing.load(self._log.windows.values())
        self._progress = Progress(self._log.last.reached)
        self._punctuated = 0
        self._new_at = self._asked_at = self._held_since = time.time()
        self.accounting = StepAccounting(self._publishing.waiting_events(), self._publishing.waiting_windows())
        self._failure: Exception | None = None
        self.gate = BatchGate()
        self._drain_to = drain_to
        if partitions.is_between_batches:
            self._close_when_drained()
            self._move_watermark()  # runs by a schedule may have one batch each, and move it nowhere else
        self._send_last_step()

    def take_batch(self, changes: DataFrame, batch: int) -> None:
        """Takes over the windows that a batch changed, for `foreachBatch`; the columns of `counts.make_changes`.

        With a `headers` column some rows are rejected events instead. There may be many, so the executors write them,
        at least once, before anything is noted.
        """
        self.gate.enter()
        try:
            with self._lock:
                self._take(batch, changes)
        except Exception as error:
            if self.gate.is_stopped():
                raise InterruptedBatchError from None
            self._failure = error
            raise

    def raise_failure(self) -> None:
        """Raises the JobError that ended the query, if one did."""
        self._writer.keep_alive()
        if isinstance(self._failure, JobError):
            raise self._failure

    def add_batch(self, progress: StreamingQueryProgress) -> Published:
        """Adds a batch that Spark has finished to the accounting; returns what was published with it."""
        observed = progress.observedMetrics.get("events")
        accepted = 0
        if observed is not None:
            accepted = self.accounting.add_read(observed, span_offsets(progress))
            self._progress.add_positions(self._partitions.find_positions(observed["positions"]))
        self.accounting.settle(progress.batchId, accepted)
        return Published(self.accounting.count_new_records(), self._progress.reached, self.accounting.open_windows)

    def poll(self) -> None:
        """Sends what became due since the last batch: corrections, and windows that ended, when all is read."""
        self._writer.keep_alive()
        if not self._lock.acquire(blocking=False):
            return  # a batch is being published
        try:
            now = time.time()
            until = now if self._is_silent(now) else self._progress.reached
            self._send_between(self._publishing.send_due(until, now))
        finally:
            self._lock.release()

    def finish(self, ended_by: float | None) -> None:
        """Sends, once the query has ended, the corrections that wait, and the windows that ended by `ended_by`.

        `ended_by` is a time by which all that had arrived is read, unix seconds; None leaves open windows to the next
        run.
        """
        if not self._lock.acquire(timeout=STOP_SECONDS):
            return  # an abandoned batch still holds it; the next run sends what is left
        try:
            until = max(self._progress.reached, ended_by or 0.0)
            self._send_between(self._publishing.send_due(until, time.time(), flush=True))
            if self._log.last.sent:
                # So that the next start need not ask whether the last records are written.
                self._add_step(self._log.last.batch, 0, Sent([]), [], [])
        finally:
            self._lock.release()
        self.accounting.settle_all()

    def _take(self, batch: int, frame: DataFrame) -> None:
        last = self._log.last
        repeated = batch <= last.batch
        changes = self._collect(frame, repeated)
        unread = self._partitions.advance(batch)
        seen = self._publishing.absorb(changes)
        size = self._settings.counting.window_seconds
        totals = {key.start: part for key, part in seen.items() if key.accounts_for_events(size)}
        absorbed = count_events(totals)
        if batch < last.batch:
            self.accounting.exact = False
            log.warning(
                "warning: batch %s was done before batch %s; it is counted once (exact: false)", batch, last.batch
            )
        if batch == last.batch:
            self.accounting.repeat(last.absorbed, last.sent_events)
            absorbed += last.absorbed
            self._note(None, 0, Sent([], last.sent_events))
        now = time.time()
        if seen:
            self._new_at = now
        self._progress.add_batch(totals, unread, now)
        self._name_slowest(now)
        forgotten = self._publishing.forget(self._partitions.plan.watermark)
        sent = self._publishing.send_due(self._progress.reached, now)
        changed = {key: self._publishing.windows[key] for key in seen}
        changed |= {window.key: window for window in sent.windows}
        self._note(batch, absorbed, sent)
        if changed or forgotten or not repeated:
            self._add_step(max(batch, last.batch), absorbed, sent, list(changed.values()), forgotten)
        self._close_when_drained()
        self._move_watermark()

    def _collect(self, frame: DataFrame, repeated: bool) -> list[Change]:
        # A batch that is repeated is computed too: Spark fails a query whose batch was not read to its end.
        if "headers" not in frame.columns:
            return [Change(*row) for row in frame.collect()]
        frame.persist()
        if not repeated:
            rejects = frame.where("headers IS NOT NULL").select("topic", "key", "value", "headers")
            write_topic_once(rejects, self._settings.cluster)
        rows = frame.where("headers IS NULL").select(*Change._fields).collect()
        frame.unpersist()
        return [Change(*row) for row in rows]

    def _close_when_drained(self) -> None:
        if self._drain_to is not None and not self._partitions.plan.list_unread(self._drain_to):
            self.gate.close()

    def _send_between(self, sent: Sent) -> None:
        if not sent.windows:
            return
        self._note(None, 0, sent)
        self._add_step(self._log.last.batch, 0, sent, sent.windows, [])
        self.accounting.settle()

    def _add_step(self, batch: int, absorbed: int, sent: Sent, changed: list[Window], forgotten: list[Key]) -> None:
        last = self._log.last
        between = batch == last.batch
        step = Step(
            last.number + 1,
            batch,
            last.transactions + bool(sent.windows),
            self._progress.reached,
            max(absorbed, last.absorbed) if between else absorbed,
            last.sent_events + sent.events if between else sent.events,
            [window.key for window in sent.windows],
            forgotten,
        )
        self._log.add(step, changed, self._publishing.windows)
        self._write(sent.windows, step)

    def _write(self, windows: Sequence[Window], step: Step) -> None:
        if windows:
            self._writer.write([self._make_record(window) for window in windows], step.transactions)

    def _make_record(self, window: Window) -> tuple[bytes, bytes]:
        return make_record(window, self._settings.counting.window_seconds, self._settings.counting.counter)

    def _note(self, batch: int | None, absorbed: int, sent: Sent) -> None:
        """Leaves to the accounting what was done; see `accounting.Done`."""
        last_window = None
        totals = [window for window in sent.windows if window.is_total]
        if totals:
            last = totals[-1]
            last_window = (last.start + self._settings.counting.window_seconds, last.unique_users)
        self.accounting.add_done(Done(batch, absorbed, sent, self._publishing.waiting_windows(), last_window))

    def _send_last_step(self) -> None:
        step, written = self._log.last, self._writer.written
        way_out = "start once with --delivery at-least-once, which writes results again, or take another one"
        if written is not None and written > step.transactions:
            raise UsageError(f"--checkpoint-location {self._location} is older than what was written: {way_out}")
        if written is None and step.sent and self._writer.exactly_once:
            # The group expired (offsets.retention.minutes), or was deleted with the output topic.
            raise UsageError(
                f"--checkpoint-location {self._location}: Kafka has forgotten whether its last records were written: "
                f"{way_out}"
            )
        if step.sent and (written is None or written < step.transactions):
            log.info("writing the last records of the run before again, because it did not end by itself")
            self._write([self._publishing.windows[key] for key in step.sent], step)
        else:
            self._writer.write([], step.transactions)

    def _is_silent(self, now: float) -> bool:
        """Whether an open window has ended by the clock, nothing came for a while, and nothing is left to read."""
        idle, end = self._settings.running.idle_seconds, self._publishing.next_end()
        if idle is None or end is None or end + self._settings.counting.watermark_seconds > now:
            return False
        if now - self._new_at < idle or now - self._asked_at < ASK_SECONDS:
            return False
        self._asked_at = now
        return self._partitions.is_all_read()

    def _name_slowest(self, now: float) -> None:
        partition = self._progress.held_by
        if partition is None:
            self._held_since = now
        elif now - self._held_since >= HELD_SECONDS:
            self._held_since = now
            log.info(
                "progress is held back by partition %s, which is read up to %s",
                self._partitions.describe(partition),
                describe_time(int(self._progress.position_of(partition))),
            )

    def _move_watermark(self) -> None:
        """Lets Spark forget the windows that no event may change any more."""
        size, keep = self._settings.counting.window_seconds, self._settings.counting.keep_seconds
        watermark = int(self._progress.reached - keep) // size * size
        # Once the gate is closed, punctuation would make Spark plan a batch that never begins.
        if watermark > self._punctuated and not self.gate.is_closed:
            self._punctuated = watermark
            write_punctuation(self._spark, self._location, [watermark])
