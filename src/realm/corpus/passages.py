"""Article -> passages: whole sentences packed greedily, never across articles."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from realm.config import SplitConfig
from realm.corpus.sentences import is_inside_character, sentence_spans
from realm.records import Article, Passage
from realm.tokenizer import WordpieceTokenizer

NUM_SEPARATORS = 3
"""[CLS] title [SEP] body [SEP]."""
SPACES = " \n\t\r"
"""What every BERT tokenizer takes for white space (other control characters vanish)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutPassage:
    """A passage with its wordpieces; `passage.row` is its number in the article."""

    passage: Passage
    wordpieces: list[int]
    """Exactly those of `passage.text`."""
    title_wordpieces: list[int]
    """Those of the title, cut to a quarter of the longest passage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArticlePassages:
    """What one article was cut into."""

    article_id: str
    passages: list[CutPassage]
    num_too_short: int
    """Passages left out: shorter than `min_wordpieces`, or without any wordpiece."""


@dataclass(frozen=True, slots=True)
class _Sentence:
    start: int
    end: int
    ids: list[int]


_Pack = list[_Sentence]


def split_article(
    article: Article, tokenizer: WordpieceTokenizer, config: SplitConfig
) -> ArticlePassages:
    """Return the passages of one article: `split_articles` of one."""
    return split_articles([article], tokenizer, config)[0]


def split_articles(
    articles: Sequence[Article], tokenizer: WordpieceTokenizer, config: SplitConfig
) -> list[ArticlePassages]:
    """Return the passages of each article, tokenised together.

    Whole sentences are packed while 3 + title + body wordpieces <= `config.max_wordpieces`, as in
    ORQA. ORQA keeps an over-long sentence and truncates it later; here it is cut into pieces that
    fit, and each piece counts as a sentence. No character but white space between sentences is
    lost.
    """
    titles = [
        ids[: config.max_wordpieces // 4]
        for ids in tokenizer.encode_ids([article.title for article in articles])
    ]
    budgets = [config.max_wordpieces - NUM_SEPARATORS - len(title) for title in titles]
    sentences = _read_sentences(articles, tokenizer, config.language)
    packs = [
        _pack(_cut_long(article.text, found, tokenizer, budget), budget)
        for article, found, budget in zip(articles, sentences, budgets, strict=True)
    ]
    bodies = _tokenise_packs(articles, packs, tokenizer, budgets)
    return [
        _finish(article, body, title, config)
        for article, body, title in zip(articles, bodies, titles, strict=True)
    ]


def keep_whole(
    articles: Sequence[Article], tokenizer: WordpieceTokenizer, config: SplitConfig
) -> list[ArticlePassages]:
    """Return each article as one passage, whatever its length: for texts that come ready cut.

    Nothing is left out, so that passages stay row by row with what they came with.
    """
    titles = tokenizer.encode_ids([article.title for article in articles])
    texts = tokenizer.encode_ids([article.text for article in articles])
    return [
        ArticlePassages(
            article_id=article.id,
            passages=[
                CutPassage(
                    passage=Passage(
                        row=0,
                        id=f"{article.id}#0",
                        article_id=article.id,
                        title=article.title,
                        text=article.text,
                        start=0,
                        end=len(article.text),
                        sentences=tuple(sentence_spans(article.text, config.language)),
                    ),
                    wordpieces=ids,
                    title_wordpieces=title[: config.max_wordpieces // 4],
                )
            ],
            num_too_short=0,
        )
        for article, ids, title in zip(articles, texts, titles, strict=True)
    ]


def _read_sentences(
    articles: Sequence[Article], tokenizer: WordpieceTokenizer, language: str
) -> list[_Pack]:
    """Return the sentences of each article with their wordpieces, encoded in one batch."""
    spans = [list(sentence_spans(article.text, language)) for article in articles]
    ids = iter(
        tokenizer.encode_ids(
            [a.text[s:e] for a, found in zip(articles, spans, strict=True) for s, e in found]
        )
    )
    return [[_Sentence(start, end, next(ids)) for start, end in found] for found in spans]


def _cut_long(
    text: str, sentences: _Pack, tokenizer: WordpieceTokenizer, budget: int
) -> list[_Sentence]:
    """Return the sentences with each that exceeds the budget cut into pieces that fit."""
    fitting: list[_Sentence] = []
    waiting = sentences[::-1]
    while waiting:
        sentence = waiting.pop()
        if len(sentence.ids) <= budget:
            fitting.append(sentence)
            continue
        pieces = _cut_sentence(text, sentence, tokenizer, budget)
        if len(pieces) == 1:
            fitting += pieces  # one character that is more wordpieces than fit
        else:
            waiting += pieces[::-1]  # a cut inside a word may have changed the count: look again
    return fitting


def _cut_sentence(
    text: str, sentence: _Sentence, tokenizer: WordpieceTokenizer, budget: int
) -> list[_Sentence]:
    sentence_text = text[sentence.start : sentence.end]
    ids, offsets = tokenizer.encode(sentence_text)
    cuts = [0]
    first = 0
    while len(ids) - first > budget:
        following = _choose_cut(sentence_text, ids, offsets, tokenizer, first, first + budget)
        if following is None:
            break
        cuts.append(offsets[following][0])
        first = following
    cuts.append(len(sentence_text))
    spans: list[tuple[int, int]] = []
    for start, end in pairwise(cuts):
        piece = sentence_text[start:end]
        if stripped := piece.strip():
            shift = len(piece) - len(piece.lstrip())
            spans.append((start + shift, start + shift + len(stripped)))
    encoded = tokenizer.encode_ids([sentence_text[start:end] for start, end in spans])
    return [
        _Sentence(sentence.start + start, sentence.start + end, piece_ids)
        for (start, end), piece_ids in zip(spans, encoded, strict=True)
    ]


def _choose_cut(
    text: str,
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    tokenizer: WordpieceTokenizer,
    first: int,
    last: int,
) -> int | None:
    """Return the wordpiece in (first, last] that starts the next piece.

    The last one after white space; else the last that starts a word; else the last that starts
    what readers see as a character; else the last that starts a code point; else the first beyond
    `last` that does; None if there is none.
    """
    best: tuple[int, int] | None = None
    for number in range(last, first, -1):
        before, after = offsets[number - 1][1], offsets[number][0]
        if not 0 < before <= after:
            continue
        if any(character.isspace() for character in text[before:after]):
            return number
        rank = 0
        if not is_inside_character(text, after):
            rank = 1 if tokenizer.token(ids[number]).startswith("##") else 2
        if best is None or rank > best[0]:
            best = (rank, number)
    if best is not None:
        return best[1]
    for number in range(last + 1, len(ids)):
        if 0 < offsets[number - 1][1] <= offsets[number][0]:
            return number
    return None


def _pack(sentences: Sequence[_Sentence], budget: int) -> list[_Pack]:
    """Return runs of sentences, each as long as the budget allows."""
    packs: list[_Pack] = []
    room = -1
    for sentence in sentences:
        if len(sentence.ids) > room:
            packs.append([])
            room = budget
        packs[-1].append(sentence)
        room -= len(sentence.ids)
    return packs


def _tokenise_packs(
    articles: Sequence[Article],
    packs: Sequence[list[_Pack]],
    tokenizer: WordpieceTokenizer,
    budgets: Sequence[int],
) -> list[list[tuple[_Pack, list[int]]]]:
    """Return each pack with the wordpieces of its text, in halves where they exceed the budget."""
    trusts_spaces = tokenizer.splits_at_spaces
    done: list[list[tuple[_Pack, list[int]]]] = [[] for _ in packs]
    unsure: list[tuple[int, int]] = []
    for number, (article, found) in enumerate(zip(articles, packs, strict=True)):
        for pack in found:
            if len(pack) > 1 and not (trusts_spaces and _has_spaces(article.text, pack)):
                unsure.append((number, len(done[number])))
            done[number].append((pack, [piece for sentence in pack for piece in sentence.ids]))
    texts = [_text(articles[number].text, done[number][at][0]) for number, at in unsure]
    for (number, at), ids in reversed(
        list(zip(unsure, tokenizer.encode_ids(texts), strict=True))
    ):  # backwards: halves move what comes after them
        pack = done[number][at][0]
        done[number][at : at + 1] = _halve(
            articles[number].text, pack, ids, tokenizer, budgets[number]
        )
    return done


def _halve(
    text: str, pack: _Pack, ids: list[int], tokenizer: WordpieceTokenizer, budget: int
) -> list[tuple[_Pack, list[int]]]:
    if len(ids) <= budget or len(pack) == 1:
        return [(pack, ids)]
    middle = len(pack) // 2
    return [
        done
        for half in (pack[:middle], pack[middle:])
        for done in _halve(text, half, tokenizer.encode(_text(text, half)).ids, tokenizer, budget)
    ]


def _has_spaces(text: str, pack: _Pack) -> bool:
    """Return whether white space stands between all sentences of a pack."""
    return all(
        any(space in SPACES for space in text[left.end : right.start])
        for left, right in pairwise(pack)
    )


def _text(text: str, pack: _Pack) -> str:
    return text[pack[0].start : pack[-1].end]


def _finish(
    article: Article,
    bodies: Sequence[tuple[_Pack, list[int]]],
    title: list[int],
    config: SplitConfig,
) -> ArticlePassages:
    shortest = max(1, config.min_wordpieces - NUM_SEPARATORS - len(title))
    kept = [(pack, ids) for pack, ids in bodies if len(ids) >= shortest]
    passages = [
        CutPassage(passage=_passage(article, number, pack), wordpieces=ids, title_wordpieces=title)
        for number, (pack, ids) in enumerate(kept)
    ]
    return ArticlePassages(
        article_id=article.id, passages=passages, num_too_short=len(bodies) - len(kept)
    )


def _passage(article: Article, number: int, pack: _Pack) -> Passage:
    start = pack[0].start
    return Passage(
        row=number,
        id=f"{article.id}#{number}",
        article_id=article.id,
        title=article.title,
        text=_text(article.text, pack),
        start=start,
        end=pack[-1].end,
        sentences=tuple((sentence.start - start, sentence.end - start) for sentence in pack),
    )
