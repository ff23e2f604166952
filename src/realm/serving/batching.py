"""Micro-batching: concurrent questions are answered together, on every core.

A lane is a thread with its share of the cores that answers one batch at a time. A question that
comes alone gets all cores; as soon as there are several, each lane takes its part of those that
wait, embeds and retrieves for them together, and reads them on its own cores: no core waits at
the barriers of matrix products that are too small to be shared.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from realm.readable import counted
from realm.serving.refusals import RefusedError
from realm.serving.served import Told
from realm.serving.settings import Batching

MAX_LANES = 8
USUAL_PASSAGES = 5
"""Read for a question that does not say how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """How a question is to be answered; only questions with the same stand in one batch."""

    num_answers: int = 3
    num_passages: int | None = None
    min_probability: float | None = None


@runtime_checkable
class AnswerMany(Protocol):
    """Answers some questions that have the same choices."""

    def __call__(
        self,
        questions: Sequence[str],
        *,
        num_answers: int,
        num_passages: int | None,
        min_probability: float | None,
    ) -> Sequence[Told]:
        """Return the answers to each."""
        ...


@dataclass(slots=True, kw_only=True)
class _Waiting:
    question: str
    choices: Choices
    client: str
    answered: asyncio.Future[Told] = field(repr=False)


class Batcher:
    """Collects questions and answers them in lanes."""

    def __init__(
        self,
        answer: AnswerMany,
        *,
        batching: Batching,
        max_waiting: int,
        num_threads: int,
        set_threads: Callable[[int], None],
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            answer: answers some questions, from any thread, several at a time.
            batching: how they are put together.
            max_waiting: questions that may wait; one more is refused.
            num_threads: of all lanes together.
            set_threads: says how many threads the calling lane computes with from now on.
            on_batch: told the size of each batch.
        """
        self._answer, self._set_threads, self._on_batch = answer, set_threads, on_batch
        self.batching, self.max_waiting, self.num_threads = batching, max_waiting, num_threads
        lanes = batching.num_lanes or min(num_threads, MAX_LANES)
        self.num_lanes = 1 if batching.max_questions == 1 else lanes
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._num_busy = 0
        self._num_batches = 0
        self._last_turn: dict[str, int] = {}
        """Batch that last held a question of a client, of each client with one that waits."""
        self._lanes: list[asyncio.Task[None]] = []
        self._threads = ThreadPoolExecutor(self.num_lanes, thread_name_prefix="realm-lane")

    @property
    def num_waiting(self) -> int:
        """Questions that wait for a lane."""
        return len(self._waiting)

    def start(self) -> None:
        """Open the lanes, in the running event loop."""
        self._lanes = [asyncio.create_task(self._work()) for _ in range(self.num_lanes)]

    async def stop(self) -> None:
        """Close the lanes; what still waits, or is being answered, is refused."""
        for lane in self._lanes:
            lane.cancel()
        for lane in self._lanes:
            with suppress(asyncio.CancelledError):
                await lane
        _refuse(self._waiting)
        self._waiting.clear()
        self._threads.shutdown(wait=False)

    async def ask(self, question: str, choices: Choices, *, client: str = "") -> Told:
        """Return the answers to one question.

        Args:
            question: in words.
            choices: how it is to be answered.
            client: who asks; clients take turns, and where too many questions wait, the one that
                has most of them loses its newest.

        Raises:
            RefusedError: too many questions wait.
            AnsweringError: the question cannot be answered.
        """
        if len(self._waiting) >= self.max_waiting:
            self._make_room(client)
        answered = asyncio.get_running_loop().create_future()
        waiting = _Waiting(question=question, choices=choices, client=client, answered=answered)
        self._waiting.append(waiting)
        self._arrived.set()
        try:
            return await answered
        except asyncio.CancelledError:  # given up: its place is free for others
            with suppress(ValueError):  # a lane has it
                self._waiting.remove(waiting)
            raise

    def _make_room(self, client: str) -> None:
        """Refuse the newest question of whoever has most that wait, or else the caller's."""
        refused = RefusedError(
            429,
            "queue_full",
            f"found {counted(len(self._waiting), 'question')} waiting, the server lets no more; "
            "ask again in a second, or start it with a larger --queue",
            headers={"Retry-After": "1"},
        )
        counts = Counter(waiting.client for waiting in self._waiting)
        most = max(counts, key=counts.__getitem__)
        if counts[most] <= counts[client] + 1:
            raise refused
        newest = next(one for one in reversed(self._waiting) if one.client == most)
        self._waiting.remove(newest)
        if not newest.answered.done():
            newest.answered.set_exception(refused)

    def _in_turn(self) -> list[_Waiting]:
        """Return what waits: the oldest of each client, then the second of each, and so on.

        Whose turn was longest ago comes first.
        """
        turns: Counter[str] = Counter()
        ranked: list[tuple[int, int, _Waiting]] = []
        for waiting in self._waiting:
            client = waiting.client
            ranked.append((turns[client], self._last_turn.get(client, -1), waiting))
            turns[client] += 1
        return [waiting for _, _, waiting in sorted(ranked, key=lambda one: one[:2])]

    async def _work(self) -> None:
        """Answer one batch after the other."""
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            if self._num_busy and len(self._waiting) < self.batching.max_questions:
                await asyncio.sleep(self.batching.wait_seconds)  # others may be about to come
            if batch := self._take():
                await self._answer_batch(batch)

    def _take(self) -> list[_Waiting]:
        """Return this lane's part of the questions that wait: the next, and others like it."""
        most = min(self.batching.max_questions, -(-len(self._waiting) // self.num_lanes))
        batch: list[_Waiting] = []
        others: list[_Waiting] = []
        for waiting in self._in_turn():
            if waiting.answered.done():  # given up
                continue
            if not batch:
                per_question = waiting.choices.num_passages or USUAL_PASSAGES
                most = min(most, max(1, self.batching.max_passages // per_question))
            is_taken = len(batch) < most and (not batch or waiting.choices == batch[0].choices)
            (batch if is_taken else others).append(waiting)
        left = {id(waiting) for waiting in others}
        self._waiting = deque(waiting for waiting in self._waiting if id(waiting) in left)
        self._num_batches += 1
        self._last_turn |= dict.fromkeys((one.client for one in batch), self._num_batches)
        for client in self._last_turn.keys() - {one.client for one in self._waiting}:
            del self._last_turn[client]
        return batch

    async def _answer_batch(self, batch: Sequence[_Waiting]) -> None:
        is_alone = not self._num_busy and not self._waiting and len(batch) == 1
        threads = self.num_threads if is_alone else max(1, self.num_threads // self.num_lanes)
        questions = list(dict.fromkeys(waiting.question for waiting in batch))
        self._on_batch(len(batch))
        self._num_busy += 1
        try:
            told = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._compute, questions, batch[0].choices, threads
            )
        except asyncio.CancelledError:
            _refuse(batch)
            raise
        finally:
            self._num_busy -= 1
        found = dict(zip(questions, told, strict=True))
        for waiting in batch:
            result = found[waiting.question]
            if waiting.answered.done():
                continue
            if isinstance(result, Exception):
                waiting.answered.set_exception(result)
            else:
                waiting.answered.set_result(result)

    def _compute(
        self, questions: Sequence[str], choices: Choices, threads: int
    ) -> Sequence[Told | Exception]:
        """Return what each question gets, in a lane's thread; one that fails, fails alone."""
        try:
            self._set_threads(threads)
            return self._answer(
                questions,
                num_answers=choices.num_answers,
                num_passages=choices.num_passages,
                min_probability=choices.min_probability,
            )
        except Exception as error:  # noqa: BLE001 - is raised again where it is waited for
            if len(questions) == 1:
                return [error]
        except BaseException as error:  # noqa: BLE001 - a panic in Rust: it would end the lane
            if len(questions) == 1:
                return [RuntimeError(f"{type(error).__name__}: {error}")]
        return [self._compute([question], choices, threads)[0] for question in questions]


def _refuse(some: Iterable[_Waiting]) -> None:
    """Tell whoever waits that the server stops."""
    for waiting in some:
        if not waiting.answered.done():
            waiting.answered.set_exception(
                RefusedError(503, "stopping", "the server stopped; ask again")
            )
