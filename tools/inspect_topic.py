"""Shows what is in a topic or a file of events, and the command that counts its users. Needs no Spark.

    python tools/inspect_topic.py --bootstrap-servers localhost:9092 --topic in
    zcat stream.jsonl.gz | python tools/inspect_topic.py -

It reads 1,000 records and lists the fields that are in them. It proposes which are the time and the user, says what the
job would make of these records, and prints the whole command. It proposes by names and values, so look at what it says;
--time-field and --user-field say it better where you know.

`--json` prints one JSON object: `records`, `origin`, `objects`, `paths` (each `path`, null when no flag can name it,
`names`, `types`, `share`, `distinct`, `examples`), `time`, `users`, `bots`, `dimensions`, `command` (a list), and
`outcomes`: how many records are counted, filtered, and rejected for each reason; null without a command.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from client_properties import PropertiesError, read_properties
from event_profile import NOTHING_GIVEN, Given, Profile, Proposal, profile_records, propose
from event_rules import COUNTED, FILTERED, MAX_FUTURE_SECONDS, Outcome, classify, read_json
from sample_reader import Sample, SampleError, read_file, read_topic
from uniques.core.fields import Field, parse_fields

if TYPE_CHECKING:
    from event_profile import PathProfile, TimeChoice

SPARK_SUBMIT = (".venv/bin/spark-submit", "jobs/unique_users.py")
LINE_WIDTH = 116
EXAMPLES_WIDTH = 48
PATH_WIDTH = 44
MAX_ROWS = 100


class Source(NamedTuple):
    """What is looked at: a topic, or the path of a file, `-` for standard input.

    `bootstrap_servers` None: those of `kafka_config`, a file of client properties.
    """

    bootstrap_servers: str | None
    topic: str
    path: str | None
    kafka_config: Path | None = None

    @property
    def client_settings(self) -> dict[str, str]:
        """What Kafka's client is told. Raises PropertiesError, one line."""
        settings = {"bootstrap.servers": "localhost:9092"}
        if self.kafka_config:
            settings |= read_properties(self.kafka_config)
        return settings | ({"bootstrap.servers": self.bootstrap_servers} if self.bootstrap_servers else {})


class Finding(NamedTuple):
    """What a sample holds, what is proposed, and what the job would make of its records, None without a command."""

    sample: Sample
    profile: Profile
    proposal: Proposal
    command: list[str] | None
    outcomes: list[Outcome] | None


def inspect(sample: Sample, source: Source, now: float, given: Given = NOTHING_GIVEN) -> Finding:
    """Looks at a sample; proposes what is not given. Raises SampleError, one line, when no record is a JSON object."""
    profile = profile_records(sample.records)
    if not profile.objects:
        reasons = Counter(
            "tombstone" if record.value is None else read_json(record.value)[1] for record in sample.records
        )
        found = ", ".join(f"{number:,} {reason}" for reason, number in reasons.most_common())
        raise SampleError(f"no JSON object in {len(sample.records):,} records ({sample.origin}): {found}")
    proposal = propose(profile, now, given)
    shape = proposal.shape
    if shape is None:
        return Finding(sample, profile, proposal, None, None)
    bots = proposal.bots[0] if proposal.bots else None
    outcomes = [classify(record, shape, bots) for record in sample.records]
    return Finding(sample, profile, proposal, make_command(proposal, source), outcomes)


def make_command(proposal: Proposal, source: Source) -> list[str]:
    """The command that counts the users, word by word; without flags that would say what is so by default."""
    shape = proposal.shape
    if shape is None:
        raise ValueError("no command without a time and a user")
    if source.path is not None:
        command = [*SPARK_SUBMIT, "--input", source.path, "--output", "-"]
    else:
        command = [*SPARK_SUBMIT]
        if source.bootstrap_servers:
            command += ["--bootstrap-servers", source.bootstrap_servers]
        if source.kafka_config:
            command += ["--kafka-config", str(source.kafka_config)]
        command += [
            "--input-topic",
            source.topic,
            "--output-topic",
            "out",
            "--checkpoint-location",
            f"checkpoint/{source.topic}",
        ]
    if not shape.has_time_field:
        command += ["--time-format", "kafka"]
    elif shape.time.text != "ts":
        command += ["--time-field", shape.time.text]
    if shape.time_format.pattern is not None:
        command += ["--time-format", shape.time_format.name]
    users = ",".join(field.text for field in shape.users)
    if users != "uid":
        command += ["--user-field", users]
    if proposal.bots:
        command += ["--where", proposal.bots[0].sql]
    return command


def quote(word: str) -> str:
    """A word for a shell. With single quotes in it, it stands in double quotes: that is easier to read."""
    if "'" not in word or "!" in word or not word.isprintable():
        return shlex.quote(word)
    escaped = re.sub(r'[\\"$`]', r"\\\g<0>", word)
    return f'"{escaped}"'


def format_command(command: list[str]) -> str:
    """A command to paste into a shell, a line for what belongs together."""
    lines = [" ".join(map(quote, command[:2]))]
    for flag, value in zip(command[2::2], command[3::2], strict=True):
        option = f"{flag} {quote(value)}"
        if len(lines[-1]) + len(option) + 3 <= LINE_WIDTH:
            lines[-1] += f" {option}"
        else:
            lines.append(f"    {option}")
    return " \\\n".join(lines)


def show(value: object, width: int) -> str:
    """A value as JSON in one line of at most `width` characters; control characters are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    # JSON leaves some characters alone that move a terminal's cursor, or are halves of a character.
    text = "".join(character if character.isprintable() else escape(character) for character in text)
    return text if len(text) <= width else text[: width - 1] + "…"


def escape(character: str) -> str:
    """A character as JSON can write it."""
    return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"


def show_path(path: PathProfile) -> str:
    """A path as flags take it, or the names in brackets when no flag can name it."""
    return path.field.text if path.field else show(list(path.names), PATH_WIDTH)


def format_share(share: float) -> str:
    """A share in percent, never rounded to all or nothing."""
    percent = round(100 * share)
    return "<1 %" if share and not percent else ">99 %" if share < 1 and percent == 100 else f"{percent} %"


def format_table(profile: Profile) -> list[str]:
    """A line for each path: types, the share of objects that have it, how many values, examples."""
    paths = list(profile.paths.values())[:MAX_ROWS]
    width = min(PATH_WIDTH, max(4, *(len(show_path(path)) for path in paths))) if paths else 4
    types = {path.names: ", ".join(name for name, _ in path.types.most_common()) for path in paths}
    types_width = max(4, *(len(text) for text in types.values())) if paths else 4
    lines = [f"{'path':<{width}}  {'type':<{types_width}}  share  distinct  examples"]
    for path in paths:
        examples = " ".join(show(value, EXAMPLES_WIDTH // 2) for value in path.examples)
        if len(examples) > EXAMPLES_WIDTH:
            examples = examples[: EXAMPLES_WIDTH - 1] + "…"
        kind, share = types[path.names], format_share(path.present / profile.objects)
        name, distinct = show_path(path), len(path.values)
        lines.append(f"{name:<{width}}  {kind:<{types_width}}  {share:>5}  {distinct:>8,}  {examples}".rstrip())
    if any(path.field is None for path in paths):
        lines.append("no flag can name what is in brackets")
    more = len(profile.paths) - len(paths)
    if more or profile.has_more_paths:
        lines.append(f"and {more:,}{' or more' if profile.has_more_paths else ''} other paths: --json lists them")
    return lines


def utc(micros: int) -> str:
    """A time as ISO 8601, in seconds."""
    return datetime.fromtimestamp(micros // 10**6, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def explain_time(choice: TimeChoice | None, profile: Profile) -> str:
    """Which field is the time, and why."""
    if choice is None:
        return "none: no field has plausible times; --time-field says which to take"
    if choice.profile is not None and not choice.plausible:
        return f"{show_path(choice.profile)}, in none of {profile.objects:,} a plausible time"
    span = f"{utc(choice.first)} to {utc(choice.last)}"
    if choice.profile is None:
        return f"arrival in Kafka (--time-format kafka), because no field has a time in most events; {span}"
    name = f"{show_path(choice.profile)}, in {choice.plausible:,} of {profile.objects:,} a plausible time"
    if choice.time_format != "auto":
        return f"{name}: {choice.time_format}, which --time-format auto does not read; {span}"
    written = ", ".join(f"{how} {number:,}" for how, number in choice.written.most_common())
    line = f"{name} that --time-format auto reads: {written}; {span}"
    if choice.plausible < profile.objects / 2:
        line += "; other events have other fields: count each shape by itself"
    return line


def explain(finding: Finding) -> list[str]:
    """What is proposed, a line each."""
    proposal, profile = finding.proposal, finding.profile
    lines = [f"time        {explain_time(proposal.time, profile)}"]
    users = ", then ".join(f"{field.text} ({why})" for field, why in proposal.users)
    lines.append(f"user        {users or 'none: no field looks like a user; --user-field says which to take'}")
    if proposal.bots:
        flag, number = proposal.bots
        lines.append(f"bots        {flag.field.text} is {flag.yes} in {number:,}: --where leaves them out")
    dimensions = ", ".join(f"{show_path(path)} ({len(path.values)} values)" for path in proposal.dimensions)
    lines.append(f"dimensions  {dimensions or 'none: no field has few values'}")
    return lines


def explain_outcomes(outcomes: list[Outcome], source: Source) -> list[str]:
    """What the job would make of the records, and what helps where that is not in the command."""
    numbers = Counter(outcome.name for outcome in outcomes)
    users = len({outcome.user for outcome in outcomes if outcome.name == COUNTED})
    rejected = {name: number for name, number in numbers.most_common() if name not in (COUNTED, FILTERED)}
    reasons = f" ({', '.join(f'{number:,} {name}' for name, number in rejected.items())})" if rejected else ""
    counted = f"{numbers[COUNTED]:,}, of {users:,} user{'s' * (users != 1)}"
    others = f"filters {numbers[FILTERED]:,}; rejects {sum(rejected.values()):,}{reasons}"
    lines = [f"of these {len(outcomes):,} it counts {counted}; {others}"]
    if source.path is None and rejected.get("ts_in_future"):
        lines.append(f"ts_in_future: more than {MAX_FUTURE_SECONDS:.0f} s ahead of arrival; --max-future allows more")
    return lines


def print_finding(finding: Finding, source: Source) -> None:
    """Prints the table, the proposal, the command, and what it would do."""
    records, objects = len(finding.sample.records), finding.profile.objects
    print(f"{records:,} records: {finding.sample.origin}; {objects:,} are JSON objects\n")
    print("\n".join(format_table(finding.profile)) + "\n")
    print("\n".join(explain(finding)) + "\n")
    if finding.command is None or finding.outcomes is None:
        print("no command: it needs a time and a user")
        return
    print(format_command(finding.command) + "\n")
    breakdowns = [f"--by {quote(path.field.text)}" for path in finding.proposal.dimensions if path.field]
    if breakdowns:
        print(f"for breakdowns add some of: {' '.join(breakdowns)}\n")
    print("\n".join(explain_outcomes(finding.outcomes, source)))


def list_finding(finding: Finding) -> dict[str, Any]:
    """All of it for machines; see the module's text."""
    proposal, profile = finding.proposal, finding.profile
    choice = proposal.time
    return {
        "records": len(finding.sample.records),
        "origin": finding.sample.origin,
        "objects": profile.objects,
        "paths": [
            {
                "path": path.field.text if path.field else None,
                "names": path.names,
                "types": dict(path.types),
                "share": path.present / profile.objects,
                "distinct": len(path.values),
                "examples": [show(value, EXAMPLES_WIDTH) for value in path.examples],
            }
            for path in profile.paths.values()
        ],
        "time": choice
        and {
            "path": choice.profile.field.text if choice.profile and choice.profile.field else None,
            "format": choice.time_format,
            "written": dict(choice.written),
            "first": utc(choice.first),
            "last": utc(choice.last),
        },
        "users": [{"path": field.text, "why": why} for field, why in proposal.users],
        "bots": proposal.bots and {"path": proposal.bots[0].field.text, "where": proposal.bots[0].sql},
        "dimensions": [path.field.text for path in proposal.dimensions if path.field],
        "command": finding.command,
        "outcomes": finding.outcomes and dict(Counter(outcome.name for outcome in finding.outcomes)),
    }


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def fields(text: str) -> tuple[Field, ...]:
    """Paths of fields, separated by commas, or the record's key."""
    try:
        found = parse_fields(text)
        if all(field.is_json or field.names == ("@key",) for field in found):
            return found
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not the path of a field, or @key, or several with commas")


def field(text: str) -> Field:
    """The path of one field."""
    found = fields(text)
    if len(found) > 1 or not found[0].is_json:
        raise argparse.ArgumentTypeError(f"{text!r} is not the path of one field")
    return found[0]


def main() -> None:
    """Prints what was found. The exit status is 1 when there is nothing to look at."""
    parser = argparse.ArgumentParser(
        description="Show what is in a topic or file, and the command that counts its users."
    )
    parser.add_argument("file", nargs="?", help=".jsonl or .jsonl.gz file, or - for standard input, instead of a topic")
    parser.add_argument(
        "--bootstrap-servers", help="(default: bootstrap.servers of --kafka-config, else localhost:9092)"
    )
    parser.add_argument(
        "--kafka-config", type=Path, metavar="FILE", help="Kafka client properties, as the job takes them: TLS, SASL"
    )
    parser.add_argument("--topic", default="in", help="(default: in)")
    parser.add_argument("--records", type=positive, default=1_000, metavar="N", help="read so many (default: 1000)")
    parser.add_argument("--earliest", action="store_true", help="the first records of a topic (default: the latest)")
    parser.add_argument("--time-field", type=field, metavar="PATH", help="take this as the time (default: proposed)")
    parser.add_argument("--user-field", type=fields, metavar="PATH,…", help="take these as user (default: proposed)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    args = parser.parse_args()
    source = Source(args.bootstrap_servers, args.topic, args.file, args.kafka_config)
    try:
        if args.file is not None:
            sample = read_file(args.file, args.records)
        else:
            sample = read_topic(source.client_settings, args.topic, args.records, args.earliest)
        finding = inspect(sample, source, time.time(), Given(args.time_field, args.user_field or ()))
    except (SampleError, PropertiesError) as error:
        sys.exit(f"inspect_topic: error: {error}")
    except KeyboardInterrupt:
        sys.exit("inspect_topic: interrupted")
    try:
        if args.json:
            print(json.dumps(list_finding(finding)))
        else:
            print_finding(finding, source)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at its end
        sys.exit(1)


if __name__ == "__main__":
    main()
