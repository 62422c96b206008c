"""Unique users per minute: JSON events from a Kafka topic, counts to another.

    spark-submit jobs/unique_users.py --bootstrap-servers localhost:9092 --input-topic in --output-topic out

In:  {"ts": 1468244384, "uid": "ed90…", …}       `ts` unix seconds, a number or a string of digits
Out: key 2016-07-11T13:39:00Z
     {"window_start":"2016-07-11T13:39:00Z","window_end":"2016-07-11T13:40:00Z","unique_users":16193,"events":18977,
      "counter":"approx_count_distinct","relative_error":0.0489,"final":true,"revision":0}
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - EMR 7 starts Python 3.9
    sys.stderr.write("unique_users: error: Python 3.10 or newer is needed: docs/deploy/emr.md says how\n")
    sys.exit(2)

from uniques.apps.count_flags import make_parser


def main(argv: list[str] | None = None) -> None:
    """Checks the flags, then imports the job, which takes longer: a wrong flag gets its line at once."""
    make_parser().parse_args(argv)
    from uniques.apps import count

    count.main(argv)


if __name__ == "__main__":
    main()
