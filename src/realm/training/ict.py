"""Inverse Cloze Task: which passage did this sentence come from? (section 3.4, ORQA section 5.1).

The embedder's warm start. A pseudo-query is one sentence of a passage; in 90 % of the cases it is
removed from the passage, so that words in common are not enough. The negatives are the other
passages of the batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from realm.checkpoint.checkpoints import Model, load_model
from realm.checkpoint.pretrained import load_pretrained
from realm.checkpoint.run_folder import TrainReport, open_run, resume_point
from realm.config import IctConfig
from realm.corpus.store import PassageStore
from realm.errors import CorpusError
from realm.index.builder import autocast_to
from realm.model.embedder import Embedder, Towers, embed_in_groups
from realm.model.inputs import TokenSequence, group_by_length, pad
from realm.model.likelihood import inverse_cloze_loss
from realm.storage import Request
from realm.training.corpus_groups import split_rows
from realm.training.loop import OnMetrics, train
from realm.training.sampling import batch_at, sample, step_rng

NUM_EVAL_PASSAGES = 512
NUM_PCA_PASSAGES = 2_048


def ict(
    store: PassageStore,
    out: Path,
    *,
    config: IctConfig,
    rebuild: bool = False,
    on_metrics: OnMetrics | None = None,
    tensorboard: bool = False,
) -> TrainReport:
    """Warm-start an embedder on a passage store; the run's checkpoints hold the towers.

    Raises:
        CorpusError: fewer than two passages with two sentences to learn from.
        ConfigError: the encoder cannot be loaded, or has another vocabulary.
        ArtifactError: `out` holds another run.
    """
    pretrained = load_pretrained(config.encoder, tokenizer=store.tokenizer)
    request = Request(
        kind="run",
        settings={"stage": "ict", **config.identity()},
        inputs={"passages": store.fingerprint, "encoder": pretrained.fingerprint},
    )
    with open_run(out, request, rebuild=rebuild) as report:
        if report is not None:
            return report
        if (checkpoint := resume_point(out)) is not None:
            towers = load_model(checkpoint).need_towers()
        else:
            towers = start_towers(store, config)
        job = IctJob(store, towers, config)
        return train(
            job, out, request, config=config, on_metrics=on_metrics, tensorboard=tensorboard
        )


def start_towers(store: PassageStore, config: IctConfig) -> Towers:
    """Return the towers as they stand before step 1.

    Raises:
        ConfigError: the encoder cannot be loaded, or has another vocabulary.
    """
    pretrained = load_pretrained(config.encoder, tokenizer=store.tokenizer)
    torch.manual_seed(config.seed)
    towers = Towers(_new_tower(pretrained.build(), config))
    _init_projection(towers.query, store, config)
    towers.query.init_score_scale(config.initial_score_scale)
    return towers if config.share_towers else towers.untied()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A pseudo-query and the passage it stands in."""

    row: int
    query: TokenSequence
    passage: TokenSequence
    was_removed: bool
    """Whether the sentence was taken out of the passage."""


class IctJob:
    """One step: a batch of (pseudo-query, passage) pairs, softmax over the batch."""

    def __init__(self, store: PassageStore, towers: Towers, config: IctConfig) -> None:
        self.store = store
        self.towers = towers
        self.config = config
        self.train_rows, held = split_rows(store, config.held_out)
        several = [row for row in self.train_rows if store.num_sentences(row) > 1]
        if len(several) < 2:
            raise CorpusError(
                f"{store.folder} has {len(several)} passages of two or more sentences to train "
                "on; the Inverse Cloze Task needs at least 2 (negatives come from the batch). Add "
                "articles, or split them again with a larger max_wordpieces"
            )
        held = [row for row in held if store.num_sentences(row) > 1]
        self.eval_rows = sample(held, NUM_EVAL_PASSAGES, config.seed)

    @property
    def model(self) -> Model:
        """The towers."""
        return Model(tokenizer=self.store.tokenizer, towers=self.towers)

    def trained(self) -> Mapping[str, tuple[nn.Module, float]]:
        """Return the towers."""
        return {"embedder": (self.towers, 1.0)}

    def before_step(self, step: int) -> Mapping[str, float]:  # noqa: ARG002
        """Return nothing: no index here."""
        return {}

    def step(self, step: int) -> Mapping[str, float]:
        """Run one batch of pairs."""
        pairs = self.pairs(step)
        if not pairs:
            return {"loss": 0.0, "tokens": 0.0}
        scores = self._scores(pairs)
        own = torch.arange(len(pairs))
        loss = inverse_cloze_loss(scores, own)
        loss.backward()
        right = (scores.argmax(dim=-1) == own).float()
        removed = torch.tensor([pair.was_removed for pair in pairs])
        return {
            "loss": float(loss.detach()),
            "accuracy": float(right.mean()),
            **({"accuracy_removed": float(right[removed].mean())} if removed.any() else {}),
            "tokens": float(sum(len(p.query[0]) + len(p.passage[0]) for p in pairs)),
        }

    def pairs(self, step: int) -> list[Pair]:
        """Return what one step learns from: at most one pair of each passage of the batch."""
        rows = batch_at(
            step,
            num_items=len(self.train_rows),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
        )
        rng = step_rng(self.config.seed, step)
        drawn = [self._draw(self.train_rows[row], rng) for row in rows]
        return [pair for pair in drawn if pair is not None]

    def evaluate(self, step: int) -> Mapping[str, float]:  # noqa: ARG002
        """Return recall of a held-out sentence's own passage, the sentence removed from it."""
        if len(self.eval_rows) < 2:
            return {}
        rng = step_rng(self.config.seed, 0)
        pairs = [self._draw(row, rng, remove=True) for row in self.eval_rows]
        kept = [pair for pair in pairs if pair is not None]
        with torch.inference_mode():
            scores = self._scores(kept)
        own = scores.diagonal()[:, None]
        rank = (scores > own).sum(dim=-1)
        return {
            "eval/recall_at_1": float((rank < 1).float().mean()),
            "eval/recall_at_5": float((rank < 5).float().mean()),
            "eval/num_passages": float(len(kept)),
        }

    def state(self) -> Mapping[str, Any]:
        """Return nothing: all follows from the step."""
        return {}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Nothing to put back."""

    def _draw(
        self, row: int, rng: np.random.Generator, *, remove: bool | None = None
    ) -> Pair | None:
        """Return a sentence and its passage; None if it is the only one and was to be removed."""
        passage, tokenizer = self.store[row], self.store.tokenizer
        number = int(rng.integers(len(passage.sentences)))
        draws_removal = bool(rng.random() < self.config.remove_rate)
        removed = draws_removal if remove is None else remove
        if removed and len(passage.sentences) < 2:
            return None
        start, end = passage.sentences[number]
        body = self.store.wordpieces(row).tolist()
        if removed:
            rest = f"{passage.text[:start].rstrip()} {passage.text[end:].lstrip()}"
            body = tokenizer.encode(rest).ids
        title = self.store.title_wordpieces(row).tolist()
        query = tokenizer.encode(passage.text[start:end]).ids
        return Pair(
            row=row,
            query=tokenizer.query_input(query, self.config.query_wordpieces),
            passage=tokenizer.passage_input(title, body, self.config.passage_wordpieces),
            was_removed=removed,
        )

    def _scores(self, pairs: Sequence[Pair]) -> Tensor:
        pad_id, budget = self.store.tokenizer.pad_id, self.config.batch_tokens
        queries, passages = [pair.query for pair in pairs], [pair.passage for pair in pairs]
        with autocast_to(self.config.autocast, torch.device("cpu")):
            left = embed_in_groups(self.towers.query, queries, pad_id=pad_id, batch_tokens=budget)
            right = embed_in_groups(
                self.towers.passage, passages, pad_id=pad_id, batch_tokens=budget
            )
        return left @ right.T


def _new_tower(bert: Any, config: IctConfig) -> Embedder:  # noqa: ANN401
    return Embedder(bert, projection_size=config.projection_size, pooling=config.pooling)


def _init_projection(tower: Embedder, store: PassageStore, config: IctConfig) -> None:
    """Start the projection from the principal components of a sample of the passages."""
    if config.projection_init == "random" or len(store) < 2:
        return
    rows = sample(range(len(store)), NUM_PCA_PASSAGES, config.seed)
    sequences = [
        store.tokenizer.passage_input(
            store.title_wordpieces(row).tolist(),
            store.wordpieces(row).tolist(),
            min(128, config.passage_wordpieces),
        )
        for row in rows
    ]
    tower.eval()
    parts: list[Tensor] = []
    with torch.inference_mode(), autocast_to(config.autocast, torch.device("cpu")):
        for group in group_by_length([len(ids) for ids, _ in sequences], config.batch_tokens):
            inputs = pad([sequences[i] for i in group], store.tokenizer.pad_id)
            parts.append(tower.features(inputs).float())
    tower.init_projection(torch.cat(parts).clone())
