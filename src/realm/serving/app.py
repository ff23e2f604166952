"""The application: routes, and the gate before them."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from realm import __version__
from realm.serving.cors import Preflights, SharedResponses
from realm.serving.document_routes import document_routes
from realm.serving.gate import Gate, Recorder, Refuser
from realm.serving.page_routes import page_routes, read_page
from realm.serving.question_routes import question_routes
from realm.serving.refusals import add_handlers
from realm.serving.service import Service
from realm.serving.settings import Access
from realm.serving.status_routes import status_routes
from realm.serving.training_routes import training_routes

SUMMARY = "Answers with evidence from your documents: the exact words, and where they stand."


def build_app(service: Service, *, access: Access | None = None) -> FastAPI:
    """Return the application around a service, which it starts and stops.

    Args:
        service: what answers.
        access: who may ask; None: anyone who reaches it under a name of this machine.
    """
    access = access or Access()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="realm",
        version=__version__,
        summary=SUMMARY,
        description='Every error is `{"error": {"code": ..., "message": ...}}`.',
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    add_handlers(app)
    for router in (
        question_routes(service),
        document_routes(service),
        training_routes(service),
        status_routes(service),
    ):
        app.include_router(router)
    page = read_page()
    app.include_router(page_routes(page))
    if access.origins:
        app.add_middleware(Preflights, origins=access.origins)
    app.add_middleware(
        Gate,
        access=access,
        limits=service.limits,
        is_stopping=lambda: service.is_stopping,
        open_paths=tuple(file.path for file in page),
    )
    app.add_middleware(Refuser)
    if access.origins:
        app.add_middleware(SharedResponses, origins=access.origins)
    app.add_middleware(Recorder, metrics=service.metrics)  # the last one added is the outermost
    return app
