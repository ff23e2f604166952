"""The whole stage: passages in, a published folder of examples out."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realm.config import MaskConfig
from realm.errors import ArtifactError, ConfigError, MaskingError
from realm.masking import examples
from realm.masking.examples import ExampleStore, MaskReport, PassageSource, mask
from realm.masking.rules import RuleTagger
from realm.records import Passage, SalientSpan, Skipped
from realm.storage import MANIFEST, read_json, scratch_folder, verify

MakePassage = Callable[..., Passage]
MakeSource = Callable[..., PassageSource]

SENTENCES = (
    "In 1852 the city of Bonn was a capital in Asia.",
    "The river was born in Norway and in Sweden.",
    "Anna Brandenburg was the capital of the land in 1990.",
)


@pytest.fixture
def source(make_source: MakeSource, make_passage: MakePassage) -> PassageSource:
    return make_source(
        make_passage(*SENTENCES[:2], row=0),
        make_passage("the land is a land and the river is a river", row=1),
        make_passage(SENTENCES[2], row=2),
    )


def texts(store: ExampleStore, group: int) -> list[str]:
    found = [store[row] for row in store.group(group)]
    return [e.sentence[e.span_start : e.span_end] for e in found]


def test_salient_examples_of_each_passage_are_published(
    source: PassageSource, tmp_path: Path
) -> None:
    report = mask(source, tmp_path / "examples", config=MaskConfig())
    store = ExampleStore.open(tmp_path / "examples")
    assert report.num_examples == len(store) == 7
    assert report.num_passages == store.num_groups == 2
    assert report.spans_by_label == {"NAME": 5, "DATE": 2}
    assert report.skipped.counts == {"passage without spans": 1}
    assert not report.already_done
    assert texts(store, 0) == ["1852", "Bonn", "Asia", "Norway", "Sweden"]
    assert texts(store, 1) == ["Anna Brandenburg", "1990"]
    assert [store.group_article(i) for i in range(2)] == ["0", "2"]
    assert store.passages_fingerprint == source.fingerprint
    assert store.scheme == "salient"


def test_the_manifest_says_what_made_it_and_how_much_was_left_out(
    source: PassageSource, tmp_path: Path
) -> None:
    mask(source, tmp_path / "examples", config=MaskConfig())
    manifest = json.loads((tmp_path / "examples" / "manifest.json").read_text())
    assert manifest["kind"] == "examples"
    assert manifest["inputs"] == {"passages": source.fingerprint}
    assert manifest["settings"]["tagger_fingerprint"] == RuleTagger().fingerprint
    assert manifest["settings"]["query_wordpieces"] == 96
    assert manifest["content"]["num_examples"] == 7
    assert manifest["content"]["skipped"]["counts"] == {"passage without spans": 1}


def test_a_finished_folder_is_not_made_again(source: PassageSource, tmp_path: Path) -> None:
    first = mask(source, tmp_path / "examples", config=MaskConfig())
    before = (tmp_path / "examples" / "manifest.json").stat().st_mtime_ns
    second = mask(source, tmp_path / "examples", config=MaskConfig())
    assert second.already_done
    assert second.num_examples == first.num_examples
    assert second.spans_by_label == first.spans_by_label
    assert second.skipped == first.skipped
    assert (tmp_path / "examples" / "manifest.json").stat().st_mtime_ns == before


def test_other_settings_need_another_folder_or_rebuild(
    source: PassageSource, tmp_path: Path
) -> None:
    mask(source, tmp_path / "examples", config=MaskConfig())
    other = MaskConfig(scheme="token")
    with pytest.raises(ArtifactError, match="scheme"):
        mask(source, tmp_path / "examples", config=other)
    report = mask(source, tmp_path / "examples", config=other, rebuild=True)
    assert report.spans_by_label == {"token": 12}
    assert ExampleStore.open(tmp_path / "examples").scheme == "token"


def test_another_tagger_makes_another_folder(source: PassageSource, tmp_path: Path) -> None:
    mask(source, tmp_path / "examples", config=MaskConfig())
    with pytest.raises(ArtifactError, match="tagger"):
        mask(source, tmp_path / "examples", config=MaskConfig(), tagger=WordTagger("Bonn"))


class WordTagger:
    """Tags one word."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.name = "word"
        self.fingerprint = word

    def tag(self, passages: Sequence[Passage], skipped: Skipped) -> Iterator[list[SalientSpan]]:
        """Yield the first mention of the word in each passage."""
        for passage in passages:
            start = passage.text.find(self.word)
            skipped.add("looked at")
            end = start + len(self.word)
            yield [SalientSpan(start=start, end=end, label="WORD")] if start >= 0 else []


def test_an_own_tagger_can_be_passed(source: PassageSource, tmp_path: Path) -> None:
    report = mask(source, tmp_path / "examples", config=MaskConfig(), tagger=WordTagger("Norway"))
    assert report.spans_by_label == {"WORD": 1}
    assert report.skipped.counts == {"looked at": 3, "passage without spans": 2}


def test_a_pretagged_file_can_be_named_in_the_settings(
    source: PassageSource, tmp_path: Path
) -> None:
    file = tmp_path / "spans.jsonl"
    file.write_text('{"id": "2#0", "spans": [[0, 4, "PER"]]}\n')
    config = MaskConfig(tagger=f"jsonl:{file}")
    report = mask(source, tmp_path / "examples", config=config)
    assert report.spans_by_label == {"PER": 1}
    assert report.skipped.counts["passage without a line in the jsonl file"] == 2


def test_an_unknown_tagger_is_refused_before_anything_is_written(
    source: PassageSource, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="found no tagger 'magic'"):
        mask(source, tmp_path / "examples", config=MaskConfig(tagger="magic"))
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_mask_is_an_error_that_says_why(
    make_source: MakeSource, make_passage: MakePassage, tmp_path: Path
) -> None:
    nothing = make_source(make_passage("the land is a land"), make_passage("Bonn is.", row=1))
    with pytest.raises(MaskingError, match=r"passage without spans: 1, sentence too short: 1"):
        mask(nothing, tmp_path / "examples", config=MaskConfig())
    assert not (tmp_path / "examples").exists()


def test_an_empty_store_is_an_error_that_says_so(make_source: MakeSource, tmp_path: Path) -> None:
    with pytest.raises(MaskingError, match="the store is empty"):
        mask(make_source(), tmp_path / "examples", config=MaskConfig())


@pytest.mark.parametrize("scheme", ["salient", "token", "span"])
def test_batches_do_not_change_the_result(
    scheme: str, source: PassageSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = MaskConfig.model_validate({"scheme": scheme})
    mask(source, tmp_path / "one", config=config)
    monkeypatch.setattr(examples, "PASSAGES_PER_BATCH", 1)
    progress: list[tuple[int, int]] = []
    mask(source, tmp_path / "two", config=config, progress=lambda d, t: progress.append((d, t)))
    one, two = ExampleStore.open(tmp_path / "one"), ExampleStore.open(tmp_path / "two")
    assert list(one) == list(two)
    assert one.fingerprint == two.fingerprint
    assert progress == [(1, 3), (2, 3), (3, 3)]


def cut_short(content: bytes) -> bytes:
    return content[:-100]


def with_another_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damaged", [cut_short, with_another_bit])
@pytest.mark.parametrize("suffix", [".arrow", ".json"])
@pytest.mark.parametrize("num_passages", [1, 2])
def test_a_stopped_run_goes_on_after_its_whole_pieces(
    num_passages: int,
    suffix: str,
    damaged: Callable[[bytes], bytes],
    make_source: MakeSource,
    make_passage: MakePassage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of five passages in pieces of one or two; one piece is damaged since, one half written."""
    monkeypatch.setattr(examples, "PASSAGES_PER_BATCH", 1)
    monkeypatch.setattr(examples, "BATCHES_PER_PIECE", num_passages)
    source = make_source(*(make_passage(SENTENCES[row % 3], row=row) for row in range(5)))
    out, whole = tmp_path / "examples", tmp_path / "whole"
    told = mask(source, whole, config=MaskConfig())

    def stop(done: int, _: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mask(source, out, config=MaskConfig(), progress=stop)
    pieces = sorted((scratch_folder(out) / "pieces").glob("passages-*.arrow"))
    assert len(pieces) == 4 // num_passages
    file = pieces[0].with_suffix(suffix)
    file.write_bytes(damaged(file.read_bytes()))
    (pieces[0].parent / "passages-4-5.arrow").write_bytes(b"half written")
    seen: list[tuple[int, int]] = []
    resumed = mask(
        source, out, config=MaskConfig(), progress=lambda done, total: seen.append((done, total))
    )
    assert seen[0] == (5 - num_passages, 5)  # the damaged piece and the last are made again
    assert len(seen) == num_passages + 1
    assert resumed == told
    assert read_json(out / MANIFEST) == read_json(whole / MANIFEST)
    assert (out / "examples.arrow").read_bytes() == (whole / "examples.arrow").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == [
        "examples",
        "whole",
    ]


def test_killed_anywhere_it_ends_with_the_same_bytes(
    source: PassageSource,
    tmp_path: Path,
    killed_after: Callable[[int, Callable[[], object]], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(examples, "PASSAGES_PER_BATCH", 1)
    monkeypatch.setattr(examples, "BATCHES_PER_PIECE", 1)
    mask(source, tmp_path / "whole", config=MaskConfig())
    wanted = read_json(tmp_path / "whole" / MANIFEST)

    def run(out: Path) -> MaskReport:
        return mask(source, out, config=MaskConfig())

    num_kills = 0
    while killed_after(7 * num_kills, partial(run, out := tmp_path / f"out-{num_kills}")):
        run(out)
        assert read_json(out / MANIFEST) == wanted
        assert not verify(out).bad
        num_kills += 1
    assert num_kills > 5


def test_a_run_is_reproducible_and_the_seed_matters(source: PassageSource, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        mask(source, tmp_path / name, config=MaskConfig(scheme="span", seed=seed))
    a, b, c = (ExampleStore.open(tmp_path / name) for name in "abc")
    assert a.fingerprint == b.fingerprint != c.fingerprint


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None
)
@given(
    words=st.lists(
        st.sampled_from(["Bonn", "Łódź", "İzmir", "the", "of", "世界", "1990", "é", "was", "São"]),
        min_size=3,
        max_size=20,
    ),
    scheme=st.sampled_from(["salient", "token", "span"]),
    max_masks=st.integers(1, 12),
)
def test_examples_of_any_text_restore_their_sentence(
    words: list[str],
    scheme: str,
    max_masks: int,
    make_source: MakeSource,
    make_passage: MakePassage,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    source = make_source(make_passage(" ".join(words), "The capital of Asia is Rome in the land."))
    config = MaskConfig.model_validate(
        {"scheme": scheme, "max_masks": max_masks, "min_sentence_wordpieces": 2}
    )
    out = tmp_path_factory.mktemp("any") / "examples"
    mask(source, out, config=config)
    for example in ExampleStore.open(out):
        masked = [i for i, n in enumerate(example.query_ids) if n == source.tokenizer.mask_id]
        assert tuple(masked[:max_masks]) == example.positions
        assert example.target_ids == tuple(example.original_ids[p] for p in example.positions)
        kept = set(range(len(example.original_ids))) - set(masked)
        assert all(example.query_ids[i] == example.original_ids[i] for i in kept)
        pieces = source.tokenizer.encode(example.sentence)
        assert example.original_ids == tuple(pieces.ids[: len(example.original_ids)])
        if scheme == "salient":
            overlap = [
                i
                for i, (first, last) in enumerate(pieces.offsets)
                if first < example.span_end and last > example.span_start
            ]
            assert masked == overlap
