"""A pre-trained run opened to fill blanks: the forward pass that is explained and aligned with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor

from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.parts import Model
from realm.checkpoint.sources import check_vocabulary, passages_of, run_of
from realm.config import PretrainConfig
from realm.corpus.store import Passages, PassageStore
from realm.device import AUTO, autocast_to, choose_device, device_of
from realm.errors import ConfigError
from realm.index.opening import open_snapshot
from realm.index.snapshot import Snapshot
from realm.model.embedder import embed_in_groups
from realm.model.realm import (
    Budget,
    CandidateBatch,
    MaskLogits,
    gold_log_probs,
    mask_logits,
    predict_masks,
    score_candidates,
)
from realm.readable import counted
from realm.records import MaskedExample, Progress
from realm.retrieval.batch import Lengths, candidate_batch
from realm.storage import MANIFEST, read_json

BATCH_TOKENS = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Masked examples read with their candidates."""

    batch: CandidateBatch
    scores: Float[Tensor, "batch candidates"]
    """f(x, z), afresh; -inf for missing candidates."""
    masks: MaskLogits
    """What the encoder makes of every [MASK] of every candidate."""

    def log_probs(self) -> Float[Tensor, "batch candidates masks"]:
        """Return log p(y_j | z, x) of the batch's targets; 0 where masks are padding."""
        return gold_log_probs(self.batch, self.masks)

    def predicted(self, weights: Float[Tensor, "batch candidates"]) -> Int[Tensor, "batch masks"]:
        """Return the most probable wordpiece of each mask under these weights of candidates."""
        return predict_masks(self.batch, weights, self.masks)


class Predictor:
    """Towers, encoder, passages and their snapshot, in evaluation mode."""

    def __init__(
        self,
        model: Model,
        store: Passages,
        snapshot: Snapshot,
        *,
        lengths: Lengths | None = None,
        overlap_limit: float | None = None,
        fingerprint: str = "",
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        snapshot.check_passages(store.fingerprint)
        check_vocabulary(model, store)
        self.model = model
        self.store = store
        self.snapshot = snapshot
        self.towers = model.need_towers().eval()
        self.encoder = model.need_encoder().eval()
        defaults = PretrainConfig()
        self.lengths = lengths or Lengths(
            query=defaults.query_wordpieces,
            passage=defaults.passage_wordpieces,
            joint=defaults.joint_wordpieces,
        )
        self.overlap_limit = defaults.overlap_limit if overlap_limit is None else overlap_limit
        """Share of a sentence's trigrams from which on a passage counts as its own."""
        self.fingerprint = fingerprint
        """Of the checkpoint."""
        self.batch_tokens = batch_tokens

    @classmethod
    def load(
        cls,
        run: Path,
        *,
        passages: Path | None = None,
        batch_tokens: int = BATCH_TOKENS,
        device: str = AUTO,
        progress: Progress | None = None,
    ) -> "Predictor":
        """Open a run of `realm pretrain`.

        Args:
            run: the run, or one of its checkpoints.
            passages: retrieve from these instead of the run's own; they are embedded on first
                use and kept beside the run.
            batch_tokens: wordpieces, padding included, in one forward pass.
            device: where the model runs: auto, cpu, cuda, cuda:NUMBER.
            progress: called while passages are embedded.

        Raises:
            ArtifactError: a folder is missing or damaged.
            ConfigError: the run has no encoder or no embedder, or another vocabulary than the
                passages.
        """
        checkpoint = find_checkpoint(run)
        model = load_model(checkpoint).to(choose_device(device))
        model.need_encoder()
        model.need_towers()
        run = run_of(run)
        store = PassageStore.open(passages or passages_of(run))
        manifest = read_json(checkpoint / MANIFEST)
        settings: dict[str, Any] = manifest["settings"]
        return cls(
            model,
            store,
            open_snapshot(run, model, store, progress=progress),
            lengths=Lengths(
                query=int(settings["query_wordpieces"]),
                passage=int(settings["passage_wordpieces"]),
                joint=int(settings["joint_wordpieces"]),
            ),
            overlap_limit=settings.get("overlap_limit"),
            fingerprint=str(manifest["fingerprint"]),
            batch_tokens=batch_tokens,
        )

    @property
    def budget(self) -> Budget:
        """How sequences are padded."""
        return Budget(pad_id=self.store.tokenizer.pad_id, batch_tokens=self.batch_tokens)

    def check_candidates(self, num_candidates: int) -> None:
        """Refuse more candidates than there are passages, and fewer than one beside null.

        Raises:
            ConfigError: it is so.
        """
        if not 2 <= num_candidates <= len(self.store) + 1:
            raise ConfigError(
                f"num_candidates={num_candidates}; expected 2 to {len(self.store) + 1} (the null "
                f"passage and the {counted(len(self.store), 'passage')} of {self.store.folder}); "
                "set it with --candidates"
            )

    def query_vectors(self, examples: Sequence[MaskedExample]) -> Float[Tensor, "batch dim"]:
        """Return Embed_input of masked sentences."""
        tokenizer = self.store.tokenizer
        return embed_in_groups(
            self.towers.query,
            [tokenizer.query_input(e.query_ids, self.lengths.query) for e in examples],
            pad_id=tokenizer.pad_id,
            batch_tokens=self.batch_tokens,
        ).float()

    def read(
        self,
        examples: Sequence[MaskedExample],
        rows: Sequence[Sequence[int]],
        *,
        autocast: Literal["bfloat16", "none"] = "none",
    ) -> Reading:
        """Return fresh scores of the candidates and what they say of the masked wordpieces.

        Args:
            examples: masked sentences with their gold wordpieces.
            rows: candidates of each, as many for each; the null passage first.
            autocast: bfloat16: matrix products in 16 bits, as joint training measures.
        """
        batch = candidate_batch(self.store, examples, rows, self.lengths)
        with autocast_to(autocast, device_of(self.encoder)):
            scores = score_candidates(self.towers, batch, self.budget)
            masks = mask_logits(self.encoder, batch, self.budget)
        return Reading(batch=batch, scores=scores, masks=masks)
