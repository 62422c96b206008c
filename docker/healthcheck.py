"""Whether the job in this container is well: exit status 0 while its query gave a sign of life lately."""

from __future__ import annotations

import re
import sys
import time
import urllib.request

URL = "http://127.0.0.1:9108/metrics"
SIGN = re.compile(r"^(?:unique|rollup)_users_last_progress_timestamp_seconds (\S+)$", re.MULTILINE)
MAX_AGE_SECONDS = 120.0


def main() -> None:
    """Reads the job's metrics; ends with 1 and one line when the query is stuck or nothing answers."""
    try:
        with urllib.request.urlopen(URL, timeout=4) as answer:
            (said,) = SIGN.findall(answer.read().decode())
    except OSError as error:
        sys.exit(f"unhealthy: {URL} does not answer: {error}")
    age = time.time() - float(said)
    if age > MAX_AGE_SECONDS:
        sys.exit(f"unhealthy: no progress for {age:.0f} s")


if __name__ == "__main__":
    main()
