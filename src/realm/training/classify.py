"""Fine-tuning on claims: classifier and Embed_input learn, the index stands still.

The released code did this for FEVER (`text_classifier_experiment`), over the same retriever.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.parts import Model
from realm.checkpoint.run_folder import TrainReport, open_run, resume_point, start_run
from realm.checkpoint.sources import CLASSIFY, check_vocabulary, write_sources
from realm.config import ClassifyConfig, IndexConfig
from realm.corpus.store import PassageStore
from realm.device import choose_device
from realm.errors import CorpusError
from realm.index.opening import standing_snapshot
from realm.model.bert import bert_settings, build_bert, max_length
from realm.model.classifier import Classifier
from realm.ranks import ALONE, Ranks
from realm.readable import counted
from realm.records import Claim, Progress
from realm.storage import MANIFEST, Request, fingerprint_of, read_json
from realm.training.classify_job import ClassifyJob
from realm.training.lengths import check_lengths
from realm.training.loop import OnMetrics, check_ranks, train
from realm.training.refreshing import embedded_tokens


def classify(  # noqa: PLR0913 - each is one input of the stage
    claims: Sequence[Claim],
    store: PassageStore,
    out: Path,
    *,
    run: Path,
    config: ClassifyConfig,
    encoder: Path | None = None,
    rebuild: bool = False,
    on_metrics: OnMetrics | None = None,
    tensorboard: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
    ranks: Ranks = ALONE,
) -> TrainReport:
    """Train a classifier and the question tower on claims with labels.

    Args:
        claims: training claims; their labels are those that the run knows. A share of the claims
            is held out to measure on.
        store: the passages Z.
        out: run folder; gets its own snapshot, so that it classifies by itself.
        run: run or checkpoint with an embedder (from `pretrain` or `ict`); its encoder is what
            the classifier starts from.
        config: settings.
        encoder: another run to take the encoder from, where `run` has none.
        rebuild: replace a run made from other inputs.
        on_metrics: called at logged steps.
        tensorboard: also write TensorBoard events.
        progress: called while the index is built.
        tell: called with a sentence where a run goes on with other `batch_tokens`.
        ranks: the processes that train together.

    Returns:
        Steps, seconds and the last values measured.

    Raises:
        CorpusError: no claims, or all of them with the same label.
        ConfigError: no embedder, no encoder to start the classifier from, another vocabulary, or
            inputs longer than a part reads.
        ArtifactError: a folder is missing, damaged, or from another corpus.
    """
    check_ranks(config, ranks)
    labels = labels_of(claims)
    sources = [find_checkpoint(path) for path in (run, encoder) if path is not None]
    request = Request(
        kind="run",
        settings={"stage": "finetune", "task": CLASSIFY, **config.identity()},
        inputs={
            "passages": store.fingerprint,
            "claims": fingerprint_of([[one.claim, one.label] for one in claims]),
            "start": fingerprint_of([read_json(s / MANIFEST)["fingerprint"] for s in sources]),
        },
    )
    with open_run(out, request, rebuild=rebuild, tell=tell, ranks=ranks) as report:
        if report is not None:
            return report
        if (checkpoint := resume_point(out, ranks)) is not None:
            model = load_model(checkpoint)
            towers, classifier = model.need_towers(), model.need_classifier()
        else:
            start = load_model(sources[0])
            other = load_model(sources[1]) if encoder is not None else start
            for model in (start, other):
                check_vocabulary(model, store)
            torch.manual_seed(config.seed)
            towers = start.need_towers().untied()
            classifier = _new_classifier(other, labels)
        check_lengths(
            {
                "question_wordpieces": (config.question_wordpieces, towers.query.max_length),
                "joint_wordpieces": (config.joint_wordpieces, max_length(classifier.bert)),
            }
        )
        towers.to(choose_device(config.device))
        with ranks.first_goes_first():  # the others find what it made
            if ranks.is_first:
                start_run(out, request)
                write_sources(out, store)
        index = IndexConfig(autocast=config.autocast, batch_tokens=embedded_tokens(config))
        snapshot = standing_snapshot(
            out, run, towers.passage, store, index, progress=progress, ranks=ranks
        )
        job = ClassifyJob(claims, store, snapshot, towers, classifier, config, ranks)
        return train(
            job,
            out,
            request,
            config=config,
            on_metrics=on_metrics,
            tensorboard=tensorboard,
            ranks=ranks,
        )


def labels_of(claims: Sequence[Claim]) -> list[str]:
    """Return the distinct labels, sorted.

    Raises:
        CorpusError: fewer than two.
    """
    labels = sorted({one.label for one in claims})
    if len(labels) < 2:
        num = counted(len(claims), "claim")
        found = f"only the label {labels[0]!r} in {num}" if labels else "no claims"
        raise CorpusError(f"found {found}, expected claims to train on with two labels or more")
    return labels


def _new_classifier(source: Model, labels: Sequence[str]) -> Classifier:
    """Return a classifier over the encoder's BERT, its MLM head dropped.

    A start without an encoder goes on with what it has: its classifier, where that knows the same
    labels, or the BERT of its reader or classifier under a new output layer.
    """
    known = source.classifier
    if source.encoder is None and known is not None and known.labels == tuple(labels):
        return known
    found = source.encoder or source.reader or known or source.need_encoder()
    bert = build_bert(bert_settings(found.bert))
    bert.load_state_dict(found.bert.state_dict())
    return Classifier(bert, labels=labels)
