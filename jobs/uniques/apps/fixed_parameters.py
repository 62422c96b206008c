"""The parameters of the main job that a checkpoint keeps for life."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uniques.times import describe_duration, describe_time

if TYPE_CHECKING:
    from uniques.apps.count_settings import CountSettings

# What a checkpoint that does not name a parameter was made with: what the job did before it had the flag. A flag that
# a release adds to `list_fixed_parameters` gets its line here.
IMPLIED_PARAMETERS = {
    "--backfill": "off",
    "--input": "none",
    "--start-time": "any",
    "--end-time": "any",
    "--counter": "approx_count_distinct",
    "--sketch": "off",
    "--lg-k": "any",
    "--input-pattern": "none",
    "--format": "json",
    "--time-field": "ts",
    "--user-field": "uid",
    "--where": "none",
    "--by": "none",
    "--slide": "none",
    "--max-groups": "any",
}


def list_fixed_parameters(settings: CountSettings) -> dict[str, str]:
    """The parameters, flag -> value, that a checkpoint keeps for life: its state and its offsets are made with them."""
    events, counter, running = settings.events, settings.counting.counter, settings.running
    sketched = counter.with_sketch or counter.name == "hll_sketch"
    return {
        "--backfill": "on" if running.backfill else "off",
        "--input": settings.source.path or "none",
        "--input-topic": ",".join(settings.source.subscription.names),
        "--input-pattern": settings.source.subscription.pattern or "none",
        # Earlier windows belong to the backfill; late events must not overwrite its records.
        "--start-time": "any" if events.start_time is None else describe_time(events.start_time),
        "--end-time": "any" if events.end_time is None else describe_time(events.end_time),
        "--format": events.format.name,
        "--time-field": events.shape.time.text if events.shape.has_time_field else "kafka",
        "--user-field": ",".join(field.text for field in events.shape.users),
        "--where": events.where or "none",
        "--by": " ".join(",".join(found.text for found in fields) for fields in events.shape.breakdowns) or "none",
        "--max-groups": str(settings.counting.max_groups) if events.shape.breakdowns else "any",
        "--window": describe_duration(settings.counting.window_seconds),
        "--slide": describe_duration(settings.counting.slide_seconds) if settings.counting.slide_seconds else "none",
        "--counter": counter.name,
        "--rsd": f"{counter.rsd:g}" if counter.name == "approx_count_distinct" else "any",
        "--sketch": "on" if counter.with_sketch else "off",
        # Spark accepts another size; the query then fails weeks later, when it unites sketches of two sizes.
        "--lg-k": str(counter.lg_k) if sketched or events.shape.breakdowns else "any",
        "--output-mode": settings.output.mode,
        "--state-partitions": str(running.state_partitions),
        # Rejected records are a second source of the query, and Spark does not let sources come or go.
        "--rejects-topic": "on" if settings.output.rejects_topic else "off",
    }
