"""The documents: add, replace, remove, list."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from realm.errors import ReadOnlyError
from realm.records import Document, DocumentFormat
from realm.serving.gate import client_of
from realm.serving.refusals import BodyRefusedError, RefusedError, invalid, refusal_of
from realm.serving.requests import DocumentRequest, check_id
from realm.serving.responses import (
    ChangesModel,
    DocumentModel,
    ListingModel,
    ProgressModel,
    responses,
)
from realm.serving.service import Service

MAX_FILES = 1_000
"""Of one upload."""
FORMAT_OF: dict[str, DocumentFormat] = {".txt": "text", ".md": "markdown", ".jsonl": "jsonl"}
"""By the ending of a file's name."""


def document_routes(service: Service) -> APIRouter:
    """Return the routes of documents."""
    router = APIRouter(prefix="/documents", tags=["documents"])

    @router.post(
        "",
        response_model=ChangesModel,
        responses=responses(409, 413, 415, 422),
        openapi_extra={"requestBody": _body_schema()},
    )
    async def add(request: Request) -> JSONResponse:
        """Add documents, or replace those with the same id.

        Either one document as JSON, or files as a form (`multipart/form-data`): each file's name
        is its id, its ending its format (.txt, .md, .jsonl). They are on disk when this returns,
        and the next answer knows them; only what changed is embedded.
        """
        changes = await service.add(await _documents_of(request), client=client_of(request.scope))
        return JSONResponse(changes.as_dict())

    @router.get("", response_model=ListingModel, responses=responses())
    async def listing(request: Request) -> JSONResponse:
        """List the documents."""
        return await service.look(  # long, where there are many
            lambda: _listing(service), client=client_of(request.scope)
        )

    @router.get("/progress", response_model=ProgressModel, responses=responses())
    async def progress() -> JSONResponse:
        """Say how far the documents being added are embedded; 0 of 0 when none is."""
        done, total = service.progress
        return JSONResponse({"done": done, "total": total})

    @router.get("/{id:path}", response_model=DocumentModel, responses=responses(404))
    async def one(id: str, request: Request) -> JSONResponse:  # noqa: A002 - as the path has it
        """Return one document, whole."""
        try:
            document = await service.look(
                lambda: service.model.document(id), client=client_of(request.scope)
            )
        except ReadOnlyError as error:  # a run's own passages: there are no documents
            raise RefusedError(404, "no_document", refusal_of(error).message) from None
        kept = ("id", "text", "title", "format")
        return JSONResponse({name: getattr(document, name) for name in kept})

    @router.delete("/{id:path}", response_model=ChangesModel, responses=responses(404, 409))
    async def remove(id: str, request: Request) -> JSONResponse:  # noqa: A002 - as the path has it
        """Remove a document; no question from now on is answered from it."""
        return JSONResponse((await service.remove(id, client=client_of(request.scope))).as_dict())

    return router


def _listing(service: Service) -> JSONResponse:
    told = [asdict(info) for info in service.model.documents()]
    num_passages = service.model.status()["num_passages"]
    return JSONResponse({"documents": told, "num_passages": num_passages})


async def _documents_of(request: Request) -> list[Document]:
    """Return what a request brings.

    Raises:
        RefusedError: nothing that can be read.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return [_from_json(await request.body())]
    if kind == "multipart/form-data":
        return await _from_form(request)
    raise RefusedError(
        415,
        "type_refused",
        f"found a body of the type {kind[:80]!a}, expected application/json or multipart/form-data",
    )


def _from_json(body: bytes) -> Document:
    try:
        asked = DocumentRequest.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error.errors()) from None
    return Document(id=asked.id, text=asked.text, title=asked.title or "", format=asked.format)


async def _from_form(request: Request) -> list[Document]:
    documents: list[Document] = []
    async with _form_of(request) as form:
        for _, part in form.multi_items():
            if not isinstance(part, UploadFile):
                raise RefusedError(
                    422, "file_refused", "found a field that is no file, expected files alone"
                )
            documents.append(_from_file(part.filename or "", await part.read()))
    if not documents:
        raise RefusedError(422, "file_refused", "found no file in the form, expected at least one")
    return documents


@asynccontextmanager
async def _form_of(request: Request) -> AsyncGenerator[FormData]:
    """Yield a request's form; its files are gone at the end.

    Raises:
        RefusedError: it is none, has too many files, or names in an encoding that does not decode
            them.
    """
    opened = request.form(max_files=MAX_FILES, max_fields=MAX_FILES)
    try:
        form = await opened.__aenter__()
    except BodyRefusedError:
        raise
    except HTTPException as error:
        raise _form_refused(error.detail, f"a form of at most {MAX_FILES:,} files") from None
    except ValueError as error:  # what Python makes of `charset=undefined`, and of names in it
        raise _form_refused(str(error), "UTF-8") from None
    try:
        yield form
    finally:
        await opened.__aexit__(None, None, None)


def _form_refused(what: str, expected: str) -> RefusedError:
    found = f"found a form that cannot be read ({ascii(what)[:80]})"
    return RefusedError(400, "bad_request", f"{found}, expected {expected}")


def _from_file(name: str, content: bytes) -> Document:
    name = name.replace("\\", "/").removeprefix("/")
    ending = PurePosixPath(name).suffix.lower()
    try:
        check_id(name)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _file_refused(name, "found bytes that are not UTF-8, expected text") from None
    except ValueError as error:
        raise _file_refused(name, str(error)) from None
    if ending not in FORMAT_OF:
        raise _file_refused(name, f"found {ending!r}, expected {', '.join(FORMAT_OF)}")
    if not text.strip():
        raise _file_refused(name, "found no text in it")
    return Document(id=name, text=text, format=FORMAT_OF[ending])


def _file_refused(name: str, reason: str) -> RefusedError:
    return RefusedError(
        422, "file_refused", f"{name[:80]!a}: {reason}; no file of the upload was added"
    )


def _body_schema() -> dict[str, Any]:
    schema = DocumentRequest.model_json_schema()
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": schema},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"files": files}, "required": ["files"]}
            },
        },
    }
