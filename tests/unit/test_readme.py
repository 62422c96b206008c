"""The promises of README and documentation that can be read off the code."""

from __future__ import annotations

import re
from pathlib import Path

import pyspark
from packages import read_packages
from uniques.apps import count_flags, rollup_flags
from uniques.apps.count import parse_settings
from uniques.apps.count_flags import make_parser
from uniques.apps.fixed_parameters import list_fixed_parameters
from uniques.core.counts import hll_error

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
PAGES = {"README.md": README, **{str(path): path.read_text() for path in DOCS.rglob("*.md")}}


def read_page(name: str) -> str:
    """A page of the documentation."""
    return (DOCS / name).read_text()


def read_section(heading: str) -> str:
    """A section of the README up to the next heading."""
    return re.split(r"^#+ ", README.split(f"\n{heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def make_anchor(heading: str) -> str:
    """How forges name the anchor of a heading."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 1_000


def test_what_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#([^)]+))?\)", README)
    assert len(links) > 20
    for path, anchor in links:
        assert (ROOT / path).exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE)
            assert anchor in {make_anchor(heading) for heading in headings}, (path, anchor)


def test_the_readme_shows_at_most_ten_flags_with_their_defaults() -> None:
    rows = re.findall(r"^\| `(--[a-z-]+)` \| (.+?) \|", read_section("## Flags people change"), re.MULTILINE)
    assert 0 < len(rows) <= 10
    actions = {action.option_strings[0]: action for action in make_parser()._actions}
    for flag, default in rows:
        assert default == (f"`{actions[flag].default}`" if actions[flag].default else "none"), flag


def test_every_flag_that_a_command_in_the_documentation_gives_exists() -> None:
    known = {
        script: {name for action in parser._actions for name in action.option_strings}
        for script, parser in (
            ("unique_users", count_flags.make_parser()),
            ("rollup_users", rollup_flags.make_parser()),
        )
    }
    given = 0
    for name, text in PAGES.items():
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            for command in re.sub(r"\s*#.*", "", block.replace("\\\n", " ")).splitlines():
                for script, flags in known.items():
                    after = command.partition(f"jobs/{script}.py")[2]
                    used = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", after))
                    given += len(used)
                    assert used <= flags, (name, command)
    assert given > 20


def test_the_flags_table_of_the_rollup_job_lists_every_flag_with_its_default() -> None:
    page = read_page("reference/rollup-users-flags.md")
    rows = re.findall(r"^\| `(--[a-z-]+)` \| (.+?) \|", page, re.MULTILINE)
    actions = [action for action in rollup_flags.make_parser()._actions if action.dest != "help"]
    defaults = {action.option_strings[0]: f"`{action.default}`" if action.default else "none" for action in actions}
    assert dict(rows) == {**defaults, "--bootstrap-servers": "`localhost:9092`"}


def test_the_flags_table_lists_every_flag_with_its_default() -> None:
    page = read_page("reference/unique-users-flags.md")
    rows = re.findall(r"^\| `(--[a-z-]+)` \| (.+?) \|", page, re.MULTILINE)
    actions = [action for action in make_parser()._actions if action.dest != "help"]
    defaults = {action.option_strings[0]: f"`{action.default}`" if action.default else "none" for action in actions}
    defaults["--bootstrap-servers"] = "`localhost:9092`"
    defaults["--delivery"] = "`exactly-once`"  # where the driver has Kafka's client
    assert dict(rows) == defaults


def test_the_changes_table_lists_what_is_fixed() -> None:
    page = read_page("operate/changes.md")
    row = re.search(r"^\| (.+?) \| fixed: needs a new checkpoint \|$", page, re.MULTILINE)
    assert row is not None
    assert set(re.findall(r"`(--[a-z-]+)`", row[1])) == set(list_fixed_parameters(parse_settings([])))


def test_the_accuracy_table_follows_the_formula() -> None:
    page = read_page("concepts/accuracy.md")
    rows = re.findall(r"^\| ([\d.]+)(?: \(default\))? \| ([\d,]+) \| ([\d.]+) % \|", page, re.MULTILINE)
    assert len(rows) == 3
    for rsd, registers, percent in rows:
        assert round(100 * hll_error(float(rsd)), 1) == float(percent)
        assert round((1.106 / hll_error(float(rsd))) ** 2) == int(registers.replace(",", ""))


def test_the_make_targets_it_names_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name, text in PAGES.items():
        blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        named = {
            word for line in re.findall(r"^make ([a-z -]+)", "\n".join(blocks), re.MULTILINE) for word in line.split()
        }
        named |= set(re.findall(r"`make ([a-z-]+)", text))
        assert named <= targets, name


def test_connector_coordinates_agree_everywhere() -> None:
    versions = (ROOT / "conf" / "spark-versions.txt").read_text().splitlines()
    rows = [row.split() for row in versions if not row.startswith("#")]
    pinned = dict(re.findall(r'"(pyspark|delta-spark)==([\d.]+)"', (ROOT / "pyproject.toml").read_text()))
    kafka, delta, avro = read_packages()
    assert rows[0] == [pinned["pyspark"], pinned["delta-spark"], kafka, delta, avro]
    assert kafka in read_page("deploy/standalone.md")
    assert delta in read_page("deploy/standalone.md")
    assert delta in read_page("guides/rollups.md")
    assert pyspark.__version__ in {row[0] for row in rows}
    for spark, delta_version, kafka_jar, delta_jar, avro_jar in rows:
        scala = "2.12" if spark.startswith("3.") else "2.13"
        assert kafka_jar == f"org.apache.spark:spark-sql-kafka-0-10_{scala}:{spark}"
        assert avro_jar == f"org.apache.spark:spark-avro_{scala}:{spark}"
        assert f"_{scala}:" in delta_jar
        assert delta_jar.endswith(f":{delta_version}")
