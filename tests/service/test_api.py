"""The API: what it answers, what it refuses and how, and that nothing brings it down."""

from __future__ import annotations

import csv
import io
import json
import socket
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from service_tables import TOTAL, Minute, Tables, draw_minutes
from starlette.testclient import TestClient
from test_questions import grouped
from unique_users_service import models, server
from unique_users_service.api import make_app
from unique_users_service.flags import parse_service
from unique_users_service.service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

FIRST = 1468242000  # 2016-07-11T13:00:00Z
RANGE = "from=2016-07-11T13:10&to=2016-07-11T14:25"


def start_service(tables: Tables, *flags: str) -> Service:
    minutes, rollups = tables.places
    return Service(parse_service(["--minutes-table", minutes, "--rollups-table", rollups, *flags]))


@contextmanager
def client_of(tables: Tables, *flags: str) -> Iterator[TestClient]:
    """A client of the application, which runs in this process, once it has data or knows that there are none."""
    service = start_service(tables, *flags)
    with TestClient(make_app(service), raise_server_exceptions=False) as client:
        deadline = time.monotonic() + 60
        while service.store.problem == "the tables were not read yet" or not service.is_caught_up:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield client


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return grouped(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def client(tables: Tables) -> Iterator[TestClient]:
    with client_of(tables) as found:
        yield found


def get(client: TestClient, path: str, status: int = 200) -> Any:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return answer.json()


QUESTIONS: list[tuple[str, type[models.Model]]] = [
    (f"/v1/unique-users?{RANGE}", models.RangeAnswer),
    (f"/v1/unique-users?{RANGE}&group=country=CH", models.RangeAnswer),
    (f"/v1/series?period=hour&{RANGE}", models.SeriesAnswer),
    (f"/v1/series?period=minute&{RANGE}&timezone=Asia/Kathmandu", models.SeriesAnswer),
    ("/v1/rolling?from=2016-07-10&to=2016-07-13", models.RollingAnswer),
    ("/v1/overlap?a=2016-07-11T13:00/2016-07-11T13:30&b=2016-07-11T13:30/2016-07-11T14:00", models.OverlapAnswer),
    ("/v1/retention?period=day&periods=3", models.RetentionAnswer),
    (f"/v1/breakdown?by=country&{RANGE}", models.BreakdownAnswer),
    ("/v1/accounting", models.AccountingAnswer),
    ("/v1/rejects", models.RejectsAnswer),
    ("/v1/about", models.AboutAnswer),
]


@pytest.mark.parametrize(("path", "model"), QUESTIONS)
def test_answers_are_as_openapi_describes_them(client: TestClient, path: str, model: type[models.Model]) -> None:
    model.model_validate(get(client, path))


@pytest.mark.parametrize("path", [path for path, _ in QUESTIONS])
def test_answers_come_as_csv_too(client: TestClient, path: str) -> None:
    answer = client.get(f"{path}{'&' if '?' in path else '?'}format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert all(len(row) == len(rows[0]) for row in rows)
    assert answer.text == client.get(path, headers={"Accept": "text/csv"}).text


def test_a_range_of_a_group_is_that_of_its_users(tables: Tables, client: TestClient) -> None:
    answer = get(client, f"/v1/unique-users?{RANGE}&group=country=CH")
    _, users, events = tables.expect(FIRST + 600, FIRST + 5_100, ('{"country":"CH"}', False))
    assert answer["events"] == events
    assert abs(answer["unique_users"] / len(users) - 1) <= 3 * answer["relative_error"]
    assert answer["low"] <= len(users) <= answer["high"]
    assert answer["group"] == {"country": "CH"}
    rest = get(client, f'/v1/unique-users?{RANGE}&group={{"country":null}}&other=true')
    assert rest["events"] == tables.expect(FIRST + 600, FIRST + 5_100, ('{"country":null}', True))[2]


def test_times_follow_the_zone_and_their_own_offset(client: TestClient) -> None:
    named = get(client, "/v1/unique-users?from=2016-07-11T15:10&to=2016-07-11T16:25&timezone=Europe/Zurich")
    with_offset = get(client, "/v1/unique-users?from=2016-07-11T15:10%2B02:00&to=2016-07-11T14:25Z")
    with_lost_plus = get(client, "/v1/unique-users?from=2016-07-11T15:10+02:00&to=2016-07-11T14:25Z")
    plain = get(client, f"/v1/unique-users?{RANGE}")
    assert named["from"] == "2016-07-11T15:10:00+02:00"
    for other in (named, with_offset, with_lost_plus):
        assert {name: other[name] for name in ("unique_users", "events", "united_from")} == {
            name: plain[name] for name in ("unique_users", "events", "united_from")
        }


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v1/unique-users?from=yesterday&to=2016-07-12", "from 'yesterday' is no time: give one such as"),
        ("/v1/unique-users?from=2016-07-11T13:39:30&to=2016-07-12", "is no full minute"),
        ("/v1/unique-users?from=2016-07-12&to=2016-07-11", "is not after from"),
        ("/v1/unique-users?to=2016-07-11", "from is missing"),
        ("/v1/unique-users?form=1", "'form' is no parameter of /v1/unique-users: there are format, from, group"),
        (f"/v1/unique-users?{RANGE}&timezone=Mars", "timezone 'Mars' is no time zone: give one such as UTC"),
        (f"/v1/unique-users?{RANGE}&group=country=XX", "there are no users of that group"),
        (f"/v1/unique-users?{RANGE}&group=CH", "is no field and value: give country=CH"),
        ("/v1/unique-users?from=2016-07-11&to=2036-07-11", "days long: 3,660 are allowed"),
        ("/v1/unique-users?from=0001-01-01&to=2016-07-11", "is not between 1971 and 2199"),
        (f"/v1/series?period=eon&{RANGE}", "period 'eon': input should be 'minute'"),
        ("/v1/series?period=minute&from=2016-01-01&to=2016-12-31", "points"),
        ("/v1/rolling?from=2016-07-11&to=2016-07-12&days=0", "days '0' are no numbers from 1 to 366"),
        ("/v1/retention?periods=1000", "periods '1000': input should be less than or equal to 26"),
        ("/v1/overlap?a=2016-07-11&b=2016-07-11/2016-07-12", "a '2016-07-11' is no interval"),
        (f"/v1/breakdown?by=app&{RANGE}", "there is no such breakdown; there are country"),
    ],
)
def test_a_wrong_question_gets_one_sentence(client: TestClient, path: str, says: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == 400
    assert says in problem["detail"]
    assert "\n" not in problem["detail"]


def test_paths_and_methods_that_are_none_are_problems_too(client: TestClient) -> None:
    assert client.get("/v2/unique-users").json()["status"] == 404
    assert client.post("/v1/about").json()["status"] == 405


def test_a_missing_table_is_said_and_the_service_stays_up(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    with client_of(tables, "--refresh-interval", "1 second") as client:
        assert get(client, f"/v1/unique-users?{RANGE}", 503)["detail"].startswith("there is no data yet")
        assert client.get("/readyz").status_code == 503
        health = get(client, "/healthz")
        assert "there is no Delta table" in health["problems"]["tables"]
        get(client, "/v1/about")
        tables.write(draw_minutes(FIRST, 100, 60))
        deadline = time.monotonic() + 60
        while client.get("/readyz").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert get(client, f"/v1/unique-users?{RANGE}")["events"] == tables.expect(FIRST + 600, FIRST + 5_100)[2]


def test_a_token_is_asked_for(tables: Tables, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("first\nsecond\n")
    with client_of(tables, "--token-file", str(tmp_path / "tokens")) as client:
        path = f"/v1/unique-users?{RANGE}"
        answer = client.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get(path, headers={"Authorization": "Bearer third"}).status_code == 401
        assert client.get(path, headers={"Authorization": "Bearer second"}).status_code == 200
        assert client.get("/metrics").status_code == 401
        assert client.get("/healthz").status_code == 200


def test_other_pages_may_ask_only_when_they_are_named(tables: Tables) -> None:
    origin = {"Origin": "https://dashboards.example.com"}
    with client_of(tables) as client:
        assert "access-control-allow-origin" not in client.get("/v1/about", headers=origin).headers
    with client_of(tables, "--allow-origin", origin["Origin"]) as client:
        answer = client.get("/v1/about", headers=origin)
        assert answer.headers["access-control-allow-origin"] == origin["Origin"]
        assert "access-control-allow-origin" not in client.get("/v1/about", headers={"Origin": "https://x.org"}).headers


def test_metrics_say_what_was_asked(client: TestClient) -> None:
    get(client, "/v1/about")
    text = client.get("/metrics").text
    assert 'unique_users_service_requests_total{path="/v1/about",status="200"}' in text
    assert "unique_users_service_tables_readable 1.0" in text


def test_the_job_says_where_every_event_went(tables: Tables) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    metrics = b"""# TYPE unique_users_events_read counter
unique_users_events_read_total 100.0
unique_users_events_counted_total 90.0
unique_users_events_rejected_total{reason="missing_uid"} 4.0
unique_users_events_rejected_total{reason="not_json"} 1.0
unique_users_events_late_total 2.0
unique_users_events_in_open_windows 3.0
unique_users_lag_records 7.0
unique_users_progress_timestamp_seconds 1468242000.0
"""

    class Job(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(metrics)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Job) as job:
        threading.Thread(target=job.serve_forever, daemon=True).start()
        with client_of(tables, "--job-metrics", f"http://127.0.0.1:{job.server_port}/metrics") as client:
            answer = get(client, "/v1/accounting")
        job.shutdown()
    events = answer["job"]["events"]
    assert events == {"read": 100, "counted": 90, "rejected": 5, "late": 2, "in_open_windows": 3}
    assert answer["job"]["rejected_by_reason"] == {"missing_uid": 4, "not_json": 1}
    assert answer["job"]["lag_records"] == 7
    assert answer["events_in_tables"] == sum(len(each.users) for (of, _), each in tables.minutes.items() if of == TOTAL)


@contextmanager
def serving(tables: Tables, *flags: str) -> Iterator[tuple[str, Service]]:
    """The service on a port of its own, as its command serves it."""
    service = start_service(tables, *flags)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            make_app(service), http=server.ImpatientProtocol, ws="none", log_config=None, timeout_graceful_shutdown=1
        )
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, args=([listener],))
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            deadline = time.monotonic() + 60
            while not service.is_ready and time.monotonic() < deadline:
                time.sleep(0.01)
            yield address, service
        finally:
            running.should_exit = True
            thread.join()


def read_events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_a_change_reaches_those_who_look_at_once(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write(draw_minutes(FIRST, 40, 60))
    with serving(tables, "--refresh-interval", "1 second") as (address, _):
        with httpx.stream("GET", f"{address}/v1/live", timeout=30) as stream:
            events = read_events(stream.iter_lines())
            before = next(events)
            assert len(before["minutes"]) == 30
            tables.write([Minute(FIRST + 2_400, ["a", "b", "c"])])
            began = time.monotonic()
            after = next(events)
            assert time.monotonic() - began < 30
        assert after["minutes"][-1]["unique_users"] == 3
        assert after["minutes"][-2] == before["minutes"][-1]
        asked = httpx.get(f"{address}/v1/unique-users?from=2016-07-11T13:11&to=2016-07-11T13:41").json()
        assert after["together"]["unique_users"] == asked["unique_users"]


def test_slow_clients_are_let_go_and_others_are_answered(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    with serving(tables) as (address, _):
        port = int(address.rpartition(":")[2])
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        for each in slow:
            each.sendall(b"GET /v1/about HTTP/1.1\r\nHost: x\r\n")
        assert httpx.get(f"{address}/v1/about").status_code == 200
        for each in slow:
            each.settimeout(30)
            assert each.recv(100) == b""
            each.close()


def test_too_many_questions_and_viewers_are_told_to_come_again(tables: Tables) -> None:
    with serving(tables, "--max-questions", "1", "--max-viewers", "1") as (address, service):
        entered, leave = threading.Event(), threading.Event()

        def wait() -> dict[str, Any]:
            entered.set()
            leave.wait(60)
            return {"read": 1}

        service.job.read = wait  # type: ignore[method-assign]
        asking = threading.Thread(target=lambda: httpx.get(f"{address}/v1/accounting", timeout=60))
        asking.start()
        assert entered.wait(60)
        busy = httpx.get(f"{address}/v1/about")
        leave.set()
        asking.join()
        assert busy.status_code == 503
        assert busy.headers["retry-after"] == "1"
        assert "ask again in a second" in busy.json()["detail"]
        with httpx.stream("GET", f"{address}/v1/live", timeout=30) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: minutes"
            assert httpx.get(f"{address}/v1/live").status_code == 503


@pytest.fixture(scope="module")
def api_schema(tables: Tables) -> Any:
    """The API's own description, asked of an application that answers."""
    service = start_service(tables)
    service.store.refresh()
    app = make_app(service)
    app.router.lifespan_context = no_lifespan
    return schemathesis.openapi.from_asgi("/v1/openapi.json", app)


@asynccontextmanager
async def no_lifespan(_: Any) -> AsyncIterator[None]:
    """The store is read already, and nothing follows it."""
    yield


FUZZED = sorted({path.partition("?")[0] for path, _ in QUESTIONS})


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("path", FUZZED)
def test_no_question_brings_the_service_down(api_schema: Any, path: str, mode: GenerationMode) -> None:
    operation = api_schema[path]["GET"]
    if mode == GenerationMode.NEGATIVE and not operation.query:
        pytest.skip("it takes no parameter")

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        response = case.call()
        assert response.status_code < 500, response.text
        case.validate_response(response, excluded_checks=[positive_data_acceptance, negative_data_rejection])

    ask()
