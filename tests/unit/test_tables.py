"""Where a table is: a path, or a name in a catalog."""

from __future__ import annotations

import pytest
from uniques.apps import rollup
from uniques.tables import Table

PLACES = [
    # (as given, parts of the name, or none for a path, in one spelling)
    ("tables/minutes", None, "tables/minutes"),
    ("./minutes", None, "./minutes"),
    ("/data/prod-eu.minutes", None, "/data/prod-eu.minutes"),
    ("s3a://bucket/minutes", None, "s3a://bucket/minutes"),
    ("dbfs:minutes", None, "dbfs:minutes"),
    ("/data/a`b", None, "/data/a`b"),
    ("minutes", ["minutes"], "minutes"),
    ("analytics.minutes", ["analytics", "minutes"], "analytics.minutes"),
    ("prod-eu.analytics.minutes", ["prod-eu", "analytics", "minutes"], "`prod-eu`.analytics.minutes"),
    ("`prod-eu`.analytics.`minutes`", ["prod-eu", "analytics", "minutes"], "`prod-eu`.analytics.minutes"),
    ("`a.b`.`c d`.`e``f`", ["a.b", "c d", "e`f"], "`a.b`.`c d`.`e``f`"),
    ("delta.`/data/minutes`", ["delta", "/data/minutes"], "delta.`/data/minutes`"),
]


@pytest.mark.parametrize(("place", "parts", "spelling"), PLACES)
def test_a_place_with_a_slash_or_a_scheme_is_a_path_and_all_else_a_name(
    place: str, parts: list[str] | None, spelling: str
) -> None:
    settings = rollup.parse_settings(["--minutes-table", place])
    table = settings.tables.minutes
    assert table == Table("--minutes-table", place)
    assert (table.is_path, table.describe()) == (parts is None, spelling)
    if parts is not None:
        assert table.parts == parts


@pytest.mark.parametrize("place", ["a.b.c.d", "a..b", ".", "..", "a b", "`a", "a.`b", "``", "a.", "prod`eu`"])
def test_a_place_that_is_neither_ends_with_one_line(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        rollup.parse_settings(["--minutes-table", place])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(
        f"rollup_users: error: --minutes-table {place!r} is not allowed: give a folder with a '/'"
    )
