"""Concurrent questions are put together, and none of them suffers for another."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import torch

from realm.errors import AnsweringError
from realm.serving.batching import Batcher, Choices
from realm.serving.refusals import RefusedError
from realm.serving.settings import Batching
from realm.serving.threads import compute_with


class Told(dict[str, Any]):
    """A result that says itself as JSON."""

    def as_dict(self) -> dict[str, Any]:
        return dict(self)


class PanicException(BaseException):
    """What Python code gets of a panic in tokenizers: no Exception."""


class Model:
    """Echoes questions; tells what it was asked together, and on how many threads."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[str], int | None]] = []
        self.threads: list[int] = []
        self.is_free = threading.Event()
        self.is_free.set()

    def __call__(
        self,
        questions: Sequence[str],
        *,
        num_answers: int,
        num_passages: int | None,
        min_probability: float | None,
    ) -> list[Told]:
        del num_answers, min_probability
        self.batches.append((list(questions), num_passages))
        if "slow" in questions:
            assert self.is_free.wait(10)
        if "bad" in questions:
            raise AnsweringError("bad")
        if "panic" in questions:
            raise PanicException("index out of bounds")
        return [Told(answer=question.upper()) for question in questions]

    def set_threads(self, number: int) -> None:
        self.threads.append(number)


@pytest.fixture
def model() -> Model:
    return Model()


Scene = Callable[[Batcher], Awaitable[Any]]


def played(model: Model, scene: Scene, *, max_waiting: int = 50, **batching: Any) -> Any:
    """Return what a scene returns, in which a batcher with two cores runs."""

    async def play() -> Any:
        batcher = Batcher(
            model,
            batching=Batching(**batching),
            max_waiting=max_waiting,
            num_threads=2,
            set_threads=model.set_threads,
        )
        batcher.start()
        try:
            return await asyncio.wait_for(scene(batcher), 20)
        finally:
            model.is_free.set()
            await batcher.stop()

    return asyncio.run(play())


def together(*questions: str, **choices: Any) -> Scene:
    async def scene(batcher: Batcher) -> list[Any]:
        asked = (batcher.ask(question, Choices(**choices)) for question in questions)
        return await asyncio.gather(*asked, return_exceptions=True)

    return scene


def test_a_question_alone_gets_all_cores_at_once(model: Model) -> None:
    (told,) = played(model, together("a"), wait_seconds=5.0)  # which it would not survive twice
    assert told["answer"] == "A"
    assert model.threads == [2]


def test_concurrent_questions_are_shared_among_the_lanes(model: Model) -> None:
    told = played(model, together(*"abcdefgh"))
    assert [one["answer"] for one in told] == list("ABCDEFGH")
    assert sorted(len(questions) for questions, _ in model.batches) == [1, 1, 2, 4]
    assert 2 not in model.threads[:2]


def test_a_batch_has_a_largest_size(model: Model) -> None:
    played(model, together(*"abcdefghijkl"), max_questions=3)
    assert max(len(questions) for questions, _ in model.batches) == 3
    model.batches.clear()
    played(model, together(*"abcdefgh", num_passages=40), max_passages=80)
    assert max(len(questions) for questions, _ in model.batches) == 2


def test_without_batching_one_question_comes_after_the_other_on_all_cores(model: Model) -> None:
    played(model, together(*"abcd"), max_questions=1)
    assert [questions for questions, _ in model.batches] == [["a"], ["b"], ["c"], ["d"]]
    assert set(model.threads) == {2} or model.threads[-1] == 2


def test_identical_questions_are_answered_once(model: Model) -> None:
    told = played(model, together(*"aaaaaaaa"))
    assert {one["answer"] for one in told} == {"A"}
    assert all(questions == ["a"] for questions, _ in model.batches)


def test_a_bad_question_fails_alone(model: Model) -> None:
    told = played(model, together("a", "bad", "c", "d", "e", "f"), num_lanes=1)
    assert isinstance(told[1], AnsweringError)
    assert [one["answer"] for one in told if isinstance(one, dict)] == list("ACDEF")
    assert ["a", "bad", "c", "d", "e", "f"] in [questions for questions, _ in model.batches]


def test_a_slow_question_holds_up_nobody_who_came_later(model: Model) -> None:
    async def scene(batcher: Batcher) -> Any:
        slow = asyncio.create_task(batcher.ask("slow", Choices()))
        while not model.batches:
            await asyncio.sleep(0.001)
        told = await batcher.ask("quick", Choices())
        assert not slow.done()
        model.is_free.set()
        await slow
        return told

    model.is_free.clear()
    assert played(model, scene)["answer"] == "QUICK"


def test_only_questions_with_the_same_choices_stand_together(model: Model) -> None:
    async def scene(batcher: Batcher) -> Any:
        asked = [batcher.ask(q, Choices(num_passages=1 + n % 2)) for n, q in enumerate("abcdef")]
        return await asyncio.gather(*asked)

    told = played(model, scene, num_lanes=1)
    assert [one["answer"] for one in told] == list("ABCDEF")
    assert [questions for questions, _ in model.batches] == [["a", "c", "e"], ["b", "d", "f"]]


def test_one_more_than_may_wait_is_refused(model: Model) -> None:
    told = played(model, together(*"abc"), max_waiting=2)
    assert [isinstance(one, RefusedError) for one in told] == [False, False, True]
    assert told[2].status == 429


def test_who_has_most_questions_that_wait_loses_the_newest(model: Model) -> None:
    async def scene(batcher: Batcher) -> Any:
        slow = asyncio.create_task(batcher.ask("slow", Choices(), client="greedy"))
        while not model.batches:
            await asyncio.sleep(0.001)
        asked = [asyncio.create_task(batcher.ask(q, Choices(), client="greedy")) for q in "abc"]
        await asyncio.sleep(0)
        asked += [asyncio.create_task(batcher.ask("d", Choices(), client="modest"))]
        await asyncio.sleep(0)
        asked += [asyncio.create_task(batcher.ask("e", Choices(), client="greedy"))]
        await asyncio.sleep(0.01)
        model.is_free.set()
        await slow
        return await asyncio.gather(*asked, return_exceptions=True)

    model.is_free.clear()
    told = played(model, scene, max_waiting=3, max_questions=1)
    assert [isinstance(one, RefusedError) for one in told] == [False, False, True, False, True]
    assert {told[2].status, told[4].status} == {429}


def test_clients_take_turns(model: Model) -> None:
    async def scene(batcher: Batcher) -> None:
        asked = [asyncio.create_task(batcher.ask("slow", Choices(), client="greedy"))]
        while not model.batches:
            await asyncio.sleep(0.001)
        others = (("c", "modest"), ("d", "other"), ("e", "other"))
        for question, client in (("a", "greedy"), ("b", "greedy"), *others):
            asked += [asyncio.create_task(batcher.ask(question, Choices(), client=client))]
        await asyncio.sleep(0.01)
        model.is_free.set()
        await asyncio.gather(*asked)

    model.is_free.clear()
    played(model, scene, max_questions=1)
    assert [questions for questions, _ in model.batches] == [["slow"], *([q] for q in "acdbe")]


def test_what_waits_when_it_stops_is_told(model: Model) -> None:
    async def scene(batcher: Batcher) -> Any:
        first = asyncio.create_task(batcher.ask("slow", Choices()))
        while not model.batches:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(batcher.ask("b", Choices()))
        await asyncio.sleep(0.01)
        assert batcher.num_waiting == 1
        await batcher.stop()
        first.cancel()
        return (await asyncio.gather(second, return_exceptions=True))[0]

    model.is_free.clear()
    told = played(model, scene, max_questions=1)
    assert isinstance(told, RefusedError)
    assert told.status == 503


def test_what_is_being_answered_when_it_stops_is_told(model: Model) -> None:
    async def scene(batcher: Batcher) -> Any:
        asked = asyncio.create_task(batcher.ask("slow", Choices()))
        while not model.batches:
            await asyncio.sleep(0.001)
        await batcher.stop()
        return (await asyncio.gather(asked, return_exceptions=True))[0]

    model.is_free.clear()
    told = played(model, scene)
    assert isinstance(told, RefusedError)
    assert told.status == 503


def test_a_panic_ends_no_lane(model: Model) -> None:
    told = played(model, together("a", "panic", "b"), num_lanes=1)
    assert told[0] == {"answer": "A"}
    assert isinstance(told[1], RuntimeError)
    assert str(told[1]) == "PanicException: index out of bounds"
    assert told[2] == {"answer": "B"}


def test_a_question_given_up_is_not_computed(model: Model) -> None:
    async def scene(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.ask("slow", Choices()))
        while not model.batches:
            await asyncio.sleep(0.001)
        given_up = asyncio.create_task(batcher.ask("b", Choices()))
        await asyncio.sleep(0.01)
        given_up.cancel()
        model.is_free.set()
        await first
        await batcher.ask("c", Choices())

    model.is_free.clear()
    played(model, scene, max_questions=1)
    assert [questions for questions, _ in model.batches] == [["slow"], ["c"]]


def test_questions_given_up_take_no_place_of_those_that_come(model: Model) -> None:
    async def scene(batcher: Batcher) -> Any:
        first = asyncio.create_task(batcher.ask("slow", Choices()))
        while not model.batches:
            await asyncio.sleep(0.001)
        given_up = [asyncio.create_task(batcher.ask(question, Choices())) for question in "ab"]
        await asyncio.sleep(0.01)
        for one in given_up:
            one.cancel()
        await asyncio.sleep(0.01)
        assert batcher.num_waiting == 0
        come = [asyncio.create_task(batcher.ask(question, Choices())) for question in "cd"]
        await asyncio.sleep(0.01)
        model.is_free.set()
        return await asyncio.gather(first, *come)

    model.is_free.clear()
    told = played(model, scene, max_waiting=2, max_questions=1)
    assert [one["answer"] for one in told] == ["SLOW", "C", "D"]


def test_threads_of_a_lane_are_its_own() -> None:
    """What the lanes rely on: torch counts threads for each calling thread."""
    before = torch.get_num_threads()
    seen: list[int] = []

    def lane(number: int) -> None:
        compute_with(number)
        time.sleep(0.05)
        seen.append(torch.get_num_threads() - number)

    threads = [threading.Thread(target=lane, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [0, 0, 0]
    assert torch.get_num_threads() == before
