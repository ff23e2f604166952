"""Unsupervised corpus alignment: for each sentence of X the passages of Z that explain it.

A passage explains a sentence when it makes the sentence's own masked words more probable than no
passage does: retrieval utility (Eq. 2), of which nobody gave a label.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from realm.errors import ConfigError
from realm.masking.store import ExampleStore
from realm.model.likelihood import retrieval_utility, span_log_probs
from realm.predicting import Predictor
from realm.records import MaskedExample, Progress
from realm.retrieval.candidates import MISSING_ROW, NULL_ROW, CandidateFinder
from realm.storage import Request, lines_done, writing_lines

KIND = "alignment"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedSpan:
    """One masked span of a sentence."""

    start: int
    """First character in the sentence (-1: the examples were masked at random)."""
    end: int
    text: str
    label: str
    log_p_null: float
    """log p(y | null, x) in nats: how well the span is guessed without a passage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedPassage:
    """A passage with positive retrieval utility for a sentence."""

    id: str
    title: str
    row: int
    utility: float
    """Sum over the sentence's spans of log p(y|z,x) - log p(y|null,x), in nats (Eq. 2)."""
    utilities: tuple[float, ...]
    """The same for each span."""
    probability: float
    """p(z|x) over the candidates, mean over the spans."""
    score: float
    """f(x, z), mean over the spans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedSentence:
    """One line of an alignment."""

    id: str
    """`<article id>@<row of its passage in X>.<row of its first example>`."""
    article_id: str
    origin: int
    """Row of its passage in X."""
    examples: tuple[int, ...]
    """Rows of its examples, one for each span."""
    text: str
    spans: tuple[AlignedSpan, ...]
    num_read: int
    """Passages that were read with it."""
    nearest: str
    """Id of the one that the retriever puts first, by f(x, z), whether it helps or not; empty: none
    was found."""
    passages: tuple[AlignedPassage, ...]
    """Those that help, the most useful first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignReport:
    """What an alignment holds."""

    num_sentences: int
    num_aligned: int
    """Sentences with at least one passage that helps."""
    num_pairs: int
    already_done: bool


class Aligner:
    """Finds, for masked sentences, the passages that make their masked words more probable."""

    def __init__(
        self,
        predictor: Predictor,
        *,
        num_candidates: int = 8,
        autocast: Literal["bfloat16", "none"] = "bfloat16",
    ) -> None:
        predictor.check_candidates(num_candidates)
        self.predictor = predictor
        self.num_candidates = num_candidates
        self.autocast: Literal["bfloat16", "none"] = autocast
        self.finder = CandidateFinder(
            predictor.store,
            num_candidates=num_candidates,
            overlap_limit=predictor.overlap_limit,
        )

    @torch.inference_mode()
    def align(self, sentences: Sequence[Sequence[MaskedExample]]) -> list[AlignedSentence]:
        """Return what explains each sentence.

        Each span of a sentence is one example, a query of its own. The passages that any of them
        retrieves are read with all of them, so that their utilities can be summed. A sentence's
        own passage is never among them, as in training.

        Args:
            sentences: the examples of each sentence, at least one.
        """
        examples = [example for spans in sentences for example in spans]
        found, _ = self.finder.find(
            self.predictor.snapshot, self.predictor.query_vectors(examples), examples
        )
        rows: list[list[int]] = []
        for spans in sentences:
            retrieved = found[len(rows) : len(rows) + len(spans)]
            rows += [_together(retrieved)] * len(spans)
        longest = max(len(chosen) for chosen in rows)
        padded = [chosen + [MISSING_ROW] * (longest - len(chosen)) for chosen in rows]
        reading = self.predictor.read(examples, padded, autocast=self.autocast)
        log_probs = reading.log_probs()
        values = (
            span_log_probs(log_probs, reading.batch.mask_is_real)[:, 0].numpy(),
            retrieval_utility(log_probs, reading.batch.mask_is_real).numpy(),
            reading.scores.softmax(dim=-1).numpy(),
            reading.scores.numpy(),
        )
        aligned: list[AlignedSentence] = []
        first = 0
        for spans in sentences:
            part = slice(first, first + len(spans))
            aligned.append(self._aligned(spans, rows[first], *(value[part] for value in values)))
            first += len(spans)
        return aligned

    def _aligned(
        self,
        spans: Sequence[MaskedExample],
        rows: Sequence[int],
        log_p_null: Float[np.ndarray, " spans"],
        utility: Float[np.ndarray, "spans candidates"],
        probability: Float[np.ndarray, "spans candidates"],
        score: Float[np.ndarray, "spans candidates"],
    ) -> AlignedSentence:
        store, example = self.predictor.store, spans[0]
        total = utility.sum(axis=0)
        best = sorted(range(1, len(rows)), key=lambda place: (-total[place], rows[place]))
        return AlignedSentence(
            id=f"{example.article_id}@{example.origin}.{example.row}",
            article_id=example.article_id,
            origin=example.origin,
            examples=tuple(span.row for span in spans),
            text=example.sentence,
            spans=tuple(
                self._span(span, float(log_p))
                for span, log_p in zip(spans, log_p_null, strict=True)
            ),
            num_read=len(rows) - 1,
            nearest=self._nearest(rows, score.mean(axis=0)),
            passages=tuple(
                AlignedPassage(
                    id=store[rows[place]].id,
                    title=store.title(rows[place]),
                    row=rows[place],
                    utility=float(total[place]),
                    utilities=tuple(utility[:, place].tolist()),
                    probability=float(probability[:, place].mean()),
                    score=float(score[:, place].mean()),
                )
                for place in best
                if total[place] > 0
            ),
        )

    def _nearest(self, rows: Sequence[int], scores: Float[np.ndarray, " candidates"]) -> str:
        """Return the id of the passage that is retrieved first; empty: there is none."""
        if len(rows) == 1:
            return ""
        return self.predictor.store[rows[1 + int(scores[1 : len(rows)].argmax())]].id

    def _span(self, example: MaskedExample, log_p_null: float) -> AlignedSpan:
        start, end = example.span_start, example.span_end
        return AlignedSpan(
            start=start,
            end=end,
            text=example.sentence[start:end]
            if start >= 0
            else self.predictor.store.tokenizer.decode(list(example.target_ids)),
            label=example.label,
            log_p_null=log_p_null,
        )


def align(
    examples: ExampleStore,
    out: Path,
    aligner: Aligner,
    *,
    limit: int | None = None,
    seed: int = 0,
    batch_sentences: int = 8,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> AlignReport:
    """Write, for each masked sentence, the passages that explain it; return what was found.

    One JSON line a sentence, in the order of X, also for sentences that nothing explains. A killed
    call goes on after the last whole batch.

    Args:
        examples: masked sentences of X, cut with the tokenizer of the passages.
        out: file to write; its manifest stands beside it.
        aligner: what finds passages.
        limit: so many sentences, drawn at random; None: all.
        seed: decides which.
        batch_sentences: sentences read together.
        rebuild: replace a file that was made from something else.
        progress: called with (sentences done, sentences).

    Raises:
        ConfigError: another tokenizer, queries longer than the run reads, or an impossible number.
        ArtifactError: `out` holds something else.
    """
    predictor = aligner.predictor
    _check(examples, predictor, limit, batch_sentences)
    request = Request(
        kind=KIND,
        settings={
            "num_candidates": aligner.num_candidates,
            "overlap_limit": predictor.overlap_limit,
            "autocast": aligner.autocast,
            "limit": limit,
            "seed": seed,
        },
        inputs={
            "examples": examples.fingerprint,
            "passages": predictor.store.fingerprint,
            "model": predictor.fingerprint,
        },
    )
    if (content := lines_done(out, request, rebuild=rebuild)) is not None:
        return AlignReport(**content, already_done=True)
    chosen = _draw(examples.sentences(), limit, seed)
    with writing_lines(out, request, in_groups_of=batch_sentences) as writer:
        for first in range(writer.num_lines, len(chosen), batch_sentences):
            rows = chosen[first : first + batch_sentences]
            aligned = aligner.align([[examples[row] for row in spans] for spans in rows])
            writer.write([asdict(sentence) for sentence in aligned])
            if progress is not None:
                progress(writer.num_lines, len(chosen))
        counts = [len(line["passages"]) for line in writer.lines()]
        writer.content = {
            "num_sentences": len(counts),
            "num_aligned": sum(count > 0 for count in counts),
            "num_pairs": sum(counts),
        }
    return AlignReport(**writer.content, already_done=False)


def _together(retrieved: Sequence[Sequence[int]]) -> list[int]:
    """Return the null passage, then each passage that any span retrieved, once, best first."""
    by_rank: Iterator[int] = (row for rank in zip(*retrieved, strict=True) for row in rank)
    return [NULL_ROW, *dict.fromkeys(row for row in by_rank if row >= 0)]


def _draw(sentences: list[list[int]], limit: int | None, seed: int) -> list[list[int]]:
    if limit is None or limit >= len(sentences):
        return sentences
    drawn = np.random.default_rng(seed).choice(len(sentences), size=limit, replace=False)
    return [sentences[number] for number in sorted(drawn.tolist())]


def _check(
    examples: ExampleStore, predictor: Predictor, limit: int | None, batch_sentences: int
) -> None:
    for name, value in (("limit", limit), ("batch_sentences", batch_sentences)):
        if value is not None and value < 1:
            raise ConfigError(f"found {name}={value}, expected at least 1")
    examples.check_tokenizer(predictor.store.tokenizer, predictor.store.folder)
    longest = int(examples.manifest["settings"]["query_wordpieces"])
    if longest > predictor.lengths.query:
        raise ConfigError(
            f"{examples.folder} has queries of up to {longest} wordpieces, the run reads "
            f"{predictor.lengths.query}, which would cut masks off; run `realm mask` with "
            f"--set query_wordpieces={predictor.lengths.query}"
        )
