"""The reference pages of the documentation are what the code says now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from make_reference import MORE, PAGES, make_pages
from uniques.apps import count_flags, rollup_flags

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_every_reference_page_is_current(spark: SparkSession) -> None:
    pages = make_pages(spark)
    stale = [name for name, text in pages.items() if (PAGES / name).read_text() != text]
    assert not stale, f"docs/reference/ differs from the code in {', '.join(stale)}: renew it with `make reference`"
    assert {path.name for path in PAGES.iterdir()} == set(pages)


def test_pages_say_more_only_about_flags_that_are_there() -> None:
    for parser in (count_flags.make_parser(), rollup_flags.make_parser()):
        assert set(MORE[parser.prog]) <= {name for action in parser._actions for name in action.option_strings}
