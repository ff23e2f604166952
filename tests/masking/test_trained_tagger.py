"""The trained tagger: spans of real sentences, its file, its speed, how it meets the rules."""

import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder
from safetensors.torch import load_file, save_file

from realm.config import MaskConfig
from realm.errors import ConfigError
from realm.masking.examples import ExampleStore, mask
from realm.masking.taggers import Tagger, make_tagger
from realm.masking.trained import tagger as trained
from realm.masking.trained.network import TaggerNetwork
from realm.masking.trained.tagger import CONVENTIONS, TrainedTagger
from realm.masking.trained.weights import WEIGHTS, load_weights, save_weights, weights_fingerprint
from realm.records import Passage, Skipped
from realm.tokenizer import WordpieceTokenizer

ROOT = Path(__file__).parents[2]
MakePassage = Callable[..., Passage]


@pytest.fixture(scope="module")
def tagger() -> TrainedTagger:
    return TrainedTagger()


def tag(tagger: Tagger, *passages: Passage) -> list[list[tuple[str, str]]]:
    found = tagger.tag(passages, Skipped())
    return [
        [(passage.text[span.start : span.end], span.label) for span in spans]
        for passage, spans in zip(passages, found, strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Marie Curie was born in Warsaw in 1867.",
            [("Marie Curie", "PER"), ("Warsaw", "LOC"), ("1867", "DATE")],
        ),
        (
            "He taught at the University of Chicago for 12 years.",
            [("University of Chicago", "ORG"), ("12 years", "QUANTITY")],
        ),
        ("When the water boils, add the salt.", []),
    ],
)
def test_names_come_from_the_network_and_numbers_from_the_rules(
    tagger: TrainedTagger, make_passage: MakePassage, text: str, expected: list[tuple[str, str]]
) -> None:
    assert tag(tagger, make_passage(text)) == [expected]


def test_f1_on_sentences_of_our_own(
    tagger: TrainedTagger,
    make_passage: MakePassage,
    read_bracketed: Callable[[str], list[Any]],
) -> None:
    """Exact spans, whatever the label."""
    sentences = read_bracketed("entities.txt")
    found = tagger.tag([make_passage(s.text) for s in sentences], Skipped())
    counts = [
        sentence.found([(s.start, s.end) for s in spans if s.label not in {"DATE", "QUANTITY"}])
        for sentence, spans in zip(sentences, found, strict=True)
    ]
    right, num_found, wanted = (sum(column) for column in zip(*counts, strict=True))
    assert 200 * right / (num_found + wanted) >= 85


def test_a_name_that_holds_a_date_stays_whole_and_other_names_yield_to_dates(
    tagger: TrainedTagger, make_passage: MakePassage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fixed:
        def __init__(self, *stretches: tuple[int, int, str]) -> None:
            self.stretches = list(stretches)

        def tag(self, sentences: Sequence[Sequence[str]], flags: object) -> list[Any]:
            del flags
            return [self.stretches for _ in sentences]

    passage = make_passage("Held at the 2008 Summer Olympics on 8 May here.")
    monkeypatch.setattr(tagger, "_predictor", Fixed((3, 5, "MISC"), (8, 9, "MISC")))
    assert tag(tagger, passage) == [[("2008 Summer Olympics", "MISC"), ("8 May", "DATE")]]
    monkeypatch.setattr(tagger, "_predictor", Fixed((0, 3, "MISC"), (7, 7, "MISC")))
    assert tag(tagger, passage) == [[("Held at the 2008", "MISC"), ("8 May", "DATE")]]


@pytest.mark.parametrize(
    ("text", "last", "expected"),
    [
        ('"Naaga" won.', 2, "Naaga"),
        ('"Naaga won.', 1, "Naaga"),
        ('Naaga" won.', 1, "Naaga"),
        ("“Naaga” won.", 2, "Naaga"),
        ('Charles "Chuck" won.', 3, 'Charles "Chuck"'),
        ('" won.', 0, None),
    ],
)
def test_quotation_marks_around_a_name_are_no_part_of_it(
    make_passage: MakePassage, text: str, last: int, expected: str | None
) -> None:
    class Fixed:
        def tag(self, sentences: Sequence[Sequence[str]], flags: object) -> list[Any]:
            del flags
            return [[(0, last, "MISC")] for _ in sentences]

    tagger = TrainedTagger()
    tagger._predictor = Fixed()  # type: ignore[assignment]
    assert tag(tagger, make_passage(text)) == [[(expected, "MISC")] if expected else []]


def test_spans_do_not_depend_on_the_passages_beside_them(
    tagger: TrainedTagger, make_passage: MakePassage
) -> None:
    one = make_passage("Ada Lovelace met Charles Babbage in London.", "She wrote about it.")
    other = make_passage(
        *["Many ships of the Hanseatic League sailed from Lübeck to Novgorod each year."] * 9
    )
    together = tag(tagger, one, other, one)
    assert together == [*tag(TrainedTagger(), one), *tag(TrainedTagger(), other), together[0]]


def test_offsets_are_the_passages_and_sentences_are_read_apart(
    tagger: TrainedTagger, make_passage: MakePassage
) -> None:
    passage = make_passage("It rained in Paris.", "London was dry.", "", "Rome slept.")
    assert [text for text, _ in tag(tagger, passage)[0]] == ["Paris", "London", "Rome"]
    assert tag(tagger) == []
    assert tag(tagger, make_passage("")) == [[]]


def test_an_endless_sentence_is_read_in_parts(
    tagger: TrainedTagger, make_passage: MakePassage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained, "LONGEST", 6)
    passage = make_passage("they saw the city of Paris and then they saw the city of London")
    assert [text for text, _ in tag(tagger, passage)[0]] == ["Paris", "London"]


def test_words_that_were_forgotten_are_learned_again(
    make_passage: MakePassage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from realm.masking.trained import predictor

    passages = [make_passage("He went to Paris."), make_passage("She went to Rome by train.")]
    expected = tag(TrainedTagger(), *passages)
    monkeypatch.setattr(predictor, "MAX_KNOWN_WORDS", 7)
    small = TrainedTagger()
    assert [tag(small, passage)[0] for passage in passages * 2] == expected * 2


def test_a_convention_is_chosen_by_name(make_passage: MakePassage) -> None:
    assert [make_tagger(f"trained:{name}").name for name in CONVENTIONS] == [
        "trained",
        "trained:web",
        "trained:social",
    ]
    prints = {make_tagger(f"trained:{name}").fingerprint for name in CONVENTIONS}
    assert len(prints) == len(CONVENTIONS)
    web = tag(make_tagger("trained:web"), make_passage("She flew from Paris to Rome."))
    assert web == [[("Paris", "LOC"), ("Rome", "LOC")]]
    with pytest.raises(ConfigError, match="expected one of wiki, web, social"):
        make_tagger("trained:news")


def test_mask_takes_it_by_its_name(
    make_passage: MakePassage, make_source: Callable[..., Any], tmp_path: Path
) -> None:
    passage = make_passage("the city of Paris was the capital in 1990 and is a city.")
    config = MaskConfig(tagger="trained")
    report = mask(make_source(passage), tmp_path / "examples", config=config)
    assert report.spans_by_label == {"LOC": 1, "DATE": 1}
    store = ExampleStore.open(tmp_path / "examples")
    assert [store[row].label for row in range(len(store))] == ["LOC", "DATE"]


def test_two_thousand_words_a_second_with_every_check_on(
    tagger: TrainedTagger, make_passage: MakePassage
) -> None:
    """15,000 on a core where shapes are not checked; the floor is for slow and busy machines."""
    sentence = "In the same year the painter Maria Sibylla Merian sailed from Amsterdam to Surinam."
    passages = [make_passage(*[sentence] * 8) for _ in range(64)]
    list(tagger.tag(passages[:1], Skipped()))
    started = time.process_time()
    list(tagger.tag(passages, Skipped()))
    assert 64 * 8 * 14 / (time.process_time() - started) > 2_000


def test_the_weights_are_small_and_travel_in_the_wheel_with_their_licence() -> None:
    found = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {
        "realm/masking/trained/weights.safetensors",
        "realm/masking/trained/README.md",
    } <= found
    assert "CC BY-SA 4.0" in files("realm.masking.trained").joinpath("README.md").read_text()
    assert WEIGHTS.stat().st_size <= 8_000_000


def test_weights_survive_the_file_within_its_precision(
    tokenizer: WordpieceTokenizer, tmp_path: Path
) -> None:
    network = TaggerNetwork({"one": 5}, num_pieces=tokenizer.vocab_size)
    file = tmp_path / "weights.safetensors"
    save_weights(file, network, tokenizer=tokenizer, conventions={"one": ["A", "B"]})
    loaded = load_weights(file)
    assert loaded.conventions == {"one": ["A", "B"]}
    assert loaded.tokenizer.vocabulary() == tokenizer.vocabulary()
    for name, value in network.state_dict().items():
        step = 2 * value.abs().max() / 127 if value.dim() > 1 else 1e-3
        assert (loaded.network.state_dict()[name] - value).abs().max() <= step


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reinstall realm-lm, or use the tagger rules"):
        load_weights(tmp_path / "none.safetensors")
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"reinstall realm-lm, or use the tagger rules"):
        load_weights(bad)
    save_file(load_file(WEIGHTS), bad, {"format": "0"})
    with pytest.raises(ConfigError, match="format '0', expected '1'"):
        load_weights(bad)
    with pytest.raises(ConfigError, match="cannot read the trained tagger"):
        weights_fingerprint(tmp_path / "none.safetensors")
