"""Why a request is not served: one JSON shape for every error, and no stack trace in any.

{"error": {"code": "question_too_long", "message": "found ..., expected ..., what to do"}}
"""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from realm.errors import (
    AnsweringError,
    CorpusError,
    LockedError,
    MaskingError,
    NoEncoderError,
    QuestionTooLongError,
    ReadOnlyError,
    RealmError,
    UnknownDocumentError,
    WithheldError,
)

SHOWN_CHARACTERS = 80
"""Of what a client sent, in a message."""
_STATUS_OF: tuple[tuple[type[RealmError], int, str], ...] = (
    (QuestionTooLongError, 422, "question_too_long"),
    (AnsweringError, 422, "question_refused"),
    (MaskingError, 422, "sentence_refused"),
    (UnknownDocumentError, 404, "no_document"),
    (CorpusError, 422, "text_refused"),
    (NoEncoderError, 409, "no_encoder"),
    (ReadOnlyError, 409, "read_only"),
)
"""Status and code of each kind of error that is about what was asked, the special ones first."""
_OVER_HTTP: dict[type[RealmError], str] = {
    UnknownDocumentError: "{}; GET /documents lists all",
    NoEncoderError: (
        "found a model without an encoder to fill a [MASK] with; expected a server that was "
        "started with --encoder RUN: ask who runs it"
    ),
    ReadOnlyError: (
        "found the passages that the model was trained with, which do not change; expected a "
        "server that was started with --docs or --library: ask who runs it"
    ),
}
"""What a client is told where an error's own words advise who called us."""
_OF_HTTP = {
    400: ("bad_request", "found a request that cannot be read, expected JSON as in /openapi.json"),
    404: ("not_found", "nothing is there; /openapi.json names what is"),
    405: ("method_not_allowed", "found a method that is not served there; see /openapi.json"),
    413: ("body_too_large", "the body is longer than the server takes"),
}
_log = logging.getLogger(__name__)


class RefusedError(Exception):
    """A request that is not served, and why."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers

    def response(self) -> JSONResponse:
        """Return what the client is told."""
        told = {"error": {"code": self.code, "message": self.message}}
        return JSONResponse(told, status_code=self.status, headers=self.headers)


class BodyRefusedError(HTTPException):
    """A body that is too long or too slow; raised while it is read, deep inside FastAPI."""

    def __init__(self, refused: RefusedError) -> None:
        super().__init__(refused.status)
        self.refused = refused


def refusal_of(error: RealmError) -> RefusedError:
    """Return what a client is told of an error that realm raises on purpose.

    One that is not about what was asked names files and folders: its message goes to the log alone.
    """
    if not isinstance(error, WithheldError):
        for kind, status, code in _STATUS_OF:
            if isinstance(error, kind):
                return RefusedError(status, code, _OVER_HTTP.get(kind, "{}").format(error))
    _log.error("%s: %s", type(error).__name__, error)
    headers = {"Retry-After": "1"}
    if isinstance(error, LockedError):
        told = "another process is changing the documents; send this again in a minute"
        return RefusedError(409, "library_locked", told, headers=headers)
    told = "the server cannot use its files; its log says which. Ask again, or tell who runs it"
    return RefusedError(503, "unavailable", told, headers=headers)


def unexpected(error: Exception, path: str) -> RefusedError:
    """Log an error of ours with its traceback, and return what the client is told: no detail."""
    _log.error("%s: %s", path, type(error).__name__, exc_info=error)
    return RefusedError(
        500, "internal", "the server failed at this request; its log says why. Others still work"
    )


def client_left() -> RefusedError:
    """Return what stands in the metrics for a client that left; nobody hears it."""
    return RefusedError(499, "client_left", "the client left before there was a response")


def add_handlers(app: FastAPI) -> None:
    """Make every error of an application's routes one of the JSON shape."""

    async def refused(_: Request, error: Exception) -> JSONResponse:
        return _as_refused(error).response()

    for kind in (RefusedError, RealmError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, refused)


def _as_refused(error: Exception) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, BodyRefusedError):
        return error.refused
    if isinstance(error, RealmError):
        return refusal_of(error)
    if isinstance(error, RequestValidationError):
        return invalid(error.errors())
    status = error.status_code if isinstance(error, HTTPException) else 500
    code, message = _OF_HTTP.get(status, ("refused", f"HTTP status {status}"))
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else None
    allowed = {name.lower(): value for name, value in (headers or {}).items()}.get("allow")
    if allowed:
        message = f"found a method that is not served there, expected {allowed}; see /openapi.json"
    return RefusedError(status, code, message, headers=headers)


def invalid(errors: Sequence[Any]) -> RefusedError:
    """Return what a client is told of a body that is not as the schema says."""
    told: list[str] = []
    code = "invalid_request"
    for error in errors[:5]:
        if isinstance(error.get("input"), bytes):  # the body as it came: nobody took it for JSON
            told.append("body: found no JSON, expected the header Content-Type: application/json")
            continue
        place = ".".join(str(part) for part in error["loc"] if part != "body") or "body"
        reason = str(error["msg"]).removeprefix("Value error, ")
        told.append(f"{_shown(place)}: {reason}{_found(error)}")
        if error["type"] == "string_too_long" and place in {"question", "query", "sentence"}:
            code = f"{place}_too_long"
    return RefusedError(422, code, "; ".join(told) + ". See /openapi.json")


def _found(error: Any) -> str:  # noqa: ANN401 - pydantic's
    """Return a short piece of what was found, where that helps and is text."""
    value = error.get("input")
    if error["type"] in {"missing", "json_invalid"} or isinstance(value, dict | list):
        return ""
    return f"; found {_shown(ascii(value))}"


def _shown(text: str) -> str:
    """Return what a client sent as a message repeats it: short, and without half characters."""
    whole = text.encode(errors="backslashreplace").decode()
    return whole if len(whole) <= SHOWN_CHARACTERS else f"{whole[:SHOWN_CHARACTERS]}..."
