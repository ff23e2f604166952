"""The engines of the search benchmark find the same, and one that does not is noticed."""

from pathlib import Path
from typing import Any

import exact_search
import numpy as np
import pytest
import search_engines
from harness import Seconds, Timings
from peer import Answer

NUM_PASSAGES = 2_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("vectors")
    exact_search.write_data(made, NUM_PASSAGES)
    return made


class Local:
    """An engine in this process, with the face of a `Peer`."""

    def __init__(self, find: search_engines.Find, folder: Path) -> None:
        self._find, self._asked = find, np.load(folder / "queries.npy")

    def call(self, name: str, count: int, k: int) -> Answer:
        assert name == "top"
        scores, rows = self._find(self._asked[:count], k)
        return Answer({"scores": scores.tolist(), "rows": rows.tolist()}, Seconds(0.0, 0.0), 0)


def test_engines_find_what_a_32_bit_search_finds(folder: Path) -> None:
    pytest.importorskip("faiss")
    names = ("numpy", "ours", "faiss")
    engines: Any = {name: Local(search_engines.ENGINES[name](folder), folder) for name in names}
    assert {name: exact_search.wrong_rows(engines, name) for name in names} == dict.fromkeys(
        names, 0
    )
    vectors, asked = np.load(folder / "vectors.npy"), np.load(folder / "queries.npy")
    truth = np.sort(asked @ vectors.T, axis=1)[:, ::-1][:, :100]
    scores, _ = search_engines.numpy_blocks(folder)(asked, 100)
    np.testing.assert_allclose(scores, truth, atol=exact_search.EQUAL)


def test_an_engine_that_misses_rows_is_noticed(folder: Path) -> None:
    right = search_engines.numpy_blocks(folder)

    def misses_the_best(queries: Any, k: int) -> tuple[Any, Any]:
        scores, rows = right(queries, k + 1)
        return scores[:, 1:], rows[:, 1:]

    engines: Any = {"numpy": Local(right, folder), "ours": Local(misses_the_best, folder)}
    assert exact_search.wrong_rows(engines, "ours") > 1_000


def test_the_fastest_peer_is_what_counts() -> None:
    def took(seconds: float) -> Timings:
        return Timings([seconds] * 3, [seconds] * 3)

    seconds = {"ours": 2.0, "faiss-tuned": 4.0, "scann": 1.0, "faiss": 8.0, "numpy": 9.0}
    keys = [(batch, k) for batch in exact_search.SEARCHES for k in exact_search.TOPS]
    timings = {(name, b, k): took(s) for name, s in seconds.items() for b, k in keys}
    timings["ours beside the slow", 256, 8] = took(2.0)
    figures = exact_search.speed_figures(timings, {})
    best = [figure for figure in figures if figure.at_least is not None]
    assert [figure.value.median for figure in best] == [0.5] * 6  # type: ignore[union-attr]
    assert [figure.is_met for figure in best] == [True, True, False, False, False, False]
