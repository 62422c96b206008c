"""The questions over HTTP: `/v1`, the page at `/`, health and metrics."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from uniques import __version__

from unique_users_service import models, questions
from unique_users_service.asking import Asker
from unique_users_service.errors import BusyError, UnavailableError
from unique_users_service.guarding import PROBLEMS, add_errors, guard
from unique_users_service.live import Wake, stream
from unique_users_service.monitoring import ServiceMetrics
from unique_users_service.parameters import (
    parse_calendar,
    parse_days,
    parse_interval,
    parse_key,
    parse_minute,
    parse_names,
    parse_period,
    parse_range,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from unique_users_service.service import Service
    from unique_users_service.state import State

PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}

From = Annotated[str, Query(alias="from", description="a full minute, ISO 8601", examples=["2016-07-11T13:39"])]
To = Annotated[str, Query(description="a full minute, ISO 8601, exclusive", examples=["2016-07-12T00:00"])]
Zone = Annotated[
    str | None, Query(description="zone of times without an offset, and of the answer", examples=["Europe/Zurich"])
]
WeekStart = Annotated[str | None, Query(description="first day of a week", examples=["monday"])]
Group = Annotated[
    list[str], Query(description="field=value, once for each field, or a JSON object", examples=[["country=CH"]])
]
Other = Annotated[bool, Query(description="the rest of a breakdown: all values without a group of their own")]
Format = Annotated[Literal["json", "csv"] | None, Query(description="json, or csv; also by the header Accept")]
PeriodName = Literal["minute", "hour", "day", "week", "month", "year"]


def make_app(service: Service) -> FastAPI:
    """The application; it starts and ends the service with itself."""
    asker, metrics = Asker(service), ServiceMetrics(service)
    limits = service.settings.limits
    wake = Wake()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        wake.attach(loop)
        service.store.listen(lambda _: wake.call())
        await loop.run_in_executor(None, service.start)
        yield
        wake.end()
        asker.close()
        await loop.run_in_executor(None, service.close)

    app = FastAPI(
        title="Unique users",
        version=__version__,
        summary="How many users there were, in any range of time, with the error of each number.",
        docs_url=None,  # they would load their code from another server
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        lifespan=lifespan,
    )
    app.state.service = service
    app.middleware("http")(guard(service, metrics))
    if service.settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(service.settings.origins), allow_headers=["Authorization"]
        )
    add_errors(app)

    @app.get("/v1/unique-users", **documented(models.RangeAnswer, "The unique users of any range of full minutes."))
    async def unique_users(
        request: Request,
        begin: From,
        to: To,
        timezone: Zone = None,
        group: Group = [],  # noqa: B006 - FastAPI copies it
        other: Other = False,
        format: Format = None,  # noqa: A002 - the parameter's name
    ) -> Response:
        def compute(state: State) -> dict[str, Any]:
            calendar = parse_calendar(state, timezone)
            key, range_ = parse_key(group, other, state), parse_range(begin, to, calendar)
            return questions.answer_range(state, calendar, key, range_, limits)

        return await asker.ask(request, format, compute)

    @app.get("/v1/series", **documented(models.SeriesAnswer, "The users of each period that overlaps a range."))
    async def series(
        request: Request,
        period: PeriodName,
        begin: From,
        to: To,
        timezone: Zone = None,
        week_start: WeekStart = None,
        group: Group = [],  # noqa: B006 - as above
        other: Other = False,
        format: Format = None,  # noqa: A002 - as above
    ) -> Response:
        def compute(state: State) -> dict[str, Any]:
            calendar = parse_calendar(state, timezone, week_start)
            key, range_ = parse_key(group, other, state), parse_range(begin, to, calendar)
            return questions.answer_series(state, calendar, key, parse_period(period), range_, limits)

        return await asker.ask(request, format, compute)

    @app.get("/v1/rolling", **documented(models.RollingAnswer, "The users of the last 1, 7, 28 days, day by day."))
    async def rolling(
        request: Request,
        begin: From,
        to: To,
        days: Annotated[str, Query(description="numbers of days", examples=["1,7,28"])] = "1,7,28",
        timezone: Zone = None,
        group: Group = [],  # noqa: B006 - as above
        other: Other = False,
        format: Format = None,  # noqa: A002 - as above
    ) -> Response:
        def compute(state: State) -> dict[str, Any]:
            calendar = parse_calendar(state, timezone)
            key, range_ = parse_key(group, other, state), parse_range(begin, to, calendar)
            return questions.answer_rolling(state, calendar, key, parse_days(days), range_, limits)

        return await asker.ask(request, format, compute)

    @app.get("/v1/overlap", **documented(models.OverlapAnswer, "How many users two ranges have in common."))
    async def overlap(
        request: Request,
        a: Annotated[str, Query(description="from/to", examples=["2016-07-11/2016-07-12"])],
        b: Annotated[str, Query(description="from/to", examples=["2016-07-12/2016-07-13"])],
        timezone: Zone = None,
        group: Group = [],  # noqa: B006 - as above
        other: Other = False,
        group_b: Annotated[list[str], Query(description="the group of b, where it is another one")] = [],  # noqa: B006
        format: Format = None,  # noqa: A002 - as above
    ) -> Response:
        def compute(state: State) -> dict[str, Any]:
            calendar = parse_calendar(state, timezone)
            key = parse_key(group, other, state)
            sides = [
                (key, parse_interval("a", a, calendar)),
                (parse_key(group_b, False, state) if group_b else key, parse_interval("b", b, calendar)),
            ]
            return questions.answer_overlap(state, calendar, sides, limits)

        return await asker.ask(request, format, compute)

    @app.get("/v1/retention", **documented(models.RetentionAnswer, "How many users of each period came again later."))
    async def retention(
        request: Request,
        period: Literal["day", "week", "month"] = "week",
        periods: Annotated[int, Query(ge=2, le=26, description="how many")] = 8,
        to: Annotated[
            str | None,
            Query(
                description="the last period holds the minute before; without it: the last one with data",
                examples=["2016-09-01"],
            ),
        ] = None,
        timezone: Zone = None,
        week_start: WeekStart = None,
        group: Group = [],  # noqa: B006 - as above
        other: Other = False,
        format: Format = None,  # noqa: A002 - as above
    ) -> Response:
        def compute(state: State) -> dict[str, Any]:
            calendar = parse_calendar(state, timezone, week_start)
            key = parse_key(group, other, state)
            before = parse_minute("to", to, calendar) if to else (state.span(key) or (0, 86_400))[1]
            return questions.answer_retention(state, calendar, key, period, periods, before, limits)

        return await asker.ask(request, format, compute)

    @app.get("/v1/breakdown", **documented(models.BreakdownAnswer, "The users of each group, and of all together."))
    async def breakdown(
        request: Request,
        by: Annotated[str, Query(description="fields, as the main job's --by has them", examples=["country"])],
        begin: From,
        to: To,
        timezone: Zone = None,
        format: Format = None,  # noqa: A002 - as above
    ) -> Response:
        def compute(state: State) -> dict[str, Any]:
            calendar = parse_calendar(state, timezone)
            return questions.answer_breakdown(
                state, calendar, parse_names(by), parse_range(begin, to, calendar), limits
            )

        return await asker.ask(request, format, compute)

    @app.get("/v1/accounting", **documented(models.AccountingAnswer, "Where every event went, lag and progress."))
    async def accounting(request: Request, format: Format = None) -> Response:  # noqa: A002 - as above
        return await asker.ask(request, format, lambda _: service.describe_accounting(), keep=False)

    @app.get("/v1/rejects", **documented(models.RejectsAnswer, "Examples of rejected events, the newest first."))
    async def rejects(
        request: Request,
        reason: Annotated[str | None, Query(description="only such", examples=["missing_uid"])] = None,
        limit: Annotated[int, Query(ge=1, le=100, description="how many at most")] = 10,
        format: Format = None,  # noqa: A002 - as above
    ) -> Response:
        def compute(_: State) -> dict[str, Any]:
            from confluent_kafka import KafkaException

            try:
                return {"rejects": service.read_rejects(reason, limit)}
            except KafkaException as error:
                raise UnavailableError(f"the rejects topic can't be read: {error.args[0]}") from error

        return await asker.ask(request, format, compute, keep=False)

    @app.get("/v1/about", **documented(models.AboutAnswer, "What there is to ask for."))
    async def about(request: Request, format: Format = None) -> Response:  # noqa: A002 - as above
        return await asker.ask(request, format, lambda _: service.describe_about(), keep=False)

    @app.get(
        "/v1/live",
        response_class=StreamingResponse,
        summary="The last 30 minutes, again with each change, as server-sent events.",
        responses={200: {"content": {"text/event-stream": {"example": "event: minutes\ndata: {…}\n\n"}}}, **PROBLEMS},
    )
    async def live() -> StreamingResponse:
        if wake.viewers >= service.settings.viewers:
            raise BusyError(f"{wake.viewers} pages are kept up to date: the service keeps no more")
        return StreamingResponse(
            stream(service, wake, metrics), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    @app.get("/healthz", include_in_schema=False)
    async def health() -> dict[str, Any]:
        return service.describe_health()

    @app.get("/readyz", include_in_schema=False)
    async def ready(response: Response) -> dict[str, Any]:
        response.status_code = 200 if service.is_ready else 503
        return service.describe_health()

    @app.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        return Response(metrics.write(), media_type="text/plain; version=0.0.4; charset=utf-8")

    assets = {path.name: path for path in sorted(PAGE.iterdir())} if PAGE.is_dir() else {}

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return serve_asset(assets["index.html"])

    @app.get("/page/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in assets:
            raise HTTPException(404)
        return serve_asset(assets[name])

    return app


def serve_asset(path: Path) -> Response:
    """A file of the page."""
    return Response(path.read_bytes(), media_type=f"{TYPES.get(path.suffix, 'text/plain')}; charset=utf-8")


def documented(model: type[models.Model], summary: str) -> dict[str, Any]:
    """What OpenAPI says of an answer."""
    csv = {"text/csv": {"schema": {"type": "string"}}}
    return {"response_model": model, "summary": summary, "responses": {200: {"content": csv}, **PROBLEMS}}
