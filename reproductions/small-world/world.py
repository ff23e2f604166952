"""A made-up world whose every fact is known: articles, masked spans and questions, of any size.

Each entity has a first and a last name that it shares with others, and one fact of each relation.
An *encyclopedia* passage and a *news* passage tell the same fact in different words. The knowledge
corpus Z is the encyclopedia of all entities, gossip (passages without a fact), and the news of
the entities that may be trained on; the masked sentences X are that news, so that each has its own
passage in Z. Of the entities held out there is no news in Z or X: theirs is what is asked.

    python world.py --passages 2000 --seed 0 --out WORLD
"""

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Literal, TextIO

from wordings import ACTIVITIES, ADJECTIVES, NOUNS, RELATIONS, Relation

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SYLLABLES = tuple(f"{c}{v}" for c in "bdfgklmnprstvz" for v in "aeiou")
SAME_SCENE = 0.5
"""How often both sentences of an article open with the same words, which tell nothing else."""
HELD_OUT_EVERY = 4
"""Every so many entities one is held out."""
VALUE_SHARED_BY = 20
"""Entities, at most, with the same value of one relation, on average: a value that stands in too
many passages says nothing of them. All relations share their values, so that its kind alone does
not tell a useful passage."""

Style = Literal["encyclopedia", "news"]

PASSAGES_OF_ENTITY = len(RELATIONS) + 1
PASSAGES_OF_GROUP = HELD_OUT_EVERY * PASSAGES_OF_ENTITY + (HELD_OUT_EVERY - 1) * len(RELATIONS)
"""Passages in Z of HELD_OUT_EVERY entities, one of them held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One article, with the value of its fact marked."""

    id: str
    title: str
    text: str
    spans: tuple[tuple[int, int, str], ...]
    """(first character, one past the last, relation) of the value; none in gossip."""


class World:
    """Names, values and facts, each a function of the seed."""

    def __init__(self, *, num_passages: int, seed: int) -> None:
        """Draw names and values.

        Args:
            num_passages: passages in Z, at least; rounded up to whole groups of entities.
            seed: decides everything.
        """
        self.seed = seed
        self.num_entities = HELD_OUT_EVERY * -(-num_passages // PASSAGES_OF_GROUP)
        num_names = isqrt(2 * self.num_entities) + 1
        num_values = 20 + self.num_entities // VALUE_SHARED_BY
        draw = _random(seed, "names")
        words = _words(2 * num_names + num_values, draw)
        self.first, self.last = words[:num_names], words[num_names : 2 * num_names]
        self.values = words[2 * num_names :]
        self._pairs = draw.sample(range(num_names**2), self.num_entities)

    def name(self, entity: int) -> str:
        """Return the first and last name, which no other entity has together."""
        first, last = divmod(self._pairs[entity], len(self.last))
        return f"{self.first[first]} {self.last[last]}"

    def is_held_out(self, entity: int) -> bool:
        """Return whether there is no news of it in Z and X."""
        return entity % HELD_OUT_EVERY == HELD_OUT_EVERY - 1

    def value(self, entity: int, relation: Relation) -> str:
        """Return the fact."""
        draw = _random(self.seed, entity, relation.name)
        return draw.choice(self.values)

    def fact(self, entity: int, relation: Relation, style: Style) -> Told:
        """Return the article that tells a fact in one of the two styles."""
        draw = _random(self.seed, entity, relation.name, style)
        name, scene = self.name(entity), _scene(draw)
        wordings = relation.news if style == "news" else relation.encyclopedia
        before, after = draw.choice(wordings).format(name=name, value="|").split("|")
        value = self.value(entity, relation)
        told = f"In the {scene} {before}"
        other = scene if draw.random() < SAME_SCENE else _scene(draw)
        sentences = [f"{told}{value}{after}.", f"In the {other} {name} {draw.choice(ACTIVITIES)}."]
        start = len(told)
        if draw.random() < 0.5:
            sentences.reverse()
            start += len(sentences[0]) + 1
        return Told(
            id=article_id(entity, relation.name, style),
            title=name,
            text=" ".join(sentences),
            spans=((start, start + len(value), relation.name),),
        )

    def gossip(self, entity: int) -> Told:
        """Return an article about an entity that tells no fact."""
        draw = _random(self.seed, entity, "gossip")
        name, scene = self.name(entity), _scene(draw)
        text = " ".join(f"In the {scene} {name} {a}." for a in draw.sample(ACTIVITIES, 2))
        return Told(id=f"gossip-{entity}", title=name, text=text, spans=())

    def encyclopedia(self, *, held_out: bool) -> Iterator[Told]:
        """Yield what Z always holds of the entities held out, or of the others."""
        for entity in self._entities(held_out=held_out):
            for relation in RELATIONS:
                yield self.fact(entity, relation, "encyclopedia")
            yield self.gossip(entity)

    def news(self, *, held_out: bool) -> Iterator[Told]:
        """Yield the articles whose sentences are masked."""
        for entity in self._entities(held_out=held_out):
            for relation in RELATIONS:
                yield self.fact(entity, relation, "news")

    def questions(self, *, held_out: bool) -> Iterator[dict[str, object]]:
        """Yield a question for every fact, with its answer and the article that tells it."""
        for entity in self._entities(held_out=held_out):
            for relation in RELATIONS:
                yield {
                    "id": f"{entity}-{relation.name}",
                    "question": relation.question.format(name=self.name(entity)),
                    "answers": [self.value(entity, relation)],
                    "passage_id": article_id(entity, relation.name, "encyclopedia"),
                }

    def vocabulary(self) -> list[str]:
        """Return every word as one wordpiece, and letters for all others."""
        told = [w for r in RELATIONS for w in (*r.encyclopedia, *r.news, r.question)]
        wordings = [wording.format(name="", value="") for wording in told]
        texts = " ".join(["In the", *ADJECTIVES, *NOUNS, *ACTIVITIES, *wordings])
        own = [*self.first, *self.last, *self.values]
        words = sorted(set(re.findall(r"[a-z]+", " ".join([texts, *own]).lower())))
        letters = "abcdefghijklmnopqrstuvwxyz0123456789"
        pieces = [*SPECIAL, *words, *".?", *letters, *(f"##{letter}" for letter in letters)]
        return list(dict.fromkeys(pieces))

    def _entities(self, *, held_out: bool) -> Iterator[int]:
        return (e for e in range(self.num_entities) if self.is_held_out(e) == held_out)


def article_id(entity: int, relation: str, style: Style) -> str:
    """Return the id of the article that tells a fact in this style."""
    return f"{style}-{entity}-{relation}"


def telling(article: str) -> str:
    """Return the id of the encyclopedia's article that tells the same as one of the news."""
    return article.replace("news", "encyclopedia", 1)


def write(world: World, out: Path) -> int:
    """Write the world's files into a folder, one line at a time; return the passages in Z.

    encyclopedia.jsonl, encyclopedia-held-out.jsonl, news.jsonl: the articles of Z;
    news.jsonl: X; news-held-out.jsonl: what is asked; spans.jsonl: what is masked in all of them,
    for `realm mask --set tagger=jsonl:FILE`; questions.jsonl, questions-held-out.jsonl; vocab.txt.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "vocab.txt").write_text("\n".join(world.vocabulary()) + "\n", encoding="utf-8")
    num_passages = 0
    with ExitStack() as stack:
        spans = stack.enter_context((out / "spans.jsonl").open("w", encoding="utf-8"))
        for held_out, suffix in ((False, ""), (True, "-held-out")):
            questions = stack.enter_context(_open(out, f"questions{suffix}"))
            questions.writelines(_line(q) for q in world.questions(held_out=held_out))
            for name, articles in (
                ("encyclopedia", world.encyclopedia(held_out=held_out)),
                ("news", world.news(held_out=held_out)),
            ):
                file = stack.enter_context(_open(out, f"{name}{suffix}"))
                for told in articles:
                    num_passages += not (held_out and name == "news")
                    file.write(_line({"id": told.id, "title": told.title, "text": told.text}))
                    spans.write(_line({"id": f"{told.id}#0", "spans": told.spans}))
    return num_passages


def _random(*key: object) -> random.Random:
    """Return random numbers that follow from the key alone."""
    return random.Random(" ".join(map(str, key)))  # noqa: S311


def _words(count: int, draw: random.Random) -> list[str]:
    """Return distinct invented words, each of as many syllables as so many words need."""
    length = 2
    while len(SYLLABLES) ** length < 2 * count:
        length += 1
    words: list[str] = []
    for number in draw.sample(range(len(SYLLABLES) ** length), count):
        word = ""
        for _ in range(length):
            number, syllable = divmod(number, len(SYLLABLES))
            word += SYLLABLES[syllable]
        words.append(word.capitalize())
    return words


def _scene(draw: random.Random) -> str:
    return f"{draw.choice(ADJECTIVES)} {draw.choice(NOUNS)}"


def _open(folder: Path, name: str) -> TextIO:
    return (folder / f"{name}.jsonl").open("w", encoding="utf-8")


def _line(value: Mapping[str, object]) -> str:
    return json.dumps(value) + "\n"


def main() -> None:
    """Write a world."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--passages", type=int, default=2_000, help="passages in Z, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    told = parser.parse_args()
    if told.passages < 1:
        parser.error(f"found --passages {told.passages}, expected 1 or more")
    world = World(num_passages=told.passages, seed=told.seed)
    count = write(world, told.out)
    sys.stdout.write(f"{told.out}: {count:,} passages about {world.num_entities:,} entities\n")


if __name__ == "__main__":
    main()
