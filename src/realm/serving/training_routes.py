"""The curves of the runs that were named to the server."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from realm.errors import ArtifactError
from realm.reporting.curves import Curves, find_runs, read_curves
from realm.serving.gate import client_of
from realm.serving.refusals import RefusedError
from realm.serving.responses import CurvesModel, TrainingModel, responses
from realm.serving.service import Service

MAX_STEP = 2**53
"""What a browser can tell from its neighbours."""


def training_routes(service: Service) -> APIRouter:
    """Return the routes of runs."""
    router = APIRouter(prefix="/training", tags=["training"])

    @router.get("", response_model=TrainingModel, responses=responses())
    async def listing(request: Request) -> JSONResponse:
        """List the runs that the server was started with (`--runs FOLDER`)."""
        found = await service.look(lambda: _list(service.runs), client=client_of(request.scope))
        return JSONResponse({"runs": found})

    @router.get("/{name:path}", response_model=CurvesModel, responses=responses(404, 422))
    async def curves(
        name: str,
        request: Request,
        after: Annotated[
            int, Query(ge=-1, le=MAX_STEP, description="Only what was logged after this step.")
        ] = -1,
    ) -> JSONResponse:
        """Return a run's curves, also while it trains: metric -> [step, value], and refreshes."""
        told = await service.look(
            lambda: _curves(service.runs, name, after), client=client_of(request.scope)
        )
        return JSONResponse({**told.as_dict(), "name": name})

    return router


def named_runs(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the runs in some folders as they are now, by a name: their path in the folder."""
    found: dict[str, Path] = {}
    for folder in folders:
        for run in find_runs(folder):
            name = run.relative_to(folder).as_posix() if run != folder else folder.resolve().name
            number = 2
            while name in found and found[name] != run:
                name, number = f"{name.rpartition('~')[0] or name}~{number}", number + 1
            found[name] = run
    return found


def _list(folders: Sequence[Path]) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    for name, run in named_runs(folders).items():
        try:
            curves = read_curves(run, after=MAX_STEP)
        except ArtifactError:  # gone, or another kind of run
            continue
        kept = {key: getattr(curves, key) for key in ("stage", "state", "step", "num_steps")}
        told.append({"name": name, **kept})
    return told


def _curves(folders: Sequence[Path], name: str, after: int) -> Curves:
    run = named_runs(folders).get(name)
    if run is None:
        raise RefusedError(
            404,
            "no_run",
            f"found no run {name[:80]!a}; GET /training names those that are there",
        )
    return read_curves(run, after=after)
