"""The other JSON parser: ordinary events are decoded by msgspec in an Arrow stage, all others by Spark's own parser.

What is an event is decided in one place, `events.parse_events`: this parser answers only where it is certain that
Spark's would say the same, an object with `ts` a time and `uid` a string that is not empty. Whatever else a record
holds, it says nothing, and Spark parses that record; so both ways count the same, and reject it for the same reason.

Needs msgspec and pyarrow, on the driver and on the executors; it is imported only when asked for.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import SparkFiles, cloudpickle
from pyspark.sql import functions as F

from uniques.events import MAX_LONG, largest_ts

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import Column, SparkSession

# Spark reads from these what kind of function it gets, so they must exist at run time.
Values = Iterator[pa.Array]
Decoded = Iterator[pa.Array]

DECODED_SCHEMA = "ts BIGINT, uid STRING"
# Bounds what a Python worker holds: Spark's 10,000 records are 20 MB of 2 kB events. The rate is the same.
BATCH_SETTING = "spark.sql.execution.arrow.maxRecordsPerBatch"
SPARKS_BATCH, RECORDS_A_BATCH = "10000", 1_000

NO_TIME = -1
NOTHING = b'{"ts":-1,"uid":""}'
MAX_DIGITS = len(str(MAX_LONG))
ARCHIVE = "uniques_msgspec"


class Event(Protocol):
    """The two fields that count; msgspec skips the others, and checks that they are JSON."""

    ts: int | str
    uid: str


def decode_events(ts_unit: str = "s") -> Callable[[Column], Column]:
    """A function of a BINARY column: STRUCT<ts BIGINT, uid STRING>, null where Spark's parser has to look.

    `ts` is in `ts_unit`, a key of TS_UNITS, and within its range; `uid` is not empty.
    """
    largest = largest_ts(ts_unit)

    def decode(batches: Values) -> Decoded:
        decoder = make_decoder()
        return (decode_batch(values, decoder, largest) for values in batches)

    # Spark calls a function that it takes for deterministic again for every filter above.
    return F.arrow_udf(decode, DECODED_SCHEMA).asNondeterministic()  # type: ignore[attr-defined,no-any-return]  # stubs


def make_decoder() -> Callable[[bytes], Event]:
    """A function of a JSON text; raises an exception of any kind when it is no event."""
    try:
        import msgspec
    except ModuleNotFoundError:
        sys.path.append(str(Path(SparkFiles.getRootDirectory()) / ARCHIVE))
        import msgspec
    # Made here, because a class of msgspec can't be sent to executors.
    event = msgspec.defstruct("Event", [("ts", int | str), ("uid", str)], gc=False)
    return cast("Callable[[bytes], Event]", msgspec.json.Decoder(event).decode)


def send_decoder(spark: SparkSession, ts_unit: str = "s") -> Callable[[Column], Column]:
    """`decode_events`, and what it needs: msgspec for executors that have none, and the size of Arrow batches.

    Spark wants the same version of Python on both sides anyway, so the driver's msgspec runs there. To be called once a
    session. A batch size that the user has set stays.
    """
    if spark.conf.get(BATCH_SETTING) == SPARKS_BATCH:
        spark.conf.set(BATCH_SETTING, RECORDS_A_BATCH)
    folder = Path(msgspec.__file__).parent
    temporary = tempfile.mkdtemp()
    # Executors fetch it when they start, at any time.
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    archive = shutil.make_archive(f"{temporary}/{ARCHIVE}", "zip", folder.parent, folder.name)
    spark.addArtifacts(f"{archive}#{ARCHIVE}", archive=True)
    return decode_events(ts_unit)


def decode_batch(values: pa.Array, decode: Callable[[bytes], Event], largest: int) -> pa.StructArray:
    """Decodes BINARY values as `decode_events` says; `ts` is at most `largest`."""
    records = values.to_pylist()
    try:
        events = [decode(record) for record in records]
    except Exception:  # one of them is no event, and nobody knows which
        events = [decode_one(decode, record) for record in records]
    times = [event.ts for event in events]
    ts = [time if type(time) is int and 0 <= time <= largest else read_digits(time, largest) for time in times]
    uid = pa.array([event.uid for event in events], pa.string())
    # U+FFFD may also be what Spark's parser puts for bytes that are no UTF-8, anywhere in the record.
    doubtful = pc.or_(pc.match_substring(uid, "\ufffd"), pc.equal(uid, ""))
    times = pa.array(ts, pa.int64())
    return pa.StructArray.from_arrays([times, uid], ["ts", "uid"], mask=pc.or_(doubtful, pc.less(times, 0)))


def decode_one(decode: Callable[[bytes], Event], record: bytes | None) -> Event:
    """The event in a record that may be anything; one without time and user when there is none."""
    try:
        return decode(record or b"")
    except Exception:  # whatever is wrong with it, Spark's parser says what
        return decode(NOTHING)


def read_digits(time: int | str, largest: int) -> int:
    """The number that a string of digits stands for, from 0 to `largest`; NO_TIME for all else."""
    if isinstance(time, str) and len(time) <= MAX_DIGITS and time.isascii() and time.isdigit() and int(time) <= largest:
        return int(time)
    return NO_TIME


# Executors may have no copy of this package: what Spark sends them brings its functions along.
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
