"""The documents: add, replace, remove, list."""

from pathlib import PurePosixPath
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from realm.records import Changes, Document, DocumentInfo
from realm.serving.refusals import RefusedError, invalid
from realm.serving.schemas import (
    MAX_ID_CHARACTERS,
    ChangesModel,
    DocumentModel,
    DocumentRequest,
    ListingModel,
    ProgressModel,
    check_id,
    responses,
)
from realm.serving.service import Service

MAX_FILES = 1_000
"""Of one upload."""
Format = Literal["text", "markdown", "jsonl"]
FORMAT_OF: dict[str, Format] = {".txt": "text", ".md": "markdown", ".jsonl": "jsonl"}
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
        return JSONResponse(_as_json(await service.add(await _documents_of(request))))

    @router.get("", response_model=ListingModel, responses=responses())
    async def listing() -> JSONResponse:
        """List the documents."""
        documents = service.model.documents()
        return JSONResponse(
            {
                "documents": [_info(info) for info in documents],
                "num_passages": service.model.status()["num_passages"],
            }
        )

    @router.get("/progress", response_model=ProgressModel, responses=responses())
    async def progress() -> JSONResponse:
        """Say how far the documents being added are embedded; 0 of 0 when none is."""
        done, total = service.progress
        return JSONResponse({"done": done, "total": total})

    @router.get("/{id:path}", response_model=DocumentModel, responses=responses(404))
    async def one(id: str) -> JSONResponse:  # noqa: A002 - what the path calls it
        """Return one document, whole."""
        document = await service.look(lambda: service.model.document(_known(service, id)))
        kept = ("id", "text", "title", "format")
        return JSONResponse({name: getattr(document, name) for name in kept})

    @router.delete("/{id:path}", response_model=ChangesModel, responses=responses(404, 409))
    async def remove(id: str) -> JSONResponse:  # noqa: A002 - what the path calls it
        """Remove a document; no question from now on is answered from it."""
        return JSONResponse(_as_json(await service.remove(_known(service, id))))

    return router


def _known(service: Service, id: str) -> str:  # noqa: A002 - what a document calls it
    """Return an id that is there.

    Raises:
        RefusedError: it is not.
    """
    if all(info.id != id for info in service.model.documents()):
        raise RefusedError(
            404,
            "no_document",
            f"found no document {id[:MAX_ID_CHARACTERS]!a}; GET /documents names those that "
            "are there",
        )
    return id


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
    async with request.form(max_files=MAX_FILES, max_fields=MAX_FILES) as form:
        for _, part in form.multi_items():
            if not isinstance(part, UploadFile):
                raise RefusedError(
                    422, "file_refused", "found a field that is no file, expected files alone"
                )
            documents.append(_from_file(part.filename or "", await part.read()))
    if not documents:
        raise RefusedError(422, "file_refused", "found no file in the form, expected at least one")
    return documents


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


def _as_json(changes: Changes) -> dict[str, Any]:
    return {
        "added": list(changes.added),
        "replaced": list(changes.replaced),
        "unchanged": list(changes.unchanged),
        "removed": list(changes.removed),
        "num_embedded": changes.num_embedded,
        "skipped": changes.skipped.counts,
    }


def _info(info: DocumentInfo) -> dict[str, Any]:
    names = ("id", "title", "format", "num_characters", "num_passages", "sha256", "added_at")
    return {name: getattr(info, name) for name in names}


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
