"""Which sentences of a passage become examples, and why others do not."""

from collections.abc import Callable

import pytest

from realm.config import MaskConfig
from realm.errors import MaskingError
from realm.masking.masker import Masker
from realm.records import MaskedExample, Passage, SalientSpan, Skipped
from realm.tokenizer import WordpieceTokenizer

MakePassage = Callable[..., Passage]


def find(passage: Passage, *wanted: str) -> list[SalientSpan]:
    """Return spans of the wanted strings; the n-th time a string is asked for, its n-th mention."""
    spans, last = list[SalientSpan](), dict[str, int]()
    for text in wanted:
        start = passage.text.index(text, last.get(text, 0))
        last[text] = start + 1
        spans.append(SalientSpan(start=start, end=start + len(text), label="NAME"))
    return sorted(spans, key=lambda span: span.start)


@pytest.fixture
def run(tokenizer: WordpieceTokenizer) -> Callable[..., tuple[list[MaskedExample], Skipped]]:
    def run_masker(
        passage: Passage, *wanted: str, **settings: object
    ) -> tuple[list[MaskedExample], Skipped]:
        skipped = Skipped()
        config = MaskConfig.model_validate({"min_sentence_wordpieces": 3, **settings})
        masker = Masker(tokenizer, config, skipped)
        if config.scheme == "salient":
            examples = masker.salient([passage], [find(passage, *wanted)])
        else:
            examples = masker.random([passage])
        return examples[0], skipped

    return run_masker


def test_every_distinct_span_is_one_example_with_the_sentence_that_holds_it(
    run: Callable[..., tuple[list[MaskedExample], Skipped]],
    make_passage: MakePassage,
    tokenizer: WordpieceTokenizer,
) -> None:
    passage = make_passage("Anna was born in Bonn.", "The capital of Asia is a city.", row=7)
    examples, skipped = run(passage, "Anna", "Bonn", "Asia")
    assert [(e.sentence[e.span_start : e.span_end], e.sentence) for e in examples] == [
        ("Anna", "Anna was born in Bonn."),
        ("Bonn", "Anna was born in Bonn."),
        ("Asia", "The capital of Asia is a city."),
    ]
    assert [e.row for e in examples] == [0, 1, 2]
    assert {(e.origin, e.origin_sha256, e.article_id) for e in examples} == {
        (7, passage.sha256, "7")
    }
    assert skipped.total == 0
    assert tokenizer.decode(examples[1].query_ids) == "anna was born in " + "[MASK] " * 4 + "."
    assert tokenizer.decode(examples[1].target_ids) == "bonn"
    assert tuple(examples[1].original_ids) == tuple(tokenizer.encode("anna was born in bonn.").ids)


def test_a_repeated_span_gives_one_example_from_its_first_mention(
    run: Callable[..., tuple[list[MaskedExample], Skipped]], make_passage: MakePassage
) -> None:
    passage = make_passage("The city of Bonn is old.", "The river in BONN is a river.")
    examples, skipped = run(passage, "Bonn", "BONN")
    assert [e.sentence for e in examples] == ["The city of Bonn is old."]
    assert skipped.counts == {"span repeated in its passage": 1}


def test_a_later_mention_stands_in_for_a_first_one_that_cannot_be_used(
    run: Callable[..., tuple[list[MaskedExample], Skipped]], make_passage: MakePassage
) -> None:
    passage = make_passage("Bonn", "The river in Bonn is a river.")
    examples, skipped = run(passage, "Bonn", "Bonn", min_sentence_wordpieces=6)
    assert [e.sentence for e in examples] == ["The river in Bonn is a river."]
    assert skipped.counts == {"sentence too short": 1}


def test_another_mention_of_the_entity_in_the_sentence_stays_visible(
    run: Callable[..., tuple[list[MaskedExample], Skipped]],
    make_passage: MakePassage,
    tokenizer: WordpieceTokenizer,
) -> None:
    passage = make_passage("Bonn is in Bonn and in the city.")
    examples, _ = run(passage, "Bonn")
    masked = tokenizer.decode(examples[0].query_ids)
    assert masked == "[MASK] [MASK] [MASK] [MASK] is in bonn and in the city ."


def test_pieces_beyond_max_masks_are_masked_but_do_not_count(
    run: Callable[..., tuple[list[MaskedExample], Skipped]],
    make_passage: MakePassage,
    tokenizer: WordpieceTokenizer,
) -> None:
    passage = make_passage("The city of Brandenburg is in the land.")
    examples, _ = run(passage, "Brandenburg", max_masks=3)
    (example,) = examples
    assert example.positions == (3, 4, 5)
    assert tokenizer.decode(example.target_ids) == "bra"
    assert example.query_ids.count(tokenizer.mask_id) == len("brandenburg")


def test_a_long_sentence_is_cut_at_the_end_as_long_as_the_span_fits(
    run: Callable[..., tuple[list[MaskedExample], Skipped]], make_passage: MakePassage
) -> None:
    passage = make_passage("In Bonn the river is a river and a city is a city of Asia.")
    examples, skipped = run(passage, "Bonn", "Asia", query_wordpieces=12)
    assert [len(e.query_ids) for e in examples] == [10]
    assert [len(e.original_ids) for e in examples] == [10]
    assert examples[0].sentence == passage.text
    assert skipped.counts == {"span beyond the query length": 1}


def test_the_last_piece_that_fits_may_be_masked(
    run: Callable[..., tuple[list[MaskedExample], Skipped]], make_passage: MakePassage
) -> None:
    passage = make_passage("the city of Bonn is")  # pieces 3 to 6 are Bonn's
    assert len(run(passage, "Bonn", query_wordpieces=9)[0]) == 1
    assert len(run(passage, "Bonn", query_wordpieces=8)[0]) == 0


@pytest.mark.parametrize(
    ("sentences", "span", "reason"),
    [
        (("The city is in", "Bonn and in the land."), "in Bonn", "span crosses sentences"),
        (("Bonn is.", "The land of the river."), "Bonn", "sentence too short"),
        (("The city of 世界 is in the land.",), "世界", "every masked piece is [UNK]"),
        (("Bonn in the land.",), "Bonn in the land.", "whole sentence masked"),
        (("The city of \u0301 is in the land.",), "\u0301", "span without wordpieces"),
    ],
)
def test_a_span_that_cannot_be_used_is_counted_by_reason(
    sentences: tuple[str, ...],
    span: str,
    reason: str,
    run: Callable[..., tuple[list[MaskedExample], Skipped]],
    make_passage: MakePassage,
) -> None:
    examples, skipped = run(make_passage(*sentences), span, min_sentence_wordpieces=7)
    assert examples == []
    assert skipped.counts == {reason: 1}
    assert skipped.examples[reason] == [f"0#0: {span}"]


def test_a_name_with_one_unknown_character_is_kept(
    run: Callable[..., tuple[list[MaskedExample], Skipped]],
    make_passage: MakePassage,
    tokenizer: WordpieceTokenizer,
) -> None:
    examples, _ = run(make_passage("The city of Bonn 世 is in the land."), "Bonn 世")
    assert examples[0].target_ids[-1] == tokenizer.unk_id
    assert len(examples[0].target_ids) == 5


def test_a_passage_without_spans_is_counted(
    run: Callable[..., tuple[list[MaskedExample], Skipped]], make_passage: MakePassage
) -> None:
    examples, skipped = run(make_passage("The city is a city."))
    assert examples == []
    assert skipped.counts == {"passage without spans": 1}
    assert skipped.examples == {"passage without spans": ["0#0"]}


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (3, 3), (0, 99)])
def test_a_span_outside_its_passage_is_an_error(
    start: int, end: int, make_passage: MakePassage, tokenizer: WordpieceTokenizer
) -> None:
    masker = Masker(tokenizer, MaskConfig(), Skipped())
    span = SalientSpan(start=start, end=end, label="X")
    with pytest.raises(MaskingError, match="passage 0#0 of 12 characters"):
        masker.salient([make_passage("The city is.")], [[span]])


def test_a_tagger_that_loses_a_passage_is_an_error(
    make_passage: MakePassage, tokenizer: WordpieceTokenizer
) -> None:
    masker = Masker(tokenizer, MaskConfig(), Skipped())
    with pytest.raises(MaskingError, match="one list per passage"):
        masker.salient([make_passage("The city is.")], [])


@pytest.mark.parametrize("scheme", ["token", "span"])
def test_random_schemes_draw_the_asked_number_of_examples(
    scheme: str,
    run: Callable[..., tuple[list[MaskedExample], Skipped]],
    make_passage: MakePassage,
) -> None:
    passage = make_passage(
        "The river in the land is a river.", "Bonn is.", "A city of the land was a capital."
    )
    examples, skipped = run(
        passage, scheme=scheme, examples_per_passage=20, min_sentence_wordpieces=7
    )
    assert len(examples) == 20
    assert {e.sentence for e in examples} == {passage.text[:33], passage.text[43:]}
    assert {(e.label, e.span_start, e.span_end) for e in examples} == {(scheme, -1, -1)}
    assert len({e.positions for e in examples}) > 5
    assert all(len(e.target_ids) == len(e.positions) >= 1 for e in examples)
    assert skipped.total == 0


@pytest.mark.parametrize("scheme", ["token", "span"])
def test_random_draws_depend_on_seed_and_passage_row_only(
    scheme: str, make_passage: MakePassage, tokenizer: WordpieceTokenizer
) -> None:
    sentence = "The river in the land is a river of the capital city."
    passages = [make_passage(sentence, row=row) for row in range(6)]

    def draw(chosen: list[Passage], seed: int) -> dict[int, list[tuple[int, ...]]]:
        config = MaskConfig.model_validate({"scheme": scheme, "seed": seed})
        masker = Masker(tokenizer, config, Skipped())
        drawn = masker.random(chosen)
        return {p.row: [e.positions for e in found] for p, found in zip(chosen, drawn, strict=True)}

    together = draw(passages, 0)
    assert {r: d for p in reversed(passages) for r, d in draw([p], 0).items()} == together
    assert draw(passages, 1) != together
    assert together[0] != together[1]


def test_random_draws_of_long_sentences_stay_within_the_query(
    run: Callable[..., tuple[list[MaskedExample], Skipped]], make_passage: MakePassage
) -> None:
    passage = make_passage("the river " * 30)
    examples, _ = run(passage, scheme="span", query_wordpieces=16, examples_per_passage=30)
    assert {len(e.query_ids) for e in examples} == {14}


def test_a_random_draw_that_hits_only_unknown_pieces_is_counted(
    run: Callable[..., tuple[list[MaskedExample], Skipped]], make_passage: MakePassage
) -> None:
    examples, skipped = run(make_passage("世 界 大 学 生 人"), scheme="token")
    assert examples == []
    assert skipped.counts == {"every masked piece is [UNK]": 4}


def test_a_passage_of_short_sentences_only_is_counted_by_the_random_schemes(
    run: Callable[..., tuple[list[MaskedExample], Skipped]], make_passage: MakePassage
) -> None:
    examples, skipped = run(make_passage("Is.", "The."), scheme="token")
    assert examples == []
    assert skipped.counts == {"passage without a long enough sentence": 1}


def test_span_masking_hides_whole_words(
    run: Callable[..., tuple[list[MaskedExample], Skipped]],
    make_passage: MakePassage,
    tokenizer: WordpieceTokenizer,
) -> None:
    passage = make_passage("The lands of Brandenburg and Bonn is in the city of rivers.")
    examples, _ = run(passage, scheme="span", examples_per_passage=40, max_masks=99)
    for example in examples:
        pieces = [tokenizer.token(number) for number in example.original_ids]
        masked = [number == tokenizer.mask_id for number in example.query_ids]
        for before, here, piece in zip(masked, masked[1:], pieces[1:], strict=False):
            assert before == here or not piece.startswith("##")
