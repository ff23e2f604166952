"""Which retriever stands under the reader, by name or by folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from realm.answering import Answerer, AnsweringLengths
from realm.checkpoint.checkpoints import checkpoint_folder, save_checkpoint
from realm.checkpoint.parts import Model
from realm.corpus.store import PassageStore
from realm.errors import ConfigError
from realm.evaluation import retrievers
from realm.evaluation.retrievers import RETRIEVERS, check_retriever, needs_index, use_retriever
from realm.index.opening import find_snapshot
from realm.retrieval.bm25 import Bm25Retriever, open_lexical
from realm.retrieval.dense import DenseRetriever
from realm.retrieval.hybrid import HybridRetriever
from realm.tokenizer import WordpieceTokenizer

Make = Callable[..., Any]
QUESTIONS = ["where was fermat born", "who changed graph theory"]


@pytest.fixture
def answerer(
    tokenizer: WordpieceTokenizer,
    store: PassageStore,
    make_towers: Make,
    make_reader: Make,
    make_snapshot: Make,
) -> Answerer:
    towers = make_towers()
    model = Model(tokenizer=tokenizer, towers=towers, reader=make_reader())
    lengths = AnsweringLengths(question=24, joint=96)
    return Answerer(model, store, make_snapshot(towers), lengths=lengths)


def write_run(folder: Path, model: Model) -> Path:
    save_checkpoint(checkpoint_folder(folder, 1), model, settings={}, inputs={})
    return folder


def test_the_runs_own_stays_as_it_is(answerer: Answerer, tmp_path: Path) -> None:
    own = answerer.retriever
    for choice in ("own", "dense"):
        assert use_retriever(answerer, choice, run=tmp_path) == "dense"
        assert answerer.retriever is own


def test_a_run_of_both_can_be_asked_for_either(answerer: Answerer, tmp_path: Path) -> None:
    """A run that was fine-tuned with BM25 beside its embedder keeps the weight it learned with."""
    answerer.use_hybrid(open_lexical(tmp_path, answerer.store), lexical_weight=0.25)
    own = answerer.retriever
    for choice in ("own", "hybrid"):
        assert use_retriever(answerer, choice, run=tmp_path) == "hybrid"
        assert answerer.retriever is own
    assert use_retriever(answerer, "dense", run=tmp_path) == "dense"
    assert answerer.retriever is answerer.dense
    assert use_retriever(answerer, "hybrid", run=tmp_path) == "hybrid"
    assert isinstance(answerer.retriever, HybridRetriever)
    assert answerer.retriever.lexical_weight == 1.0  # the default: this one was not trained so


def test_without_an_index_only_another_retriever_finds_passages(
    answerer: Answerer,
    tmp_path: Path,
    tokenizer: WordpieceTokenizer,
    make_reader: Make,
    make_towers: Make,
) -> None:
    model = Model(tokenizer=tokenizer, towers=make_towers(), reader=make_reader())
    bare = Answerer(model, answerer.store, None, lengths=answerer.lengths)
    for choice in RETRIEVERS:
        if needs_index(choice):
            with pytest.raises(ConfigError, match="found no index of the passages; open"):
                use_retriever(bare, choice, run=tmp_path)
    with pytest.raises(ConfigError, match="found no index"):
        bare.answer(QUESTIONS)
    with pytest.raises(ConfigError, match="found no index"):
        _ = bare.snapshot
    assert not needs_index("bm25")
    assert use_retriever(bare, "bm25", run=tmp_path) == "bm25"
    assert bare.answer(QUESTIONS)[0].read_rows


def test_a_baseline_keeps_its_index_in_the_run(answerer: Answerer, tmp_path: Path) -> None:
    assert use_retriever(answerer, "bm25", run=tmp_path) == "bm25"
    assert isinstance(answerer.retriever, Bm25Retriever)
    assert [path.name for path in tmp_path.iterdir() if path.name == "bm25"] == ["bm25"]


def test_minilm_is_opened_on_the_same_device(
    answerer: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = answerer.retriever
    own.name = "minilm"

    def opened(store: PassageStore, *, cache: Path, device: str, progress: object) -> Any:
        assert (store, cache, device, progress) == (
            answerer.store,
            tmp_path / "zero-shot",
            "cpu",
            None,
        )
        return own

    monkeypatch.setattr(retrievers, "open_zero_shot", opened)
    assert use_retriever(answerer, "minilm", run=tmp_path, device="cpu") == "minilm"


def test_any_runs_embedder_finds_passages_for_the_same_reader(
    answerer: Answerer,
    tokenizer: WordpieceTokenizer,
    store: PassageStore,
    make_towers: Make,
    tmp_path: Path,
) -> None:
    """The ICT baseline: its passages are embedded once, and kept in its own folder."""
    towers = make_towers(seed=7)
    ict = write_run(tmp_path / "ict", Model(tokenizer=tokenizer, towers=towers))
    before = answerer.answer(QUESTIONS, num_passages=3)
    told: list[int] = []
    name = use_retriever(
        answerer, str(ict), run=tmp_path / "qa", progress=lambda done, _: told.append(done)
    )
    assert name.startswith("ict (")
    assert told
    snapshot = find_snapshot(ict, towers.passage, store)
    assert snapshot is not None
    question = DenseRetriever(towers.query, snapshot, tokenizer, question_wordpieces=24)
    with torch.inference_mode():
        scores = question.embed(QUESTIONS) @ snapshot.exact[torch.arange(len(store))].T
    expected = scores.topk(3).indices.tolist()
    after = answerer.answer(QUESTIONS, num_passages=3)
    assert [list(one.read_rows) for one in after] == expected
    assert [one.read_rows for one in before] != [one.read_rows for one in after]
    assert answerer.retriever.score_weight == 1.0
    told.clear()
    use_retriever(
        answerer, str(ict), run=tmp_path / "qa", progress=lambda done, _: told.append(done)
    )
    assert told == []


def test_a_run_without_an_embedder_is_told(
    answerer: Answerer, tokenizer: WordpieceTokenizer, make_encoder: Make, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "mlm", Model(tokenizer=tokenizer, encoder=make_encoder()))
    with pytest.raises(ConfigError, match="has no embedder"):
        use_retriever(answerer, str(run), run=tmp_path)


def test_a_run_of_another_vocabulary_is_told(
    answerer: Answerer, make_towers: Make, tokenizer: WordpieceTokenizer, tmp_path: Path
) -> None:
    other = WordpieceTokenizer.from_vocabulary(tokenizer.vocabulary()[::-1])
    run = write_run(tmp_path / "ict", Model(tokenizer=other, towers=make_towers()))
    with pytest.raises(ConfigError, match="another tokenizer"):
        use_retriever(answerer, str(run), run=tmp_path)


def test_a_name_that_is_none_is_told_with_all_that_are(answerer: Answerer, tmp_path: Path) -> None:
    names = f"{', '.join(RETRIEVERS)}, closed-book, or the folder of a run"
    with pytest.raises(ConfigError, match=f"found no retriever 'bm52'; expected {names}"):
        use_retriever(answerer, "bm52", run=tmp_path)


def test_no_retriever_is_none_for_a_reader() -> None:
    """The message on an unknown name offers closed-book, which calibrate and claims do not know."""
    with pytest.raises(ConfigError, match="'closed-book', which finds no passages; expected own,"):
        check_retriever("closed-book")
