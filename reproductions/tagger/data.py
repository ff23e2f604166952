"""The annotated sentences and the plain ones, as character spans and as tensors."""

import gzip
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from realm.corpus.sentences import sentence_spans
from realm.masking.trained.features import cut_words

CROSSNER = ("politics", "science", "music", "literature", "ai")
CONVENTIONS = {
    "wiki": ("PER", "LOC", "ORG", "MISC", "TERM"),
    "web": ("PER", "LOC", "ORG", "MISC"),
    "social": ("PER", "LOC", "ORG", "MISC"),
}
"""What is annotated: CrossNER's wide notion; EWT's narrow one; WNUT17's rare names."""
COARSE = {
    "PER": "PER person politician researcher scientist writer musicalartist",
    "LOC": "LOC location country",
    "ORG": "ORG organisation band politicalparty university group corporation",
    "MISC": "OTH misc book poem album song magazine academicjournal award event election "
    "conference product programlang astronomicalobject creative-work",
    "TERM": "algorithm field task metrics musicgenre literarygenre musicalinstrument "
    "chemicalcompound chemicalelement protein enzyme discipline theory",
}
WRITTEN = {"``": '"', "''": '"', "-LRB-": "(", "-RRB-": ")"}
CLOSES = {",", ".", ";", ":", "!", "?", ")", "]", "%", "..."}
"""Tokens that are written without a space before them."""
OPENS = {"(", "[", "$", "£", "#"}
"""And without one behind them."""
CLITICS = {"'s", "’s", "n't", "n’t", "'re", "'ve", "'ll", "'m", "'d"}  # noqa: RUF001
HELD_OUT = 5
"""Every fifth sentence of CrossNER's dev sets selects; the others train."""
_COARSE = {fine: coarse for coarse, names in COARSE.items() for fine in names.split()}


@dataclass(frozen=True, slots=True)
class Sentence:
    """An annotated sentence."""

    text: str
    spans: tuple[tuple[int, int, str], ...]
    """Characters (start, end) and the coarse label."""
    convention: str


def read_annotated(folder: Path, name: str) -> list[Sentence]:
    """Return the sentences of one file of `folder`, e.g. `uner_en_ewt.train`."""
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [_sentence(row["tokens"], row["tags"], convention_of(name)) for row in rows]


def training_sets(
    folder: Path, conventions: Iterable[str]
) -> tuple[list[Sentence], dict[str, list[Sentence]]]:
    """Return what trains and, by convention, what selects; no test set is among them.

    CrossNER's train sets have 100 to 200 sentences each, so four fifths of its dev sets train too.
    """
    wanted = set(conventions)
    gold: list[Sentence] = []
    held: dict[str, list[Sentence]] = {name: [] for name in CONVENTIONS if name in wanted}
    for name in ("uner_en_ewt", "wnut17", *(f"crossner_{domain}" for domain in CROSSNER)):
        if convention_of(name) not in wanted:
            continue
        gold += read_annotated(folder, f"{name}.train")
        dev = read_annotated(folder, f"{name}.dev")
        every = HELD_OUT if name.startswith("crossner") else 1
        held[convention_of(name)] += dev[::every]
        gold += [sentence for i, sentence in enumerate(dev) if i % every]
    return gold, held


def convention_of(name: str) -> str:
    """Return the convention of a file or a set, by its name."""
    return {"crossner": "wiki", "uner": "web", "wnut17": "social"}[re.split(r"[_.]", name)[0]]


def _sentence(tokens: Sequence[str], tags: Sequence[str], convention: str) -> Sentence:
    """Join the tokens as they would be written, and keep track of the spans."""
    text, spans, quoted, glue, before = "", [], False, True, "O"
    for raw, tag in zip(tokens, tags, strict=True):
        word = WRITTEN.get(raw, raw)
        is_quote = word == '"'
        close = word in CLOSES or word.lower() in CLITICS
        if not glue and not close and not (is_quote and quoted):
            text += " "
        start = len(text)
        text += word
        if tag[0] == "B" or (tag[0] == "I" and before == "O"):
            spans.append([start, len(text), _COARSE[tag[2:]]])
        elif tag[0] == "I":
            spans[-1][1] = len(text)
        before = tag
        glue = word in OPENS or (is_quote and not quoted)
        quoted ^= is_quote
    return Sentence(text, tuple((a, b, label) for a, b, label in spans), convention)


def tags_of(sentence: Sentence) -> list[int]:
    """Return the BIO tag of each word: 0 outside, 1 + 2 * label begins, 2 + 2 * label inside."""
    labels = CONVENTIONS[sentence.convention]
    tags, spans = [], iter(sentence.spans)
    current, begun = next(spans, None), False
    for start, _ in cut_words(sentence.text):
        while current is not None and start >= current[1]:
            current, begun = next(spans, None), False
        if current is None or start < current[0]:
            tags.append(0)
            continue
        tags.append(1 + 2 * labels.index(current[2]) + begun)
        begun = True
    return tags


def plain_sentences(paths: Sequence[Path], *, words: int, seed: int) -> Iterator[str]:
    """Yield sentences of randomly drawn articles until about `words` words are out, by file."""
    rng = random.Random(seed)  # noqa: S311
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts = [json.loads(line)["text"] for line in lines]
        rng.shuffle(texts)
        left = words // len(paths)
        for text in texts:
            # of a long article a stretch of some paragraphs, so that many articles have a say
            first = rng.randrange(max(1, len(text) - 3000))
            cut = text[first : first + 3000] if len(text) > 3000 else text
            found = [cut[a:b] for a, b in sentence_spans(cut, "en")]
            if len(text) > 3000:
                found = found[1:-1]
            for sentence in found:
                number = len(cut_words(sentence))
                if 4 <= number <= 90:
                    yield sentence
                    left -= number
            if left <= 0:
                break
