"""The benchmark suite: `make bench`, `make bench-quick`, `make bench ARGS="clients json --rounds 3"`.

Every question is a module with `measure(recorder, rounds)`, which fills a `rows.Recorder`, and `describe(rows, plots)`,
which makes its chapter of the report out of rows alone. Rows stand in results.jsonl, the report in REPORT.md, plots in
plots/; nothing in the report comes from elsewhere.
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path

from report import write_report
from rows import RESULTS, Recorder, read_rows, say

# In the order of the report.
QUESTIONS = (
    "clients",
    "parsers",
    "counters",
    "throughput",
    "engines",
    "latency",
    "batches",
    "scaling",
    "settings",
    "recovery",
)
QUICK_FOLDER = Path("build/bench-quick")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measures, and writes the report.")
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"of {', '.join(QUESTIONS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions that count (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="small and once, to see that all of it works")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the report again")
    args = parser.parse_args()
    unknown = set(args.questions) - set(QUESTIONS)
    if unknown:
        parser.error(f"argument QUESTION: {', '.join(sorted(unknown))!r}: allowed are {', '.join(QUESTIONS)}")
    folder = QUICK_FOLDER if args.quick else RESULTS.parent
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / RESULTS.name
    chosen = [] if args.report else args.questions or list(QUESTIONS)
    for index, question in enumerate(chosen):
        module = importlib.import_module(question)
        recorder = Recorder(question, args.quick, getattr(module, "PACKAGES", ()))
        say(f"question {index + 1} of {len(chosen)}: {question}")
        began = time.monotonic()
        module.measure(recorder, 1 if args.quick else args.rounds)
        recorder.save(results)
        say(f"{question}: {time.monotonic() - began:,.0f} s")
    write_report(read_rows(results), QUESTIONS, folder)
    print(f"report: {folder / 'REPORT.md'}")


if __name__ == "__main__":
    main()
