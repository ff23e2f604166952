"""Documents -> passages -> vectors, as a model wants them: what a segment is written from."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from realm.checkpoint.parts import tower_hash
from realm.config import IndexConfig
from realm.corpus.documents import articles_of, title_of
from realm.corpus.passages import NUM_SEPARATORS, CutPassage, split_articles
from realm.corpus.reading import TOO_SHORT, Place
from realm.corpus.shards import schema, to_batch
from realm.fine_tuned import FineTuned
from realm.index.builder import embed_sequences
from realm.keeping import cutting_of
from realm.library.postings import Postings
from realm.library.segment import SegmentContent, document_rows
from realm.model.inputs import TokenSequence
from realm.records import Document, DocumentInfo, Skipped

KnownVector = Callable[[bytes], Float[Tensor, " dim"] | None]
"""Hash of a passage's title and text -> its vector, where the library has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutDocument:
    """A document with its passages."""

    document: Document
    info: DocumentInfo
    passages: list[CutPassage]
    lines: list[int]
    """The line of the document that each passage begins in."""


class Indexer:
    """Cuts and embeds documents for one model."""

    def __init__(self, tuned: FineTuned) -> None:
        self.model_name = tuned.name
        self.tokenizer = tuned.model.tokenizer
        self.tower = tuned.model.need_towers().passage.eval()
        self.split = cutting_of(tuned.checkpoint)
        self.config = IndexConfig(passage_wordpieces=self.split.max_wordpieces)
        told = {
            "embedder": tower_hash(self.tower),
            "tokenizer": self.tokenizer.fingerprint,
            "dim": self.tower.dim,
            "split": self.split.as_dict(),
            "passage_wordpieces": self.config.passage_wordpieces,
            "autocast": self.config.autocast,
        }
        self.made_with: dict[str, Any] = json.loads(json.dumps(told))
        """What decides passages and vectors, as a library's head has it."""

    def cut(self, documents: Sequence[Document], skipped: Skipped) -> list[CutDocument]:
        """Return documents with their passages; one without text has none.

        Args:
            documents: of different ids, which `check_document` let pass, or an older release.
            skipped: counts what is left out, by reason, with its place.
        """
        articles = [list(articles_of(document, skipped)) for document in documents]
        flat = [article for found in articles for article, _ in found]
        cut = iter(split_articles(flat, self.tokenizer, self.split))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        made: list[CutDocument] = []
        for document, found in zip(documents, articles, strict=True):
            passages: list[CutPassage] = []
            lines: list[int] = []
            for article, line in found:
                pieces = next(cut)
                passages += pieces.passages
                ends = _line_ends(article.text) if document.format != "jsonl" else None
                for one in pieces.passages:
                    before = 0 if ends is None else np.searchsorted(ends, one.passage.start)
                    lines.append(line + int(before))
                for _ in range(pieces.num_too_short):
                    skipped.add(TOO_SHORT, str(Place(document.id, line)))
            info = DocumentInfo(
                id=document.id,
                title=title_of(document),
                format=document.format,
                num_characters=len(document.text),
                num_passages=len(passages),
                sha256=text_hash(document.text),
                added_at=now,
            )
            made.append(CutDocument(document=document, info=info, passages=passages, lines=lines))
        return made

    def content(
        self,
        documents: Sequence[CutDocument],
        known: KnownVector,
        on_group: Callable[[int], None] | None = None,
    ) -> tuple[SegmentContent, int]:
        """Return what a segment is written from, and how many passages had to be embedded.

        Args:
            documents: of `cut`.
            known: returns vectors that need not be computed.
            on_group: called with the number of passages that have just got their vectors.
        """
        passages = [one for cut in documents for one in cut.passages]
        exact, num_embedded = self._embed(passages, known, on_group)
        content = SegmentContent(
            documents=document_rows(
                [cut.document for cut in documents], [cut.info for cut in documents]
            ),
            passages=to_batch(passages, schema(self.tokenizer.vocab_size)),
            lines=np.array([line for cut in documents for line in cut.lines], dtype=np.int64),
            exact=exact,
            postings=Postings.of([f"{one.passage.title}\n{one.passage.text}" for one in passages]),
        )
        return content, num_embedded

    def _embed(
        self,
        passages: Sequence[CutPassage],
        known: KnownVector,
        on_group: Callable[[int], None] | None,
    ) -> tuple[Float[Tensor, "passages dim"], int]:
        exact = torch.empty((len(passages), self.tower.dim))
        places: dict[bytes, list[int]] = {}
        for place, one in enumerate(passages):
            places.setdefault(bytes.fromhex(one.passage.sha256), []).append(place)
        missing: list[list[int]] = []
        for key, same in places.items():
            vector = known(key)
            if vector is None:
                missing.append(same)
            else:
                exact[same] = vector
        if on_group:
            on_group(len(passages) - sum(map(len, missing)))
        for group, vectors in self._vectors([passages[same[0]] for same in missing]):
            for number, vector in zip(group, vectors, strict=True):
                exact[missing[number]] = vector
            if on_group:
                on_group(sum(len(missing[number]) for number in group))
        return exact, len(missing)

    def _vectors(
        self, passages: Sequence[CutPassage]
    ) -> Iterator[tuple[list[int], Float[Tensor, "rows dim"]]]:
        """Yield (numbers, vectors) of groups of passages of like length."""
        longest = min(self.config.passage_wordpieces, self.tower.max_length)

        def sequence(number: int) -> TokenSequence:
            one = passages[number]
            return self.tokenizer.passage_input(one.title_wordpieces, one.wordpieces, longest)

        lengths = [
            min(longest, NUM_SEPARATORS + len(one.title_wordpieces) + len(one.wordpieces))
            for one in passages
        ]
        if not lengths:
            return
        yield from embed_sequences(
            self.tower,
            lengths,
            sequence,
            pad_id=self.tokenizer.pad_id,
            batch_tokens=self.config.batch_tokens,
            autocast=self.config.autocast,
        )


def text_hash(text: str) -> str:
    """Return the hash of a document's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _line_ends(text: str) -> Any:  # noqa: ANN401 - a numpy array
    letters = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return np.flatnonzero(letters == ord("\n"))
