"""What is asked of every request, and how a refusal looks: problem+json (RFC 9457) with one sentence."""

from __future__ import annotations

import hmac
import json
import time
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from unique_users_service import models
from unique_users_service.errors import AskError, QuestionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from unique_users_service.monitoring import ServiceMetrics
    from unique_users_service.service import Service

PROBLEM = "application/problem+json"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# They hold no data.
OPEN_PATHS = ("/", "/healthz", "/readyz")
RANGE = {"from", "to", "timezone", "format"}
OF_GROUP = {"group", "other"}
NAMES: dict[str, set[str]] = {
    "/v1/unique-users": RANGE | OF_GROUP,
    "/v1/series": RANGE | OF_GROUP | {"period", "week_start"},
    "/v1/rolling": RANGE | OF_GROUP | {"days"},
    "/v1/overlap": {"a", "b", "timezone", "format", "group_b"} | OF_GROUP,
    "/v1/retention": {"period", "periods", "to", "timezone", "week_start", "format"} | OF_GROUP,
    "/v1/breakdown": RANGE | {"by"},
    "/v1/accounting": {"format"},
    "/v1/rejects": {"reason", "limit", "format"},
    "/v1/about": {"format"},
    "/v1/live": set(),
}


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {"application/problem+json": {"schema": models.Problem.model_json_schema()}},
    }
    for status, text in {
        400: "A parameter is wrong",
        401: "A bearer token is needed",
        410: "Minutes that this needs are no longer kept",
        503: "There is no data yet, or too many ask",
    }.items()
}


def describe_problem(status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as problem+json."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(
        json.dumps(body, ensure_ascii=False),
        status,
        {**HEADERS, **(headers or {})},
        media_type="application/problem+json",
    )


def add_errors(app: FastAPI) -> None:
    """Lets all errors be problem+json with one sentence."""

    @app.exception_handler(AskError)
    async def refuse(_: Request, error: AskError) -> Response:
        return describe_problem(
            error.status, error.title, error.detail, {"Retry-After": "1"} if error.status == 503 else {}
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = str(first["loc"][-1])
        said = "is missing" if first["type"] == "missing" else f"{first['input']!r}: {first['msg'].lower()}"
        return describe_problem(400, QuestionError.title, f"{name} {said}")

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        detail = f"{request.method} {request.url.path}: {error.detail}"
        return describe_problem(error.status_code, str(error.detail), detail, dict(error.headers or {}))


def guard(service: Service, metrics: ServiceMetrics) -> Callable[..., Any]:
    """A middleware that asks for a token, refuses unknown parameters, and counts requests."""
    tokens = [token.encode() for token in service.settings.tokens]

    def is_known(request: Request) -> bool:
        path = request.url.path
        if not tokens or path in OPEN_PATHS or path.startswith("/page/"):
            return True
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        given = token.strip().encode()
        return kind.lower() == "bearer" and any(hmac.compare_digest(given, each) for each in tokens)

    async def handle(request: Request, call: Callable[[Request], Any]) -> Any:
        began = time.perf_counter()
        if not is_known(request):
            headers = {"WWW-Authenticate": "Bearer"}
            response = describe_problem(401, "A bearer token is needed", "give Authorization: Bearer TOKEN", headers)
        else:
            response = check_names(request) or await call(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
        route = request.scope.get("route")
        path = getattr(route, "path", "other")
        metrics.requests.labels(path, str(response.status_code)).inc()
        if path != "/v1/live":
            metrics.seconds.labels(path).observe(time.perf_counter() - began)
        return response

    def check_names(request: Request) -> Response | None:
        allowed = NAMES.get(request.url.path)
        unknown = [name for name in request.query_params if allowed is not None and name not in allowed]
        if not unknown:
            return None
        detail = f"{unknown[0]!r} is no parameter of {request.url.path}: there are {', '.join(sorted(allowed or ()))}"
        return describe_problem(400, QuestionError.title, detail)

    return handle
