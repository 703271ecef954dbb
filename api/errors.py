"""From an error to an HTTP answer: one table, and the handlers that read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.envelope import ErrorEnvelope, ErrorItem
from pipeline.errors import (
    ConflictError,
    DailiesError,
    InfrastructureError,
    InvalidRequestError,
    NotFoundError,
)

log = structlog.get_logger(__name__)

#: A subclass has the status of the nearest class above it; what is not below any of these is our own mistake.
STATUS_FOR: dict[type[DailiesError], HTTPStatus] = {
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    InvalidRequestError: HTTPStatus.UNPROCESSABLE_ENTITY,
    InfrastructureError: HTTPStatus.SERVICE_UNAVAILABLE,
}

#: What every operation may answer; for the OpenAPI document.
ANY_OPERATION: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorEnvelope, "description": "Asked for under a foreign name (HOST_NOT_ALLOWED)."},
    403: {
        "model": ErrorEnvelope,
        "description": "A change that a page of another site asks for in a browser (CROSS_SITE_REQUEST).",
    },
    422: {
        "model": ErrorEnvelope,
        "description": "Not valid; `field` names the part (VALIDATION_ERROR).",
    },
    500: {"model": ErrorEnvelope, "description": "A fault of the server (INTERNAL_ERROR)."},
    503: {
        "model": ErrorEnvelope,
        "description": "The database, a queue or the bucket does not answer; try again.",
    },
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorEnvelope, "description": "There is no such thing (NOT_FOUND)."}
}
CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {
        "model": ErrorEnvelope,
        "description": "It is in another state than the request needs (CONFLICT, or a code that says which: "
        "JOB_ACTIVE, JOB_ENDED, ITEM_DELETED, ITEM_BUSY, ALREADY_RESOLVED, RECONCILE_RUNNING).",
    }
}


def error_response(
    status: int, errors: Iterable[ErrorItem], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer with ``status`` that says ``errors``."""
    body = ErrorEnvelope(errors=list(errors))
    return JSONResponse(body.model_dump(mode="json"), status_code=status, headers=headers)


def internal_error() -> JSONResponse:
    """The answer to a fault of the server: it names the request, and nothing of what is inside."""
    message = "Something went wrong in the server. Tell its operator the request_id."
    return error_response(
        HTTPStatus.INTERNAL_SERVER_ERROR, [ErrorItem(code=DailiesError.code, message=message)]
    )


def host_not_allowed() -> JSONResponse:
    """The answer to a request for another host."""
    message = "The Host of the request is not this API's; use localhost, or the host of DAILIES_API_URL."
    return error_response(HTTPStatus.BAD_REQUEST, [ErrorItem(code="HOST_NOT_ALLOWED", message=message)])


def cross_site_request() -> JSONResponse:
    """The answer to a change that a page of another site asks for."""
    message = "A page of another site may change nothing here; use the command line, or the API's own /docs."
    return error_response(HTTPStatus.FORBIDDEN, [ErrorItem(code="CROSS_SITE_REQUEST", message=message)])


def install(app: FastAPI) -> None:
    """Let every error leave ``app`` in the envelope."""
    app.add_exception_handler(DailiesError, _on_dailies_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)


def _on_dailies_error(_request: Request, error: Exception) -> JSONResponse:
    status = next((STATUS_FOR[kind] for kind in type(error).__mro__ if kind in STATUS_FOR), None)
    if status is None or not isinstance(error, DailiesError):
        log.error("request_failed", exc_info=error)
        return internal_error()
    item = ErrorItem(code=error.code, message=error.message, field=getattr(error, "field", None))
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        log.warning("dependency_unavailable", code=error.code, error=error.message)
        return error_response(status, [item], headers={"Retry-After": "5"})
    return error_response(status, [item])


def _on_invalid_request(_request: Request, error: Exception) -> JSONResponse:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, [_invalid(each) for each in found])


def _invalid(error: Mapping[str, Any]) -> ErrorItem:
    """``loc`` begins with where the value came from (path, query, body): no part of the field's name."""
    if error["type"] == "json_invalid":
        reason = error.get("ctx", {}).get("error", "")
        return ErrorItem(code="VALIDATION_ERROR", message=f"The body is not valid JSON: {reason}.")
    field = ".".join(str(part) for part in error["loc"][1:]) or None
    message = str(error["msg"]).removeprefix("Value error, ")
    return ErrorItem(code="VALIDATION_ERROR", message=message, field=field)


def _methods_of(request: Request) -> str:
    """The methods of the path asked for. The framework's own list has those of one of its routes only."""
    path = getattr(request.scope.get("route"), "path", request.url.path)
    return ", ".join(sorted(method.upper() for method in request.app.openapi()["paths"].get(path, ["get"])))


_CODES = {
    HTTPStatus.BAD_REQUEST: "VALIDATION_ERROR",
    HTTPStatus.NOT_FOUND: "NOT_FOUND",
    HTTPStatus.METHOD_NOT_ALLOWED: "METHOD_NOT_ALLOWED",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "BODY_TOO_LARGE",
}


def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses: unknown paths, methods a path has not, bodies it cannot take."""
    if not isinstance(error, HTTPException):
        return internal_error()
    status, path = HTTPStatus(error.status_code), request.url.path
    headers: Mapping[str, str] | None = error.headers
    if status == HTTPStatus.NOT_FOUND:
        message = f"There is nothing at {path}; /docs lists what there is."
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = _methods_of(request)
        headers = {"Allow": allowed}
        message = f"{path} does not answer to {request.method}, but to {allowed}."
    else:
        message = str(error.detail)
    return error_response(
        status, [ErrorItem(code=_CODES.get(status, "HTTP_ERROR"), message=message)], headers=headers
    )
