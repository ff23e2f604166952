"""How the server is: for people, for load balancers, for Prometheus."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from realm.serving.gate import client_of
from realm.serving.responses import HealthModel, StatusModel, responses
from realm.serving.service import Service


def status_routes(service: Service) -> APIRouter:
    """Return the routes that tell of the server itself."""
    router = APIRouter(tags=["server"])

    @router.get("/status", response_model=StatusModel, responses=responses())
    async def status(request: Request) -> JSONResponse:
        """Say which model answers, from how many documents and passages, how stale its index is."""
        told = await service.tell(service.status, client=client_of(request.scope))
        return JSONResponse(told)

    @router.get("/healthz", response_model=HealthModel, responses=responses())
    async def health() -> JSONResponse:
        """Say that the server can be asked (503 once it is stopping); needs no token."""
        return JSONResponse({"status": "ok"})

    @router.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **responses(),
        },
    )
    async def metrics(request: Request) -> Response:
        """Tell Prometheus."""
        told = await service.tell(service.metrics.text, client=client_of(request.scope))
        return Response(told, media_type=CONTENT_TYPE_LATEST)

    return router
