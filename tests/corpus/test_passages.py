"""Passages: slices of the article, whole sentences, within the bound."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from realm.config import SplitConfig
from realm.corpus.passages import ArticlePassages, split_article, split_articles
from realm.records import Article
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

WORDS = st.sampled_from(
    ["april", "of the year", "Dr.", "e.g.", "U.S.", "zebra", "x" * 40, "日本語。",
     "e\u0301te\u0301", "👩\u200d👧", "🇩🇪🇩🇪", "\u200b", "\x0b", "\u2028", "a.b", "...", "?!", "(",
     "\u0301", "[MASK]", "½", "İ"]
)  # fmt: skip
TEXT = st.lists(
    st.tuples(WORDS, st.sampled_from([" ", "", ". ", "! ", "\n", "\r\n\r\n", "\u00a0", "。"]))
).map(lambda pairs: "".join(word + space for word, space in pairs))


@pytest.fixture(scope="module")
def unusual_tokenizer() -> WordpieceTokenizer:
    """Keeps accents and splits at nothing: joined sentences have other wordpieces."""
    characters = "abcdefghijklmnopqrstuvwxyz. \n日本語。\u0301👩\u200d👧🇩🇪"
    pieces = [*SPECIAL_TOKENS, *characters, *(f"##{character}" for character in characters)]
    fast = Tokenizer(
        models.WordPiece(
            {piece: number for number, piece in enumerate(dict.fromkeys(pieces))},
            unk_token="[UNK]",  # noqa: S106
            max_input_chars_per_word=10**9,
        )
    )
    fast.normalizer = normalizers.Lowercase()
    fast.pre_tokenizer = pre_tokenizers.Split(pattern="\x00", behavior="removed")
    fast.add_special_tokens(list(SPECIAL_TOKENS))
    return WordpieceTokenizer(fast)


def article(text: str, title: str = "") -> Article:
    return Article(id="a", title=title, text=text)


def texts(found: ArticlePassages) -> list[str]:
    return [cut.passage.text for cut in found.passages]


def check(source: Article, found: ArticlePassages, config: SplitConfig) -> None:
    """Check all that is always true of the passages of an article."""
    last_end = 0
    for number, cut in enumerate(found.passages):
        passage = cut.passage
        assert passage.text == source.text[passage.start : passage.end]
        assert passage.start >= last_end
        assert not source.text[last_end : passage.start].strip() or found.num_too_short
        last_end = passage.end
        assert (passage.row, passage.id) == (number, f"a#{number}")
        assert len(cut.title_wordpieces) <= config.max_wordpieces // 4
        assert 3 + len(cut.title_wordpieces) + len(cut.wordpieces) <= config.max_wordpieces
        sentence_end = 0
        for start, end in passage.sentences:
            assert passage.text[start:end] == passage.text[start:end].strip() != ""
            assert not passage.text[sentence_end:start].strip()
            sentence_end = end
        assert passage.sentences[0][0] == 0
        assert sentence_end == len(passage.text)
    assert not source.text[last_end:].strip() or found.num_too_short


@given(text=TEXT, title=TEXT, max_wordpieces=st.integers(16, 60))
def test_passages_are_slices_that_cover_the_article_in_order(
    tokenizer: WordpieceTokenizer, text: str, title: str, max_wordpieces: int
) -> None:
    config = SplitConfig(max_wordpieces=max_wordpieces)
    source = article(text, title)
    found = split_article(source, tokenizer, config)
    check(source, found, config)
    for cut in found.passages:
        assert cut.wordpieces == tokenizer.encode(cut.passage.text).ids != []
    if found.num_too_short:  # only what has no wordpiece at all
        kept = {at for cut in found.passages for at in range(cut.passage.start, cut.passage.end)}
        left = "".join(text[at] for at in range(len(text)) if at not in kept)
        assert tokenizer.encode(left).ids == []


@given(text=TEXT, max_wordpieces=st.integers(16, 40))
def test_nothing_changes_for_tokenizers_that_read_across_spaces(
    unusual_tokenizer: WordpieceTokenizer, text: str, max_wordpieces: int
) -> None:
    config = SplitConfig(max_wordpieces=max_wordpieces)
    found = split_article(article(text), unusual_tokenizer, config)
    check(article(text), found, config)
    for cut in found.passages:
        assert cut.wordpieces == unusual_tokenizer.encode(cut.passage.text).ids


def test_a_passage_takes_sentences_as_long_as_they_fit(tokenizer: WordpieceTokenizer) -> None:
    """3 + title (1) + body <= 16: two sentences of six wordpieces fit, three do not."""
    sentence = "One two the of and."
    found = split_article(
        article(" ".join([sentence] * 5), "April"), tokenizer, SplitConfig(max_wordpieces=16)
    )
    assert texts(found) == [f"{sentence} {sentence}", f"{sentence} {sentence}", sentence]
    assert [len(cut.wordpieces) for cut in found.passages] == [12, 12, 6]
    assert found.passages[0].passage.sentences == ((0, 19), (20, 39))
    one_less = split_article(
        article(" ".join([sentence] * 5), "April of"), tokenizer, SplitConfig(max_wordpieces=16)
    )
    assert len(one_less.passages) == 5


def test_a_long_title_counts_a_quarter_at_most(tokenizer: WordpieceTokenizer) -> None:
    found = split_article(
        article("the " * 9, title="april " * 50), tokenizer, SplitConfig(max_wordpieces=16)
    )
    (only,) = found.passages
    assert len(only.title_wordpieces) == 4
    assert only.passage.title == "april " * 50


def test_an_over_long_sentence_is_cut_between_words(tokenizer: WordpieceTokenizer) -> None:
    found = split_article(
        article("history zebra month " * 9), tokenizer, SplitConfig(max_wordpieces=16)
    )
    assert " ".join(texts(found)) == ("history zebra month " * 9).strip()
    assert {word for text in texts(found) for word in text.split()} == {"history", "zebra", "month"}


def test_a_sentence_without_spaces_is_cut_between_characters(
    unusual_tokenizer: WordpieceTokenizer,
) -> None:
    family = "e\u0301👩\u200d👧"
    found = split_article(article(family * 20), unusual_tokenizer, SplitConfig(max_wordpieces=16))
    assert "".join(texts(found)) == family * 20
    assert all(text[0] in "e👩" for text in texts(found))
    assert not any(text.startswith("👩\u200d👧") and text[3:4] == "👩" for text in texts(found))


def test_a_cut_prefers_spaces_then_words(tokenizer: WordpieceTokenizer) -> None:
    config = SplitConfig(max_wordpieces=16)
    found = split_article(article("one,two " * 9), tokenizer, config)
    assert texts(found) == ["one,two one,two one,two one,two"] * 2 + ["one,two"]
    found = split_article(article("zebra-" * 9), tokenizer, config)
    assert texts(found) == ["zebra-zebra-"] * 4 + ["zebra-"]


def test_a_character_of_several_wordpieces_is_never_cut() -> None:
    """Korean syllables are normalised to two or three letters each."""
    letters = [chr(code) for code in (0x1112, 0x1161, 0x11AB)]
    korean = WordpieceTokenizer.from_vocabulary(
        [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    )
    found = split_article(article("\ud55c" * 30), korean, SplitConfig(max_wordpieces=16))
    assert "".join(texts(found)) == "\ud55c" * 30
    assert [len(cut.wordpieces) for cut in found.passages] == [12] * 7 + [6]


def test_a_cut_that_makes_more_wordpieces_is_followed_by_another() -> None:
    """`##abcdefgh` is one wordpiece inside a word and eight at its start."""
    pieces = [*SPECIAL_TOKENS, *"xabcdefgh", *(f"##{one}" for one in "abcdefgh"), "##abcdefgh"]
    odd = WordpieceTokenizer.from_vocabulary(pieces)
    config = SplitConfig(max_wordpieces=16)
    text = "x" + "abcdefgh" * 12
    found = split_article(article(text, title="x x x x"), odd, config)
    assert "".join(texts(found)) == text
    assert max(len(cut.wordpieces) for cut in found.passages) <= 16 - 3 - 4


def test_sentences_without_a_space_between_them_are_tokenised_together(
    tokenizer: WordpieceTokenizer,
) -> None:
    """A vertical tab ends a sentence here, but BERT's tokenizers drop it and join the words."""
    (only,) = split_article(article("one\x0btwo"), tokenizer, SplitConfig()).passages
    assert only.passage.sentences == ((0, 3), (4, 7))
    assert only.wordpieces == tokenizer.encode("one\x0btwo").ids
    assert only.wordpieces != tokenizer.encode("one two").ids


def test_a_passage_that_has_more_wordpieces_than_its_sentences_is_halved(
    unusual_tokenizer: WordpieceTokenizer,
) -> None:
    config = SplitConfig(max_wordpieces=16)
    found = split_article(article("abc\n" * 12), unusual_tokenizer, config)
    assert texts(found) == ["abc\nabc"] * 6
    assert {len(cut.wordpieces) for cut in found.passages} == {7}


def test_short_passages_are_left_out_and_counted(tokenizer: WordpieceTokenizer) -> None:
    sentence = "One two the of and in is was april month year."
    config = SplitConfig(max_wordpieces=16, min_wordpieces=10)
    found = split_article(article(f"{sentence} {sentence} One."), tokenizer, config)
    assert (texts(found), found.num_too_short) == ([sentence, sentence], 1)
    assert [cut.passage.id for cut in found.passages] == ["a#0", "a#1"]


def test_text_without_a_wordpiece_gives_no_passage(tokenizer: WordpieceTokenizer) -> None:
    found = split_article(article("\u200b\u200b"), tokenizer, SplitConfig())
    assert (found.passages, found.num_too_short) == ([], 1)


def test_many_articles_at_once_give_what_each_gives(tokenizer: WordpieceTokenizer) -> None:
    articles = [
        Article(id=str(number), title="April", text="One two. " * number) for number in range(9)
    ]
    config = SplitConfig(max_wordpieces=16)
    together = split_articles(articles, tokenizer, config)
    assert together == [split_article(one, tokenizer, config) for one in articles]


@pytest.mark.parametrize(
    "text",
    ["a" * 10**6, "a " * 10**5, "a|b||" * 20_000, "日" * 50_000],
    ids=["one word", "spaces", "table", "chinese"],
)
def test_a_long_line_without_a_full_stop_takes_linear_time(
    tokenizer: WordpieceTokenizer, text: str
) -> None:
    started = time.monotonic()
    found = split_article(article(text), tokenizer, SplitConfig(max_wordpieces=32))
    assert sum(len(text) - text.count(" ") for text in texts(found)) == len(text.replace(" ", ""))
    assert time.monotonic() - started < 20  # quadratic: minutes
