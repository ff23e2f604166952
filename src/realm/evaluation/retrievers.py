"""The choice of a retriever under one reader: the run's own, a baseline, or that of another run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from realm.answering import Answerer
from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.sources import check_vocabulary, run_of
from realm.classifying import ClaimClassifier
from realm.config import FinetuneConfig
from realm.corpus.store import PassageStore
from realm.device import AUTO, choose_device
from realm.errors import ConfigError
from realm.evaluation.zero_shot import open_zero_shot
from realm.index.opening import open_snapshot
from realm.records import Progress
from realm.retrieval.bm25 import Bm25Retriever, open_lexical
from realm.retrieval.dense import DenseRetriever, Retriever
from realm.retrieval.hybrid import HybridRetriever
from realm.storage import MANIFEST, read_json


@dataclass(frozen=True, slots=True, kw_only=True)
class _Under:
    """What a retriever is put under."""

    answerer: Answerer | ClaimClassifier
    run: Path
    """The answerer's; what a baseline builds is kept there."""
    device: str
    progress: Progress | None


def _own(under: _Under) -> Retriever:
    return under.answerer.retriever


def _dense(under: _Under) -> Retriever:
    return under.answerer.dense


def _hybrid(under: _Under) -> Retriever:
    if isinstance(under.answerer.retriever, HybridRetriever):
        return under.answerer.retriever  # with the weight that it was trained with
    weight = FinetuneConfig().lexical_weight
    return HybridRetriever(under.answerer.dense, _bm25(under), lexical_weight=weight)


def _bm25(under: _Under) -> Bm25Retriever:
    return open_lexical(under.run, under.answerer.store, progress=under.progress)


def _minilm(under: _Under) -> Retriever:
    return open_zero_shot(
        _stored(under),
        cache=under.run / "zero-shot",
        device=under.device,
        progress=under.progress,
    )


RETRIEVERS: Mapping[str, Callable[[_Under], Retriever]] = {
    "own": _own,
    "dense": _dense,
    "hybrid": _hybrid,
    "bm25": _bm25,
    "minilm": _minilm,
}
"""Each retriever that has a name of its own."""
CLOSED_BOOK = "closed-book"
"""No retriever: the encoder alone answers (`realm.evaluation.closed_book`)."""
INDEXED = frozenset({"own", "dense", "hybrid"})
"""Those that search the index of the answerer's own embedder; for others it is made in vain."""


def check_retriever(choice: str) -> None:
    """Refuse what is neither a name nor a folder, before anything is opened.

    Raises:
        ConfigError: it is so, or `closed-book`, which finds nothing for a reader.
    """
    if choice == CLOSED_BOOK:
        raise ConfigError(
            f"found retriever {CLOSED_BOOK!r}, which finds no passages; expected "
            f"{', '.join(RETRIEVERS)}, or the folder of a run with an embedder: without passages "
            "only `realm evaluate` measures, a run of `realm pretrain` or `realm mlm` on questions"
        )
    if choice not in RETRIEVERS and not Path(choice).is_dir():
        raise ConfigError(
            f"found no retriever {choice!r}; expected {', '.join(RETRIEVERS)}, closed-book, or the "
            "folder of a run with an embedder (realm ict, pretrain or finetune)"
        )


def needs_index(choice: str) -> bool:
    """Return whether a retriever searches the answerer's own index of the passages.

    Args:
        choice: see `use_retriever`.
    """
    return choice in INDEXED


def use_retriever(
    answerer: Answerer | ClaimClassifier,
    choice: str,
    *,
    run: Path,
    device: str = AUTO,
    progress: Progress | None = None,
) -> str:
    """Put a retriever under the answerer's reader; return its name, for the report.

    A run's scores are added to the reader's logits, as the reader learned it: whatever the run,
    they are log-probabilities of passages but for a constant. So is the sum that hybrid adds.
    Scores of bm25 and minilm alone are on another scale: the reader decides.

    Args:
        answerer: its `retriever` is replaced.
        choice: one of RETRIEVERS, or the folder of a run with an embedder (the ICT baseline);
            `./bm25` is a folder.
        run: the answerer's own, where the indexes of bm25 and minilm are kept. Another run keeps
            its own vectors of the passages.
        device: where embedders run.
        progress: called while passages are read.

    Raises:
        ConfigError: there is no such retriever; or the run has no embedder, or another vocabulary
            than the passages.
        ArtifactError: the run is damaged.
    """
    check_retriever(choice)
    under = _Under(answerer=answerer, run=run_of(run), device=device, progress=progress)
    if (named := RETRIEVERS.get(choice)) is not None:
        answerer.retriever = named(under)
        return answerer.retriever.name
    answerer.retriever, name = _of_run(Path(choice), under)
    return name


def _question_wordpieces(answerer: Answerer | ClaimClassifier) -> int:
    if isinstance(answerer, Answerer):
        return answerer.lengths.question
    return answerer.config.question_wordpieces


def _stored(under: _Under) -> PassageStore:
    """Return the passages, of which another index is to be made."""
    store = under.answerer.store
    if not isinstance(store, PassageStore):
        raise ConfigError(
            f"found the documents of {store.folder}, which may change; expected passages of "
            "`realm split`, which another retriever can index"
        )
    return store


def _of_run(folder: Path, under: _Under) -> tuple[Retriever, str]:
    """Return the retriever of another run, and its name with the hash of its parameters."""
    checkpoint = find_checkpoint(folder)
    model = load_model(checkpoint).to(choose_device(under.device))
    run = run_of(folder)
    tower = model.need_towers().query.eval()
    store = _stored(under)
    check_vocabulary(model, store)
    retriever = DenseRetriever(
        tower,
        open_snapshot(run, model, store, progress=under.progress),
        store.tokenizer,
        question_wordpieces=_question_wordpieces(under.answerer),
        name=run.name,
    )
    return (
        retriever,
        f"{run.resolve().name} ({read_json(checkpoint / MANIFEST)['fingerprint'][:12]})",
    )
