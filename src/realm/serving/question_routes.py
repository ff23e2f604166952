"""POST /answer, /search and /explain."""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from realm.explaining import CandidateExplanation, Explanation
from realm.serving.batching import Choices
from realm.serving.gate import client_of
from realm.serving.refusals import client_left
from realm.serving.requests import AnswerRequest, ExplainRequest, SearchRequest
from realm.serving.responses import AnsweredModel, ExplainedModel, FoundModel, responses
from realm.serving.service import Service

T = TypeVar("T")


def question_routes(service: Service) -> APIRouter:
    """Return the routes that ask."""
    router = APIRouter(tags=["questions"])

    @router.post("/answer", response_model=AnsweredModel, responses=responses(413, 422))
    async def answer(asked: AnswerRequest, request: Request) -> JSONResponse:
        """Answer a question with its evidence: the exact words, and where they stand.

        `answer` is what to say, null for "no answer". `start` and `end` are Unicode code points
        in the document's text; `probability` is calibrated where `calibrated` says so, and may be
        off where `why_inexact` says why.
        """
        choices = Choices(
            num_answers=asked.num_answers,
            num_passages=asked.num_passages,
            min_probability=asked.min_probability,
        )
        answering = service.answer(asked.question, choices, client=client_of(request.scope))
        return JSONResponse(await while_there(request, answering))

    @router.post("/search", response_model=FoundModel, responses=responses(413, 422))
    async def search(asked: SearchRequest, request: Request) -> JSONResponse:
        """Find passages for a query, best first, with the model's own retriever."""
        looking = service.look(
            lambda: service.model.search(asked.query, num_passages=asked.num_passages),
            client=client_of(request.scope),
        )
        return JSONResponse((await while_there(request, looking)).as_dict())

    @router.post("/explain", response_model=ExplainedModel, responses=responses(409, 413, 422))
    async def explain(asked: ExplainRequest, request: Request) -> JSONResponse:
        """Fill a blank, and say what each passage did for it: Table 3 of the paper.

        `p_without` is p(y|x) without retrieval, `p_marginal` with it (Eq. 1), `utility` of a
        candidate RU(z|x) in nats (Eq. 2). 409 `no_encoder` where the model has no encoder.
        """
        looking = service.look(
            lambda: service.model.explain(
                asked.sentence, answer=asked.answer, num_candidates=asked.num_candidates
            ),
            client=client_of(request.scope),
        )
        return JSONResponse(explained_as_json(await while_there(request, looking)))

    return router


async def while_there(request: Request, action: Coroutine[Any, Any, T]) -> T:
    """Return what an action returns; end it where the client leaves before.

    Args:
        request: whose body has been read.
        action: what the client waits for.

    Raises:
        RefusedError: the client has left; nobody hears it.
    """
    acting = asyncio.ensure_future(action)
    leaving = asyncio.ensure_future(request.receive())  # after the body only the end can come
    try:
        await asyncio.wait({acting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not acting.done():
            raise client_left()
        return acting.result()
    finally:
        acting.cancel()
        leaving.cancel()


def explained_as_json(explained: Explanation) -> dict[str, Any]:
    """Return one row of Table 3; a number that is not finite is null."""
    return {
        "sentence": explained.text,
        "answer": explained.answer,
        "num_masks": explained.num_masks,
        "p_without": _finite(explained.p_without),
        "p_marginal": _finite(explained.p_marginal),
        "predicted_without": explained.predicted_without,
        "predicted": explained.predicted,
        "candidates": [_candidate(candidate) for candidate in explained.candidates],
    }


def _candidate(candidate: CandidateExplanation) -> dict[str, Any]:
    told: dict[str, Any] = {
        name: _finite(getattr(candidate, name))
        for name in ("p_passage", "p_answer", "gradient", "utility")
    }
    passage = candidate.passage
    kept = ("id", "article_id", "title", "text", "start", "end")
    shown = passage and {name: getattr(passage, name) for name in kept}
    return {"passage": shown, **told}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
