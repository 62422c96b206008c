"""The README's promises that can be read off the code."""

from __future__ import annotations

import re
from pathlib import Path

import pyspark
from packages import read_packages
from uniques.apps import rollup_flags
from uniques.apps.count import parse_settings
from uniques.apps.count_flags import make_parser
from uniques.apps.count_settings import list_fixed_parameters
from uniques.core.counts import hll_error

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def read_section(heading: str) -> str:
    """A section of the README up to the next heading."""
    return re.split(r"^#+ ", README.split(f"\n{heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_the_flags_table_of_the_rollup_job_lists_every_flag_with_its_default() -> None:
    rows = re.findall(r"^\| `(--[a-z-]+)` \| (.+?) \|", read_section("### Flags of rollup_users.py"), re.MULTILINE)
    actions = [action for action in rollup_flags.make_parser()._actions if action.dest != "help"]
    defaults = {action.option_strings[0]: f"`{action.default}`" if action.default else "none" for action in actions}
    assert dict(rows) == {**defaults, "--bootstrap-servers": "`localhost:9092`"}


def test_the_flags_table_lists_every_flag_with_its_default() -> None:
    rows = re.findall(r"^\| `(--[a-z-]+)` \| (.+?) \|", read_section("## Flags"), re.MULTILINE)
    actions = [action for action in make_parser()._actions if action.dest != "help"]
    defaults = {action.option_strings[0]: f"`{action.default}`" if action.default else "none" for action in actions}
    defaults["--bootstrap-servers"] = "`localhost:9092`"
    defaults["--idle-timeout"] = "the window"
    assert dict(rows) == defaults


def test_the_changes_table_lists_what_is_fixed() -> None:
    row = re.search(r"^\| (.+?) \| fixed: needs a new checkpoint \|$", README, re.MULTILINE)
    assert row is not None
    assert set(re.findall(r"`(--[a-z-]+)`", row[1])) == set(list_fixed_parameters(parse_settings([])))


def test_the_accuracy_table_follows_the_formula() -> None:
    rows = re.findall(r"^\| ([\d.]+)(?: \(default\))? \| ([\d,]+) \| ([\d.]+) % \|", README, re.MULTILINE)
    assert len(rows) == 3
    for rsd, registers, percent in rows:
        assert round(100 * hll_error(float(rsd)), 1) == float(percent)
        assert round((1.106 / hll_error(float(rsd))) ** 2) == int(registers.replace(",", ""))


def test_the_make_targets_it_names_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert (
        set(re.findall(r"\bmake ([a-z-]+)\b", "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)))) <= targets
    )


def test_connector_coordinates_agree_everywhere() -> None:
    versions = (ROOT / "conf" / "spark-versions.txt").read_text().splitlines()
    rows = [row.split() for row in versions if not row.startswith("#")]
    pinned = dict(re.findall(r'"(pyspark|delta-spark)==([\d.]+)"', (ROOT / "pyproject.toml").read_text()))
    kafka, delta = read_packages()
    assert rows[0] == [pinned["pyspark"], pinned["delta-spark"], kafka, delta]
    assert kafka in README
    assert pyspark.__version__ in {row[0] for row in rows}
    for spark, delta_version, kafka_jar, delta_jar in rows:
        scala = "2.12" if spark.startswith("3.") else "2.13"
        assert kafka_jar == f"org.apache.spark:spark-sql-kafka-0-10_{scala}:{spark}"
        assert f"_{scala}:" in delta_jar
        assert delta_jar.endswith(f":{delta_version}")
