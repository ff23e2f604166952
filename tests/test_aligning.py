"""Alignment: which passages help a sentence, by the paper's Eq. 2; killed runs go on."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from realm import aligning
from realm.aligning import Aligner, align
from realm.checkpoint.parts import Model
from realm.config import MaskConfig
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, ConfigError
from realm.masking.examples import mask
from realm.masking.store import ExampleStore
from realm.model.inputs import Pack
from realm.model.likelihood import span_log_probs
from realm.predicting import Predictor
from realm.records import MaskedExample
from realm.retrieval.batch import Lengths
from realm.retrieval.candidates import NULL_ROW
from realm.storage import lines_manifest
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

Make = Callable[..., Any]

LENGTHS = Lengths(query=40, passage=64, joint=96)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def examples(store: PassageStore, make_examples: Make) -> ExampleStore:
    return make_examples(store)


@pytest.fixture
def model(tokenizer: WordpieceTokenizer, make_towers: Make, make_encoder: Make) -> Model:
    return Model(tokenizer=tokenizer, towers=make_towers(), encoder=make_encoder())


@pytest.fixture
def predictor(model: Model, store: PassageStore, make_snapshot: Make) -> Predictor:
    snapshot = make_snapshot(model.towers)
    return Predictor(model, store, snapshot, lengths=LENGTHS, fingerprint="model")


@pytest.fixture
def aligner(predictor: Predictor) -> Aligner:
    return Aligner(predictor, num_candidates=5, autocast="none")


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sentences_of(examples: ExampleStore) -> list[list[MaskedExample]]:
    return [[examples[row] for row in rows] for rows in examples.sentences()]


def test_the_spans_of_a_sentence_belong_together(examples: ExampleStore) -> None:
    sentences = sentences_of(examples)
    assert sum(len(spans) for spans in sentences) == len(examples)
    assert max(len(spans) for spans in sentences) > 1
    for spans in sentences:
        assert len({(span.origin, span.sentence) for span in spans}) == 1
        assert len({span.positions for span in spans}) == len(spans)
    keys = [(spans[0].origin, spans[0].sentence) for spans in sentences]
    assert len(set(keys)) == len(keys)


def test_utility_is_that_of_the_paper_summed_over_the_spans(
    aligner: Aligner, predictor: Predictor, examples: ExampleStore, store: PassageStore
) -> None:
    """RU(z|x) = log p(y|z,x) - log p(y|null,x), each span read alone with each passage."""
    spans = max(sentences_of(examples), key=len)
    (found,) = aligner.align([spans])
    assert found.passages, "with so many spans, something helps an untrained encoder by chance"
    for passage in found.passages:
        expected = []
        for span in spans:
            reading = predictor.read([span], [[NULL_ROW, passage.row]])
            null, read = span_log_probs(reading.log_probs(), reading.batch.mask_is_real)[0].tolist()
            expected.append(read - null)
        assert passage.utilities == pytest.approx(expected, abs=1e-4)
        assert passage.utility == pytest.approx(sum(expected), abs=1e-4)
        assert passage.id == store[passage.row].id
        assert passage.title == store[passage.row].title
    utilities = [passage.utility for passage in found.passages]
    assert min(utilities) > 0
    assert utilities == sorted(utilities, reverse=True)


def test_every_span_asks_and_what_any_of_them_finds_is_read_with_all(
    predictor: Predictor, examples: ExampleStore
) -> None:
    aligner = Aligner(predictor, num_candidates=3, autocast="none")
    for spans in sentences_of(examples)[:12]:
        rows, _ = aligner.finder.find(predictor.snapshot, predictor.query_vectors(spans), spans)
        wanted = {row for chosen in rows for row in chosen if row >= 0}
        (found,) = aligner.align([spans])
        assert found.num_read == len(wanted)
        assert {passage.row for passage in found.passages} <= wanted
        assert all(0 < passage.probability < 1 for passage in found.passages)
        reading = predictor.read(spans, [[NULL_ROW, *sorted(wanted)]] * len(spans))
        nearest = int(reading.scores[:, 1:].mean(dim=0).argmax())
        assert found.nearest == predictor.store[sorted(wanted)[nearest]].id


def test_a_sentence_is_never_explained_by_its_own_passage(
    predictor: Predictor, examples: ExampleStore, store: PassageStore
) -> None:
    """With all passages as candidates, only the own one (and near copies) is missing."""
    aligner = Aligner(predictor, num_candidates=len(store) + 1, autocast="none")
    for spans in sentences_of(examples)[:6]:
        (found,) = aligner.align([spans])
        own = aligner.finder.are_own(spans[0], range(len(store)))
        assert found.num_read == len(store) - sum(own)
        assert found.num_read < len(store)
        assert spans[0].origin not in {passage.row for passage in found.passages}


def test_sentences_read_together_are_aligned_as_if_alone(
    aligner: Aligner, examples: ExampleStore
) -> None:
    sentences = sentences_of(examples)[:9]
    for together, spans in zip(aligner.align(sentences), sentences, strict=True):
        (alone,) = aligner.align([spans])
        assert [p.id for p in together.passages] == [p.id for p in alone.passages]
        for one, other in zip(together.passages, alone.passages, strict=True):
            assert one.utility == pytest.approx(other.utility, abs=1e-4)
            assert one.score == pytest.approx(other.score, abs=1e-4)
            assert one.probability == pytest.approx(other.probability, abs=1e-4)


def test_each_sentence_has_its_line_in_order(
    aligner: Aligner, examples: ExampleStore, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "pairs.jsonl"
    calls: list[tuple[int, int]] = []
    report = align(examples, out, aligner, progress=lambda *done: calls.append(done))
    lines = read_lines(out)
    sentences = sentences_of(examples)
    assert [line["text"] for line in lines] == [spans[0].sentence for spans in sentences]
    assert [tuple(line["examples"]) for line in lines] == [
        tuple(span.row for span in spans) for spans in sentences
    ]
    assert len({line["id"] for line in lines}) == len(lines)
    for line in lines:
        for span in line["spans"]:
            assert line["text"][span["start"] : span["end"]] == span["text"]
            assert span["log_p_null"] < 0
    assert report.num_sentences == len(lines) == calls[-1][0] == calls[-1][1]
    assert report.num_aligned == sum(bool(line["passages"]) for line in lines)
    assert report.num_pairs == sum(len(line["passages"]) for line in lines)
    assert not report.already_done
    before = out.read_bytes()
    again = align(examples, out, aligner)
    assert again.already_done
    assert again.num_pairs == report.num_pairs
    assert out.read_bytes() == before


def test_sentences_that_were_masked_at_random_are_aligned_too(
    aligner: Aligner, store: PassageStore, tmp_path: Path
) -> None:
    config = MaskConfig(scheme="token", query_wordpieces=32, examples_per_passage=2)
    mask(store, tmp_path / "tokens", config=config)
    drawn = ExampleStore.open(tmp_path / "tokens")
    for found in aligner.align(sentences_of(drawn)[:4]):
        for span, row in zip(found.spans, found.examples, strict=True):
            assert (span.start, span.label) == (-1, "token")
            assert span.text == store.tokenizer.decode(list(drawn[row].target_ids))


def test_a_limit_draws_sentences_by_a_seed(
    aligner: Aligner, examples: ExampleStore, tmp_path: Path
) -> None:
    texts = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        align(examples, tmp_path / name, aligner, limit=5, seed=seed)
        texts[name] = [line["id"] for line in read_lines(tmp_path / name)]
    assert texts["a"] == texts["b"] != texts["c"]
    assert len(texts["a"]) == 5
    origins = [line["origin"] for line in read_lines(tmp_path / "a")]
    assert origins == sorted(origins)
    assert len(set(origins)) > 1


@pytest.mark.parametrize("num_calls", [0, 1, 3])
def test_a_stopped_alignment_goes_on_and_ends_the_same(
    aligner: Aligner,
    examples: ExampleStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_calls: int,
) -> None:
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    align(examples, whole, aligner, batch_sentences=4)
    real, seen = Aligner.align, list[int]()

    def stops(self: Aligner, sentences: Any) -> Any:
        if len(seen) == num_calls:
            raise KeyboardInterrupt
        seen.append(len(sentences))
        return real(self, sentences)

    with monkeypatch.context() as patch:
        patch.setattr(aligning.Aligner, "align", stops)
        with pytest.raises(KeyboardInterrupt):
            align(examples, cut, aligner, batch_sentences=4)
    assert not cut.exists()
    partial = tmp_path / ".cut.jsonl.partial"
    assert len(read_lines(partial)) == 4 * num_calls
    if num_calls == 3:  # the machine died in the middle of a batch, and of a line
        partial.write_bytes(partial.read_bytes() + whole.read_bytes().splitlines(keepends=True)[12])
        partial.write_bytes(partial.read_bytes() + b'{"id": "ha')
    calls: list[int] = []
    align(examples, cut, aligner, batch_sentences=4, progress=lambda done, _: calls.append(done))
    assert calls[0] == min(4 * (num_calls + 1), len(read_lines(whole)))
    assert cut.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".cut")) in (
        [],
        [".cut.jsonl.lock"],
    )


def test_a_file_of_something_else_is_not_replaced(
    aligner: Aligner, predictor: Predictor, examples: ExampleStore, tmp_path: Path
) -> None:
    out = tmp_path / "pairs.jsonl"
    out.write_text("mine\n")
    for rebuild in (False, True):
        with pytest.raises(ArtifactError, match="not a file that realm finished"):
            align(examples, out, aligner, limit=3, rebuild=rebuild)
    assert out.read_text() == "mine\n"
    out.unlink()
    align(examples, out, aligner, limit=3)
    other = Aligner(predictor, num_candidates=4, autocast="none")
    before = out.read_bytes()
    with pytest.raises(ArtifactError, match=r"num_candidates \(found 5, now 4\)"):
        align(examples, out, other, limit=3)
    assert out.read_bytes() == before
    assert align(examples, out, other, limit=3, rebuild=True).num_sentences == 3
    manifest = json.loads(lines_manifest(out).read_text())
    assert manifest["settings"]["num_candidates"] == 4
    assert manifest["inputs"]["model"] == "model"


def test_what_cannot_be_aligned_is_refused(
    aligner: Aligner,
    model: Model,
    predictor: Predictor,
    examples: ExampleStore,
    store: PassageStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in (0, 1, len(store) + 2):
        with pytest.raises(ConfigError, match="set it with --candidates"):
            Aligner(predictor, num_candidates=number)
    for settings in ({"limit": 0}, {"batch_sentences": 0}):
        with pytest.raises(ConfigError, match="expected at least 1"):
            align(examples, tmp_path / "out", aligner, **settings)
    short = Predictor(
        model, store, predictor.snapshot, lengths=Lengths(query=16, passage=64, joint=96)
    )
    with pytest.raises(ConfigError, match="query_wordpieces=16"):
        align(examples, tmp_path / "out", Aligner(short))
    tokens = WordpieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, "fermat"])
    monkeypatch.setattr(examples, "tokenizer", tokens)
    with pytest.raises(ConfigError, match="another tokenizer"):
        align(examples, tmp_path / "out", aligner)
    assert list(tmp_path.glob("out*")) == []


def test_a_passage_that_tells_the_masked_words_is_the_one_that_helps(
    predictor: Predictor, examples: ExampleStore, store: PassageStore
) -> None:
    """The encoder is made to copy: a wordpiece that it sees gains, so that Eq. 2 is known."""
    embeddings = predictor.encoder.bert.embeddings.word_embeddings.weight

    def copies(inputs: Pack, rows: Any, positions: Any) -> torch.Tensor:
        del positions
        read = inputs.ids[0].split(list(inputs.lengths))
        logits = torch.zeros(len(rows), len(embeddings))
        for place, row in enumerate(rows.tolist()):
            logits[place, read[row]] = 3.0
        return logits

    predictor.encoder.forward = copies  # type: ignore[method-assign]
    aligner = Aligner(predictor, num_candidates=len(store) + 1, autocast="none")
    for spans in sentences_of(examples)[:10]:
        (found,) = aligner.align([spans])
        for passage in found.passages:
            held = [set(span.target_ids) <= set(store.wordpieces(passage.row)) for span in spans]
            assert [utility > 0 for utility in passage.utilities] == held
            assert any(held)
        assert all(math.isfinite(passage.utility) for passage in found.passages)
