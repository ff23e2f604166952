"""Open-QA fine-tuning: reader and Embed_input learn, the index stands still (section 4, ORQA)."""

from collections.abc import Sequence
from pathlib import Path

import torch

from realm.checkpoint.checkpoints import Model, find_checkpoint, load_model
from realm.checkpoint.run_folder import TrainReport, open_run, resume_point, start_run
from realm.checkpoint.sources import check_vocabulary, write_sources
from realm.config import FinetuneConfig, IndexConfig
from realm.corpus.store import PassageStore
from realm.device import choose_device
from realm.errors import CorpusError
from realm.index.opening import standing_snapshot
from realm.model.bert import build_bert
from realm.model.reader import Reader
from realm.ranks import ALONE, Ranks
from realm.records import Progress, Question
from realm.retrieval.bm25 import open_lexical
from realm.storage import MANIFEST, Request, fingerprint_of, read_json
from realm.training.finetune_job import FinetuneJob
from realm.training.loop import OnMetrics, check_ranks, train
from realm.training.mixing import QuestionSet


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
    ranks: Ranks = ALONE,
) -> TrainReport:
    """Train a reader and the question tower on questions with answers.

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
        ranks: the processes that train together.

    Returns:
        Steps, seconds and the last values measured.

    Raises:
        CorpusError: no questions.
        ConfigError: no embedder, no encoder to start the reader from, or another vocabulary.
        ArtifactError: a folder is missing, damaged, or from another corpus.
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
    with open_run(out, request, rebuild=rebuild, ranks=ranks) as report:
        if report is not None:
            return report
        if (checkpoint := resume_point(out, ranks)) is not None:
            model = load_model(checkpoint)
            towers, reader = model.need_towers(), model.need_reader()
        else:
            start = load_model(sources[0])
            other = load_model(sources[1]) if encoder is not None else start
            for model in (start, other):
                check_vocabulary(model, store)
            torch.manual_seed(config.seed)
            towers = start.need_towers().untied()
            reader = _new_reader(other, config)
        towers.to(choose_device(config.device))
        with ranks.first_goes_first():  # the others find what it made
            if ranks.is_first:
                start_run(out, request)
                write_sources(out, store)
            index = IndexConfig(autocast=config.autocast)
            snapshot = standing_snapshot(out, run, towers.passage, store, index, progress=progress)
            lexical = open_lexical(out, store) if config.retriever == "hybrid" else None
        job = FinetuneJob(sets, store, snapshot, towers, reader, config, ranks, lexical=lexical)
        return train(
            job,
            out,
            request,
            config=config,
            on_metrics=on_metrics,
            tensorboard=tensorboard,
            ranks=ranks,
        )


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
