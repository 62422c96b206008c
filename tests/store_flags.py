"""What spark-submit needs to reach the object store of the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packages import S3A_JARS

if TYPE_CHECKING:
    from object_store import ObjectStore

BUCKET = "uniques"


def submit_flags(store: ObjectStore) -> list[str]:
    """Flags of spark-submit for a job on this store.

    The jars stand in the class path: with --packages or --jars each start would copy 700 MB.
    """
    settings = [f"{name}={value}" for name, value in store.spark_settings().items()]
    return ["--driver-class-path", f"{S3A_JARS}/*", *(part for setting in settings for part in ("--conf", setting))]
