"""Worker processes: what each of them leaves to the others."""

import os
import sys

import pytest

from realm.workers import in_order, worker_pool


@pytest.mark.parametrize(("told", "threads"), [(None, 1), ("2", 2)])
def test_a_worker_computes_on_one_thread_unless_told_how_many(
    monkeypatch: pytest.MonkeyPatch, told: str | None, threads: int
) -> None:
    """Each of the taggers that need torch took all cores: eight processes, eight times as many."""
    if told is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    with worker_pool("count", 1) as pool:
        assert list(in_order(pool, 1, _num_threads, [()])) == [threads]


def test_a_worker_that_has_torch_already_computes_on_one_thread_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with worker_pool("count", 1, start=_nothing, with_arguments=(_WithTorch(),)) as pool:
        assert list(in_order(pool, 1, _num_threads, [()])) == [1]


class _WithTorch:
    """Imports torch where it is unpickled, before anything of the worker runs."""

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return _import_torch, ()


def _import_torch() -> int:
    import torch

    return torch.get_num_threads()


def _nothing(_: object) -> None:
    assert "torch" in sys.modules


def _num_threads(_: object) -> int:
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    return _import_torch()
