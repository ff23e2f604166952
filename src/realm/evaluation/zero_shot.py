"""A sentence encoder as it comes (all-MiniLM) as a retriever: the zero-shot baseline."""

from pathlib import Path

from realm.checkpoint.pretrained import load_pretrained
from realm.config import EncoderConfig, IndexConfig
from realm.corpus.store import PassageStore
from realm.device import AUTO, choose_device
from realm.index.builder import EmbedderVersion, build_index
from realm.model.embedder import MeanEmbedder
from realm.records import Progress
from realm.retrieval.dense import DenseRetriever


def open_zero_shot(
    store: PassageStore,
    *,
    cache: Path,
    encoder: EncoderConfig | None = None,
    device: str = AUTO,
    progress: Progress | None = None,
) -> DenseRetriever:
    """Return a retriever over mean-pooled, unit-length vectors; they are built once in `cache`.

    Its cosines are on another scale than the reader's logits, so that the reader decides alone.

    Raises:
        ConfigError: the encoder cannot be loaded, or has another vocabulary.
    """
    pretrained = load_pretrained(encoder or EncoderConfig(), tokenizer=store.tokenizer)
    tower = MeanEmbedder(pretrained.build()).eval().to(choose_device(device))
    snapshot = build_index(
        tower,
        store,
        cache / f"{store.fingerprint[:8]}-{pretrained.fingerprint[:8]}",
        version=EmbedderVersion(model_hash=pretrained.fingerprint),
        config=IndexConfig(),
        progress=progress,
    )
    return DenseRetriever(
        tower,
        snapshot,
        store.tokenizer,
        question_wordpieces=64,
        name="minilm",
        score_weight=0.0,
    )
