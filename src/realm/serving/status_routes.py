"""How the server is: for people, for load balancers, for Prometheus."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from realm.serving.responses import HealthModel, StatusModel, responses
from realm.serving.service import Service


def status_routes(service: Service) -> APIRouter:
    """Return the routes that tell of the server itself."""
    router = APIRouter(tags=["server"])

    @router.get("/status", response_model=StatusModel, responses=responses())
    async def status() -> JSONResponse:
        """Say which model answers, from how many documents and passages, how stale its index is."""
        return JSONResponse(service.status())

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
    async def metrics() -> Response:
        """Tell Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router
