"""The page in a real browser: its numbers, its updates, and that everybody can read it."""

from __future__ import annotations

import re
import shutil
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from service_tables import TOTAL, Group, Minute, Tables
from test_api import serving
from test_store import make_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unique_users_service.service import Service

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on PATH")

FIRST = 1468242000  # 2016-07-11T13:00:00Z
MINUTES = 40
COLOURS = ("--text", "--quiet", "--accent", "--good", "--warn", "--bad")


def number(text: str) -> int:
    return int(text.replace(",", ""))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def tables(tmp_path: Any) -> Tables:
    """40 minutes, the last two of them open, with a breakdown."""
    tables = Tables(tmp_path, grouped=True)
    minutes = []
    for index in range(MINUTES):
        start, final = FIRST + 60 * index, index < MINUTES - 2
        users = [f"u{(7 * index + user) % 90}" for user in range(20 + index)]
        parts: list[tuple[Group, list[str]]] = [
            (('{"country":"CH"}', False), users[:12]),
            (('{"country":"DE"}', False), users[8:]),
        ]
        minutes += [Minute(start, each, final=final, group=group) for group, each in parts]
        minutes.append(Minute(start, users, final=final))
    tables.write(minutes)
    return tables


@pytest.fixture
def served(tables: Tables) -> Iterator[tuple[str, Service]]:
    with serving(tables) as found:
        yield found


@pytest.fixture
def page(browser: Browser, served: tuple[str, Service]) -> Iterator[Page]:
    """The page, drawn; it must have said nothing to the console, and asked nobody else."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, timezone_id="Asia/Kathmandu")
    opened = context.new_page()
    complaints: list[str] = []
    asked: list[str] = []
    # While it is away, and only then, the browser says that it can't be reached.
    opened.on("console", lambda message: complaints.extend([] if "ERR_INTERNET" in message.text else [message.text]))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(served[0])
    opened.wait_for_selector("#retention-table td")
    opened.wait_for_selector("#live-chart canvas")
    yield opened
    context.close()
    assert not complaints
    assert all(url.startswith((served[0], "data:")) for url in asked)


def until(page: Page, script: str, arg: object = None) -> None:
    """Waits for what a script says; Playwright's own way would evaluate text in the page, which refuses that."""
    deadline = time.monotonic() + 30
    while not page.evaluate(script, arg):
        assert time.monotonic() < deadline, script
        page.wait_for_timeout(10)


def read_table(page: Page, id_: str) -> list[list[str]]:
    rows: list[list[str]] = page.evaluate(
        "id => [...document.querySelectorAll(`#${id} tbody tr`)].map(r => [...r.cells].map(c => c.textContent))", id_
    )
    return rows


def test_the_numbers_are_those_of_the_api_and_near_the_exact_ones(
    page: Page, served: tuple[str, Service], tables: Tables
) -> None:
    first, end = FIRST + 600, FIRST + 60 * MINUTES
    asked = httpx.get(f"{served[0]}/v1/unique-users?from=2016-07-11T13:10&to=2016-07-11T13:40").json()
    _, users, events = tables.expect(first, end)
    assert number(page.inner_text("#together")) == asked["unique_users"]
    assert abs(asked["unique_users"] / len(users) - 1) <= 3 * asked["relative_error"]
    assert number(page.inner_text("#live-events")) == events
    rows = read_table(page, "live-table")
    assert len(rows) == 30
    for index, (_, shown, _, events_, state) in enumerate(rows):
        minute = tables.minutes[TOTAL, end - 60 * (index + 1)]
        assert abs(number(shown) / len(set(minute.users)) - 1) <= 3 * asked["relative_error"]
        assert number(events_) == len(minute.users)
        assert state == ("open" if index < 2 else "final")
    assert page.inner_text("#newest-error").endswith("still open")


def test_a_range_is_asked_with_the_keyboard(page: Page, served: tuple[str, Service]) -> None:
    page.fill("#from", "2016-07-11T13:05")
    page.fill("#to", "2016-07-11T13:25")
    page.select_option("#period", "minute")
    page.focus("#to")
    page.keyboard.press("Enter")
    asked = httpx.get(f"{served[0]}/v1/unique-users?from=2016-07-11T13:05&to=2016-07-11T13:25").json()
    until(
        page, "users => document.getElementById('range-users').textContent === users", arg=f"{asked['unique_users']:,}"
    )
    until(page, "document.querySelectorAll('#series-table tbody tr').length === 20")
    assert page.inner_text("#range-state") == "complete: only corrections can change it"
    assert page.inner_text("#range-from") == f"united from {asked['united_from']['minute']} minutes"
    assert "from=2016-07-11T13%3A05" in page.url
    page.reload()
    until(
        page, "users => document.getElementById('range-users').textContent === users", arg=f"{asked['unique_users']:,}"
    )


def test_a_breakdown_adds_up_on_the_page(page: Page, served: tuple[str, Service]) -> None:
    page.click("button[data-hours='0']")
    page.wait_for_selector("#breakdown-table td")
    query = "by=country&from=2016-07-11T00:00&to=2016-07-11T13:40"
    asked = httpx.get(f"{served[0]}/v1/breakdown?{query}").json()
    until(
        page,
        "text => document.getElementById('breakdown-note').textContent.includes(text)",
        arg=f"add up to {asked['sum_of_parts']:,};",
    )
    rows = read_table(page, "breakdown-table")
    assert [(row[0], number(row[1])) for row in rows] == [
        (part["group"]["country"], part["unique_users"]) for part in asked["parts"]
    ]
    assert f"together they are {asked['union']['unique_users']:,} users" in page.inner_text("#breakdown-note")


def test_a_record_moves_the_page_within_two_seconds_and_in_place(page: Page, served: tuple[str, Service]) -> None:
    page.evaluate("document.querySelector('#live-chart canvas').dataset.kept = 'yes'")
    page.evaluate("document.getElementById('together').dataset.kept = 'yes'")
    minute = Minute(FIRST + 60 * MINUTES, [f"new{user}" for user in range(55)], final=False)
    began = time.monotonic()
    served[1].store.add_records([(TOTAL, make_rows([minute]))])
    until(page, "Number(document.getElementById('newest').textContent) >= 50")
    assert time.monotonic() - began < 2
    assert page.evaluate("document.querySelector('#live-chart canvas').dataset.kept") == "yes"
    assert page.evaluate("document.getElementById('together').dataset.kept") == "yes"


def test_a_correction_is_shown_as_such(page: Page, served: tuple[str, Service]) -> None:
    start = FIRST + 60 * (MINUTES - 10)
    minute = Minute(start, [f"late{user}" for user in range(90)], revision=1)
    served[1].store.add_records([(TOTAL, make_rows([minute]))])
    until(page, "document.getElementById('live-table').textContent.includes('corrected')")
    assert [row[4] for row in read_table(page, "live-table")].index("corrected") == 9


def test_another_zone_shows_other_clocks(page: Page) -> None:
    assert read_table(page, "live-table")[0][0] == "13:39"
    page.select_option("#zone", "Asia/Kathmandu")
    until(page, "document.querySelector('#live-table tbody th').textContent === '19:24'")


def test_examples_of_rejected_events_open_and_close(
    page: Page, served: tuple[str, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    reject = {"reason": "missing_uid", "topic": "in", "partition": "1", "offset": "42", "arrival_time": "13:39"}
    rejects = [{**reject, "value": '<b>{"ts":1}</b>', "shortened": False}]
    job = {
        "events": {"read": 10, "counted": 8, "rejected": 2, "late": 0, "in_open_windows": 0},
        "rejected_by_reason": {"missing_uid": 2},
        "lag_records": 0,
    }
    accounting = {"source": "x", "problem": None, "job": job, "events_in_tables": 8, "rejects_topic": "rejects"}
    monkeypatch.setattr(served[1], "read_rejects", lambda _, limit: rejects[:limit])
    monkeypatch.setattr(served[1], "describe_accounting", lambda: accounting)
    page.click("button[data-reason='missing_uid']")
    page.wait_for_selector("#rejects[open]")
    assert page.inner_text("#rejects pre") == '<b>{"ts":1}</b>'
    assert "in, partition 1, offset 42" in page.inner_text("#rejects-list")
    page.keyboard.press("Escape")
    page.wait_for_selector("#rejects:not([open])", state="attached")
    assert [row[:2] for row in read_table(page, "accounting-table")][:3] == [
        ["counted", "8"],
        ["rejected", "2"],
        ["\u2003missing_uid", "2"],
    ]


def test_a_lost_service_is_said_and_found_again(page: Page) -> None:
    page.context.set_offline(True)
    page.evaluate("document.getElementById('range-form').requestSubmit()")
    until(page, "document.getElementById('problem').textContent === \"The service can't be reached.\"")
    page.context.set_offline(False)
    page.evaluate("document.getElementById('range-form').requestSubmit()")
    page.wait_for_selector("#problem", state="hidden")


def luminance(colour: tuple[int, ...]) -> float:
    parts = [value / 255 for value in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("look", ["light", "dark"])
def test_texts_have_enough_contrast(page: Page, look: str) -> None:
    page.select_option("#look", look)

    def read(name: str) -> float:
        text = page.evaluate("name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()", name)
        return luminance(tuple(int(text[at : at + 2], 16) for at in (1, 3, 5)))

    for ground in ("--panel", "--ground"):
        for name in COLOURS:
            bright, dark = sorted((read(ground), read(name)), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, (look, ground, name)


def test_everything_has_a_name_for_those_who_do_not_see_it(page: Page) -> None:
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('input, select, button, a, [role=img], section, dialog')].filter(e =>
             !(e.labels?.length || e.ariaLabel || e.getAttribute('aria-labelledby') || e.textContent.trim()))
             .map(e => e.outerHTML)"""
    )
    assert nameless == []
    assert re.search(r"newest has [\d,]+, all together [\d,]+", page.get_attribute("#live-chart", "aria-label") or "")
    missing = page.evaluate(
        """() => [...document.querySelectorAll('[aria-labelledby]')].filter(e =>
             !document.getElementById(e.getAttribute('aria-labelledby'))).length"""
    )
    assert missing == 0


def test_a_phone_shows_it_without_scrolling_sideways(browser: Browser, served: tuple[str, Service]) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    phone = context.new_page()
    phone.goto(served[0])
    phone.wait_for_selector("#retention-table td")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_a_token_is_asked_for_and_used(browser: Browser, tables: Tables, tmp_path: Any) -> None:
    (tmp_path / "tokens").write_text("secret\n")
    with serving(tables, "--token-file", str(tmp_path / "tokens")) as (address, _):
        context = browser.new_context()
        guarded = context.new_page()
        guarded.goto(address)
        guarded.fill("#token", "secret")
        guarded.keyboard.press("Enter")
        guarded.wait_for_selector("#retention-table td")
        guarded.wait_for_selector("#live-chart canvas")
        context.close()


def test_first_paint_takes_less_than_a_second(page: Page) -> None:
    paints = page.evaluate("performance.getEntriesByType('paint').map(entry => entry.startTime)")
    assert max(paints) < 1_000
