"""Inverse Cloze Task: which passage did this sentence come from? (section 3.4, ORQA section 5.1).

The embedder's warm start. A pseudo-query is one sentence of a passage; in 90 % of the cases it is
removed from the passage, so that words in common are not enough. The negatives are the other
passages of the batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from realm.checkpoint.checkpoints import load_model
from realm.checkpoint.parts import Model
from realm.checkpoint.pretrained import load_pretrained
from realm.checkpoint.run_folder import TrainReport, open_run, resume_point
from realm.config import IctConfig
from realm.corpus.store import PassageStore
from realm.device import autocast_to, choose_device, device_of
from realm.errors import CorpusError
from realm.model.embedder import Embedder, Towers, embed_in_groups
from realm.model.inputs import TokenSequence, group_by_length, pad
from realm.model.likelihood import inverse_cloze_loss
from realm.ranks import ALONE, Ranks
from realm.readable import counted
from realm.storage import Request
from realm.training.corpus_groups import split_rows
from realm.training.lengths import check_lengths
from realm.training.loop import OnMetrics, check_ranks, train
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
    tell: Callable[[str], None] = lambda _: None,
    ranks: Ranks = ALONE,
) -> TrainReport:
    """Warm-start an embedder on a passage store; the run's checkpoints hold the towers.

    Args:
        store: the passages.
        out: run folder.
        config: settings.
        rebuild: replace a run made from other inputs.
        on_metrics: called at logged steps.
        tensorboard: also write TensorBoard events.
        tell: called with a sentence where a run goes on with other `batch_tokens`.
        ranks: the processes that train together.

    Returns:
        Steps, seconds and the last values measured.

    Raises:
        CorpusError: fewer than two passages with two sentences to learn from.
        ConfigError: the encoder cannot be loaded, has another vocabulary, or reads less than the
            longest inputs; or the ranks cannot share a batch.
        ArtifactError: `out` holds another run.
        RankError: another rank died, or does not answer.
    """
    check_ranks(config, ranks)
    pretrained = load_pretrained(config.encoder, tokenizer=store.tokenizer)
    request = Request(
        kind="run",
        settings={"stage": "ict", **config.identity()},
        inputs={"passages": store.fingerprint, "encoder": pretrained.fingerprint},
    )
    with open_run(out, request, rebuild=rebuild, tell=tell, ranks=ranks) as report:
        if report is not None:
            return report
        if (checkpoint := resume_point(out, ranks)) is not None:
            towers = load_model(checkpoint).need_towers()
        else:
            towers = start_towers(store, config)
        job = IctJob(store, towers, config, ranks)
        return train(
            job,
            out,
            request,
            config=config,
            on_metrics=on_metrics,
            tensorboard=tensorboard,
            ranks=ranks,
        )


def start_towers(store: PassageStore, config: IctConfig) -> Towers:
    """Return the towers as they stand before step 1.

    Raises:
        ConfigError: the encoder cannot be loaded, has another vocabulary, or reads less than the
            longest inputs.
    """
    pretrained = load_pretrained(config.encoder, tokenizer=store.tokenizer)
    torch.manual_seed(config.seed)
    towers = Towers(_new_tower(pretrained.build(), config)).to(choose_device(config.device))
    most = towers.query.max_length
    check_lengths(
        {
            "query_wordpieces": (config.query_wordpieces, most),
            "passage_wordpieces": (config.passage_wordpieces, most),
        }
    )
    _init_projection(towers.query, store, config)
    towers.query.init_score_scale(config.initial_score_scale)
    return towers if config.share_towers else towers.untied()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """A sentence of a passage, drawn but not cut yet."""

    row: int
    sentence: int
    removed: bool
    """Whether the sentence is to be taken out of the passage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A pseudo-query and the passage it stands in."""

    row: int
    query: TokenSequence
    passage: TokenSequence
    was_removed: bool
    """Whether the sentence was taken out of the passage."""


class IctJob:
    """One step: a batch of (pseudo-query, passage) pairs, softmax over the batch.

    Several ranks embed a part of the pairs each. The passages of all are gathered, so that each
    query has as many negatives as on one rank, and gradients go back to whoever embedded them.
    """

    def __init__(
        self, store: PassageStore, towers: Towers, config: IctConfig, ranks: Ranks = ALONE
    ) -> None:
        self.store = store
        self.towers = towers
        self.config = config
        self.ranks = ranks
        self.train_rows, held = split_rows(store, config.held_out)
        several = [row for row in self.train_rows if store.num_sentences(row) > 1]
        if len(several) < 2:
            raise CorpusError(
                f"{store.folder} has {counted(len(several), 'passage')} of two or more sentences "
                "to train on; the Inverse Cloze Task needs at least 2 (negatives come from the "
                "batch). Add articles, or split them again with a larger max_wordpieces"
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
        drawn = self._drawn(step)
        if not drawn:
            return {"loss": 0.0, "tokens": 0.0}
        pairs = [self._pair(draw) for draw in self.ranks.share(drawn)]
        own = torch.tensor(self.ranks.part(len(drawn)), dtype=torch.long)
        queries, passages = self._embed(pairs)
        scores = queries @ self.ranks.gather_with_gradient(passages).T
        # The mean over this rank's pairs; 0, with a gradient, where it has none.
        loss = inverse_cloze_loss(scores, own) if pairs else scores.sum()
        loss = loss * (len(pairs) / len(drawn))
        loss.backward()
        right = (scores.argmax(dim=-1) == own).tolist()
        measured = self.ranks.gather_values(
            {
                "loss": float(loss.detach()),
                "right": sum(right),
                "removed": sum(pair.was_removed for pair in pairs),
                "removed_right": sum(r for r, p in zip(right, pairs, strict=True) if p.was_removed),
                "tokens": sum(len(p.query[0]) + len(p.passage[0]) for p in pairs),
            }
        )
        total = {name: sum(part[name] for part in measured) for name in measured[0]}
        removed = total["removed"]
        return {
            "loss": total["loss"],
            "accuracy": total["right"] / len(drawn),
            **({"accuracy_removed": total["removed_right"] / removed} if removed else {}),
            "tokens": float(total["tokens"]),
        }

    def pairs(self, step: int) -> list[Pair]:
        """Return what one step learns from: at most one pair of each passage of the batch."""
        return [self._pair(draw) for draw in self._drawn(step)]

    def evaluate(self, step: int) -> Mapping[str, float]:  # noqa: ARG002
        """Return recall of a held-out sentence's own passage, the sentence removed from it."""
        if len(self.eval_rows) < 2:
            return {}
        rng = step_rng(self.config.seed, 0)
        drawn = [self._draw(row, rng, remove=True) for row in self.eval_rows]
        kept = [self._pair(draw) for draw in drawn if draw is not None]
        with torch.inference_mode():
            queries, passages = self._embed(kept)
            scores = queries @ passages.T
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

    def _drawn(self, step: int) -> list[Draw]:
        """Return the sentences of one step, of all ranks: a function of (seed, step)."""
        rows = batch_at(
            step,
            num_items=len(self.train_rows),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
        )
        rng = step_rng(self.config.seed, step)
        drawn = [self._draw(self.train_rows[row], rng) for row in rows]
        return [draw for draw in drawn if draw is not None]

    def _draw(
        self, row: int, rng: np.random.Generator, *, remove: bool | None = None
    ) -> Draw | None:
        """Return a sentence of a passage; None if it is the only one and was to be removed."""
        num_sentences = self.store.num_sentences(row)
        number = int(rng.integers(num_sentences))
        draws_removal = bool(rng.random() < self.config.remove_rate)
        removed = draws_removal if remove is None else remove
        if removed and num_sentences < 2:
            return None
        return Draw(row=row, sentence=number, removed=removed)

    def _pair(self, draw: Draw) -> Pair:
        passage, tokenizer = self.store[draw.row], self.store.tokenizer
        start, end = passage.sentences[draw.sentence]
        body = self.store.wordpieces(draw.row).tolist()
        if draw.removed:
            rest = f"{passage.text[:start].rstrip()} {passage.text[end:].lstrip()}"
            body = tokenizer.encode(rest).ids
        title = self.store.title_wordpieces(draw.row).tolist()
        query = tokenizer.encode(passage.text[start:end]).ids
        return Pair(
            row=draw.row,
            query=tokenizer.query_input(query, self.config.query_wordpieces),
            passage=tokenizer.passage_input(title, body, self.config.passage_wordpieces),
            was_removed=draw.removed,
        )

    def _embed(
        self, pairs: Sequence[Pair]
    ) -> tuple[Float[Tensor, "pairs dim"], Float[Tensor, "pairs dim"]]:
        """Return the embeddings of the pseudo-queries, and of their passages."""
        pad_id, budget = self.store.tokenizer.pad_id, self.config.batch_tokens
        queries, passages = [pair.query for pair in pairs], [pair.passage for pair in pairs]
        with autocast_to(self.config.autocast, device_of(self.towers)):
            return (
                embed_in_groups(self.towers.query, queries, pad_id=pad_id, batch_tokens=budget),
                embed_in_groups(self.towers.passage, passages, pad_id=pad_id, batch_tokens=budget),
            )


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
    device = device_of(tower)
    with torch.inference_mode(), autocast_to(config.autocast, device):
        for group in group_by_length([len(ids) for ids, _ in sequences], config.batch_tokens):
            inputs = pad([sequences[i] for i in group], store.tokenizer.pad_id).to(device)
            parts.append(tower.features(inputs).float())
    tower.init_projection(torch.cat(parts).clone())
