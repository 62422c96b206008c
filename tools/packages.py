"""Which Maven packages PySpark lacks, and where the tools keep their downloads."""

from __future__ import annotations

import os
from pathlib import Path

CONF = Path(__file__).resolve().parent.parent / "conf"
CACHE = Path(os.environ.get("UNIQUE_USERS_CACHE", CONF.parent / ".cache"))

BROKER_PACKAGE = "org.apache.kafka:kafka_2.13:4.1.1"
# Kafka logs through slf4j, and its package brings no slf4j backend. Without one a broker that can't start logs nothing.
LOGGER_PACKAGE = "org.slf4j:slf4j-simple:1.7.36"
BROKER_JARS = CACHE / "kafka"

# YARN, of the Hadoop whose client is in PySpark's jars; only `make test-yarn` downloads it.
YARN_PACKAGES = [
    "org.apache.hadoop:hadoop-yarn-server-resourcemanager:3.5.0",
    "org.apache.hadoop:hadoop-yarn-server-nodemanager:3.5.0",
    "org.apache.hadoop:hadoop-yarn-server-timelineservice:3.5.0",
    "org.apache.hadoop:hadoop-yarn-client:3.5.0",
]
YARN_JARS = CACHE / "yarn"
# What `make test-object-store` needs besides. The version is that of the Hadoop in pyspark/jars.
S3A_PACKAGE = "org.apache.hadoop:hadoop-aws:3.5.0"
S3A_JARS = CACHE / "hadoop-aws"
# SeaweedFS, an S3-compatible store, as a Go module; Go compares the module's files with the sum.
STORE_MODULE = "github.com/seaweedfs/seaweedfs@v0.0.0-20261109003541-7506e5f91cd6"
STORE_SUM = "h1:LOYZFToHq9F7pSR6lkPGfkM8RmHlVFrzndKdhmNZjrU="
STORE_BINARY = CACHE / "seaweedfs" / STORE_MODULE.rpartition("-")[2] / "weed"


def read_packages() -> list[str]:
    """Maven coordinates `group:artifact:version` of the connectors, from `conf/packages.txt`."""
    return (CONF / "packages.txt").read_text().split()
