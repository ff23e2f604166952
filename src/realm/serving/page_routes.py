"""The page: static files of this package, and nothing else of it."""

import mimetypes
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Response

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file, in memory."""

    path: str
    """As it is asked for."""
    content: bytes
    media_type: str


def read_page(folder: Path = FOLDER) -> list[PageFile]:
    """Return the files of the page; none where there is no page."""
    return [
        PageFile(
            path="/" if name == INDEX else f"/{name}",
            content=path.read_bytes(),
            media_type=_TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "text/plain",
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
        for name in [path.relative_to(folder).as_posix()]
    ]


def page_routes(files: list[PageFile]) -> APIRouter:
    """Return a route for each file."""
    router = APIRouter(include_in_schema=False)
    for file in files:
        router.add_api_route(file.path, _sender(file), methods=["GET"], response_class=Response)
    return router


def _sender(file: PageFile):  # noqa: ANN202 - FastAPI reads annotations of what is returned
    async def send() -> Response:
        return Response(
            file.content, media_type=file.media_type, headers={"Cache-Control": "no-cache"}
        )

    return send
