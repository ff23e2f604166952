"""One model and what stands around it: lanes for questions, a thread for changes, counters."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from realm.memory import return_free_memory
from realm.readable import counted
from realm.records import Changes, Document
from realm.serving.batching import Batcher, Choices
from realm.serving.metrics import Metrics
from realm.serving.refusals import RefusedError
from realm.serving.served import Served, Told
from realm.serving.settings import Batching, Limits
from realm.serving.threads import compute_with

T = TypeVar("T")
WatchState = Literal["off", "on", "failing"]
SECONDS_BETWEEN_RETURNS = 1.0
"""Every batch has other lengths, so that freed blocks seldom fit the next one's: memory would grow
for hours."""


class Service:
    """What the routes call; nothing here knows of HTTP but the refusals."""

    def __init__(
        self,
        model: Served,
        *,
        limits: Limits | None = None,
        batching: Batching | None = None,
        runs: Sequence[Path] = (),
        watch: Callable[[], WatchState] = lambda: "off",
    ) -> None:
        """Prepare; `start` begins.

        Args:
            model: an opened one.
            limits: what may wait.
            batching: how questions are put together.
            runs: run folders, or folders that hold some, whose curves are shown.
            watch: how a folder that is watched is followed.
        """
        self.model, self.runs = model, tuple(runs)
        self._watch = watch
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.metrics.tell_of_library(self._gauges)
        self.progress = (0, 0)
        """(passages embedded, passages) of the change that is being made."""
        self.is_stopping = False
        self._is_given_up = False
        """Whether the change in progress ends before its next passages are embedded."""
        self._tidied_at = time.monotonic()
        self._seen: tuple[object, float] = (model.status().get("version"), time.monotonic())
        """(version of the library, when it was first seen)."""
        threads = torch.get_num_threads()
        self._changes = Line("realm-changes", self.limits.max_waiting, max(1, threads // 2))
        self._looks = Line("realm-looks", self.limits.max_waiting, threads)
        self._tells = Line("realm-tells", self.limits.max_waiting, threads)
        self.batcher = Batcher(
            self._answer_many,
            batching=batching or Batching(),
            max_waiting=self.limits.max_waiting,
            num_threads=threads,
            set_threads=compute_with,
            on_batch=self.metrics.batches.observe,
        )
        self.metrics.waiting.set_function(lambda: self.batcher.num_waiting)

    def start(self) -> None:
        """Open the lanes, in the running event loop."""
        self.batcher.start()

    async def stop(self) -> None:
        """Close the lanes; a change that has begun ends with the documents that are on disk."""
        self.is_stopping = True
        self.give_up()
        await self.batcher.stop()
        await self._changes.stop()
        await self._looks.stop()
        await self._tells.stop()

    def give_up(self) -> None:
        """Let the change in progress, and those that wait, end soon, with 503.

        Documents that are on disk by then stay: each is there as it was, or as it is to be.
        """
        self._is_given_up = True

    async def answer(self, question: str, choices: Choices, *, client: str = "") -> dict[str, Any]:
        """Return the answers to a question as JSON's types; clients take turns."""
        told = (await self.batcher.ask(question, choices, client=client)).as_dict()
        self.metrics.count_answer(is_refused=told["answer"] is None)
        return told

    async def look(self, action: Callable[[], T], *, client: str = "") -> T:
        """Return what an action on the model returns that takes a moment and changes nothing.

        Raises:
            RefusedError: too many of them wait, or too many of this client.
        """
        return await self._looks.run(action, client=client)

    async def tell(self, action: Callable[[], T], *, client: str = "") -> T:
        """Return what an action returns that says how the server is; no search is waited for.

        The first one after a change takes a moment, which nobody else is to wait: documents that
        have changed are opened afresh.

        Raises:
            RefusedError: too many of them wait, or too many of this client.
        """
        return await self._tells.run(action, client=client)

    async def add(self, documents: Sequence[Document], *, client: str = "") -> Changes:
        """Add or replace documents; they are on disk when this returns.

        Raises:
            RefusedError: too many changes wait, or too many of this client; or the server stops.
        """

        def act() -> Changes:
            try:
                self._advance(0, 0)
                return self.model.add_documents(documents, progress=self._advance)
            finally:
                self.progress = (0, 0)

        return await self._changes.run(act, client=client)

    async def remove(self, id: str, *, client: str = "") -> Changes:  # noqa: A002 - as documents do
        """Remove a document; questions from now on do not see it.

        Raises:
            RefusedError: too many changes wait, or too many of this client; or the server stops
                while another writer of the library is waited for.
        """

        def waiting() -> None:
            if self._is_given_up:
                raise RefusedError(
                    503, "stopping", f"the server stopped, and {id!r} is still there; try again"
                )

        return await self._changes.run(
            lambda: self.model.remove_documents(id, waiting=waiting), client=client
        )

    def _answer_many(
        self,
        questions: Sequence[str],
        *,
        num_answers: int,
        num_passages: int | None,
        min_probability: float | None,
    ) -> Sequence[Told]:
        """Answer in a lane's thread, and now and then give back the memory that it took."""
        try:
            return self.model.answer(
                questions,
                num_answers=num_answers,
                num_passages=num_passages,
                min_probability=min_probability,
            )
        finally:
            now = time.monotonic()
            if now - self._tidied_at > SECONDS_BETWEEN_RETURNS:
                self._tidied_at = now
                return_free_memory(0)

    def status(self) -> dict[str, Any]:
        """Return the model's status, and what waits."""
        told = self.model.status()
        told.pop("library", None)  # where it lies is nobody's business
        now, version = time.monotonic(), told.get("version")
        if version != self._seen[0]:  # whoever has changed it
            self._seen = (version, now)
        return {
            **told,
            "waiting": self.batcher.num_waiting,
            "watch": self._watch(),
            "index_age_seconds": now - self._seen[1],
        }

    def _advance(self, done: int, total: int) -> None:
        """Note how far a change is; called between its groups of passages.

        Raises:
            RefusedError: it is to end here.
        """
        if self._is_given_up:
            raise RefusedError(
                503,
                "stopping",
                "the server stopped in the midst of this; some documents may be there already: "
                "send all of them again",
            )
        self.progress = (done, total)

    def _gauges(self) -> dict[str, float]:
        status = self.status()
        return {
            "documents": float(status["num_documents"]),
            "passages": float(status["num_passages"]),
            "index_age_seconds": float(status["index_age_seconds"]),
        }


class Line:
    """A thread of its own that does one thing after the other, for a bounded number of callers.

    One client has half of the places at most, so that others always find one.
    """

    def __init__(self, name: str, max_waiting: int, num_threads: int) -> None:
        self.max_waiting = max_waiting
        self._waiting: Counter[str] = Counter()
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix=name, initializer=compute_with, initargs=(num_threads,)
        )

    async def run(self, action: Callable[[], T], *, client: str = "") -> T:
        """Return what an action returns.

        Args:
            action: called in the thread.
            client: who waits for it.

        Raises:
            RefusedError: too many wait, or too many of this client.
        """
        self._check_room(self._waiting.total(), self.max_waiting, "")
        self._check_room(self._waiting[client], max(1, self.max_waiting // 2), " of yours")
        self._waiting[client] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, action)
        finally:
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]

    @staticmethod
    def _check_room(num_waiting: int, most: int, whose: str) -> None:
        if num_waiting >= most:
            raise RefusedError(
                429,
                "queue_full",
                f"found {counted(num_waiting, 'request')}{whose} waiting, the server lets no more; "
                "ask again soon",
                headers={"Retry-After": "1"},
            )

    async def stop(self) -> None:
        """Wait for what has begun; nothing else begins."""
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)
