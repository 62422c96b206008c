"""Unique users per minute: JSON events from a Kafka topic, counts to another.

    spark-submit jobs/unique_users.py --bootstrap-servers localhost:9092 --input-topic in --output-topic out

In:  {"ts": 1468244384, "uid": "ed90…", …}       `ts` unix seconds, a number or a string of digits
Out: key 2016-07-11T13:39:00Z
     {"window_start":"2016-07-11T13:39:00Z","window_end":"2016-07-11T13:40:00Z","unique_users":16193,"events":18977,
      "counter":"approx_count_distinct","relative_error":0.0173,"final":true}
"""

from uniques.apps.count import main

if __name__ == "__main__":
    main()
