"""Unique users of hours, days, weeks, months and years: sketches of minutes from a Kafka topic, united in Delta tables.

    spark-submit jobs/rollup_users.py --bootstrap-servers localhost:9092 --input-topic out --rollup-topic rollups
    spark-submit jobs/rollup_users.py --between 2016-07-11T13:39 2016-07-12T00:00

In:  the records of unique_users.py --sketch
Out: key day 2016-07-11T00:00:00Z
     {"period":"day","name":"2016-07-11","period_start":"2016-07-11T00:00:00Z","period_end":"2016-07-12T00:00:00Z",
      "unique_users":81216,"events":1024770,"relative_error":0.0162,"final":true,"timezone":"UTC"}
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - EMR 7 starts Python 3.9
    sys.stderr.write("rollup_users: error: Python 3.10 or newer is needed: docs/deploy/emr.md says how\n")
    sys.exit(2)

from uniques.apps.rollup_flags import make_parser


def main(argv: list[str] | None = None) -> None:
    """Checks the flags, then imports the job, which takes longer: a wrong flag gets its line at once."""
    make_parser().parse_args(argv)
    from uniques.apps import rollup

    rollup.main(argv)


if __name__ == "__main__":
    main()
