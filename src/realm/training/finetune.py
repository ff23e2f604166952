"""Open-QA fine-tuning: reader and Embed_input learn, the index stands still (section 4, ORQA).

With `train_passages` Embed_doc learns, too, and the index follows it as in pre-training.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import torch

from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.parts import Model
from realm.checkpoint.run_folder import TrainReport, open_run, resume_point, start_run
from realm.checkpoint.sources import check_vocabulary, run_of, write_sources
from realm.config import FinetuneConfig, IndexConfig
from realm.corpus.store import PassageStore
from realm.device import choose_device
from realm.errors import CorpusError
from realm.index.opening import find_snapshot, standing_snapshot
from realm.index.snapshot import Snapshot
from realm.model.bert import build_bert, max_length
from realm.model.embedder import Towers
from realm.model.reader import Reader
from realm.ranks import ALONE, Ranks
from realm.records import Progress, Question
from realm.refresh.refresher import Refresher
from realm.retrieval.bm25 import open_lexical
from realm.storage import MANIFEST, Request, fingerprint_of, read_json
from realm.training.finetune_job import FinetuneJob
from realm.training.lengths import check_lengths
from realm.training.loop import OnMetrics, check_ranks, train
from realm.training.mixing import QuestionSet
from realm.training.refreshing import (
    embedded_tokens,
    keep_last_index,
    refresher_of,
    towers_as_asked,
    with_threads,
)


def finetune(  # noqa: PLR0913 - each is one input of the stage
    questions: Sequence[Question],
    store: PassageStore,
    out: Path,
    *,
    run: Path,
    config: FinetuneConfig,
    also: Sequence[QuestionSet] = (),
    encoder: Path | None = None,
    rebuild: bool = False,
    on_metrics: OnMetrics | None = None,
    tensorboard: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
    ranks: Ranks = ALONE,
) -> TrainReport:
    """Train a reader and the question tower, or both towers, on questions with answers.

    Args:
        questions: training questions; a share is held out to measure on.
        store: the passages Z.
        out: run folder; gets its own snapshot, so that it answers by itself.
        run: run or checkpoint with an embedder (from `pretrain` or `ict`); its encoder is what
            the reader starts from.
        config: settings.
        also: more questions, each set with a weight.
        encoder: another run to take the encoder from, where `run` has none.
        rebuild: replace a run made from other inputs.
        on_metrics: called at logged steps.
        tensorboard: also write TensorBoard events.
        progress: called while the index is built.
        tell: called with a sentence when something happens to builders or snapshots, or where a run
            goes on with other `batch_tokens`.
        ranks: the processes that train together.

    Returns:
        Steps, seconds and the last values measured.

    Raises:
        CorpusError: no questions.
        ConfigError: no embedder, no encoder to start the reader from, another vocabulary, inputs
            longer than a part reads, or two towers that are to be one.
        ArtifactError: a folder is missing, damaged, or from another corpus.
        StaleIndexError: with `train_passages`, the index is older than the run allows.
    """
    check_ranks(config, ranks)
    if not questions:
        raise CorpusError("found no training questions; expected at least one")
    sources = [find_checkpoint(path) for path in (run, encoder) if path is not None]
    sets = [QuestionSet(questions=questions), *also]
    request = Request(
        kind="run",
        settings={"stage": "finetune", **config.identity()},
        inputs={
            "passages": store.fingerprint,
            "questions": _fingerprint(sets, config),
            "start": fingerprint_of([read_json(s / MANIFEST)["fingerprint"] for s in sources]),
        },
    )
    with open_run(out, request, rebuild=rebuild, tell=tell, ranks=ranks) as report:
        if report is not None:
            return report
        towers, reader = _parts(resume_point(out, ranks), sources, store, config)
        check_lengths(
            {
                "question_wordpieces": (config.question_wordpieces, towers.query.max_length),
                "joint_wordpieces": (config.joint_wordpieces, max_length(reader.bert)),
            }
        )
        towers.to(choose_device(config.device))
        with ranks.first_goes_first():  # the others find what it made
            if ranks.is_first:
                start_run(out, request)
                write_sources(out, store)
            lexical = open_lexical(out, store) if config.retriever == "hybrid" else None
        searched = _searched(out, run, store, towers, config, progress, tell, ranks)
        with searched as (index, at_end):
            job = FinetuneJob(sets, store, index, towers, reader, config, ranks, lexical=lexical)
            return train(
                job,
                out,
                request,
                config=with_threads(config) if config.train_passages else config,
                on_metrics=on_metrics,
                tensorboard=tensorboard,
                at_end=at_end,
                ranks=ranks,
            )


@contextmanager
def _searched(
    out: Path,
    run: Path,
    store: PassageStore,
    towers: Towers,
    config: FinetuneConfig,
    progress: Progress | None,
    tell: Callable[[str], None],
    ranks: Ranks,
) -> Generator[tuple[Snapshot | Refresher, Callable[[], object]]]:
    """Yield (a snapshot that stands still, or what keeps one fresh; what to do at the end)."""
    if not config.train_passages:
        index = IndexConfig(autocast=config.autocast, batch_tokens=embedded_tokens(config))
        found = standing_snapshot(
            out, run, towers.passage, store, index, progress=progress, ranks=ranks
        )
        yield found, lambda: None
        return
    start = find_snapshot(run_of(run), towers.passage, store)
    refresher = refresher_of(
        out, store, config, start=start, progress=progress, tell=tell, ranks=ranks
    )
    with closing(refresher):
        yield (
            refresher,
            partial(
                keep_last_index, out, towers, refresher, config, progress=progress, ranks=ranks
            ),
        )


def _parts(
    checkpoint: Path | None, sources: Sequence[Path], store: PassageStore, config: FinetuneConfig
) -> tuple[Towers, Reader]:
    """Return what is trained: of a checkpoint, or new parts from (model, encoder if another)."""
    if checkpoint is not None:
        model = load_model(checkpoint)
        return model.need_towers(), model.need_reader()
    start = load_model(sources[0])
    other = load_model(sources[1]) if len(sources) > 1 else start
    for model in (start, other):
        check_vocabulary(model, store)
    torch.manual_seed(config.seed)
    towers = start.need_towers()
    if config.train_passages:
        towers = towers_as_asked(towers, config.share_towers, sources[0])
    else:
        towers = towers.untied()
    return towers, _new_reader(other, config)


def _new_reader(source: Model, config: FinetuneConfig) -> Reader:
    """Return a reader over the encoder's BERT, its MLM head dropped.

    A start without an encoder (a fine-tuned or imported one) goes on with the reader that it has.
    """
    if source.encoder is None and source.reader is not None:
        source.reader.reads_null = config.null_passage
        return source.reader
    encoder = source.need_encoder()
    bert = build_bert(encoder.settings["bert"])
    bert.load_state_dict(encoder.bert.state_dict())
    return Reader(
        bert,
        span_hidden=config.span_hidden,
        max_answer_wordpieces=config.max_answer_wordpieces,
        reads_null=config.null_passage,
    )


def _fingerprint(sets: Sequence[QuestionSet], config: FinetuneConfig) -> str:
    """Return the hash of what is asked, and of what counts as right."""
    asked = [
        [
            [q.question, q.answers, q.answer_patterns]
            + ([q.passage_id] if config.gold_passages else [])
            for q in one.questions
        ]
        for one in sets
    ]
    if len(sets) == 1:
        return fingerprint_of(asked[0])
    return fingerprint_of([asked, [one.weight for one in sets]])
