"""Joint pre-training: the REALM loop (sections 3.1 to 3.4).

Each step: embed the masked sentences, select candidates in the snapshot, score those afresh, read
them, and climb log p(y|x) of Eq. 1 through both towers and the encoder. Between steps the index
is refreshed.
"""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from realm.checkpoint.checkpoints import find_checkpoint, load_model
from realm.checkpoint.run_folder import TrainReport, open_run, resume_point, start_run
from realm.checkpoint.sources import check_vocabulary, write_sources
from realm.config import PretrainConfig
from realm.corpus.store import PassageStore
from realm.errors import ConfigError
from realm.masking.store import ExampleStore
from realm.model.bert import max_length
from realm.ranks import ALONE, Ranks
from realm.records import Progress
from realm.storage import MANIFEST, Request, read_json
from realm.training.examples import check_examples
from realm.training.held_out import keep_held_out
from realm.training.lengths import check_lengths
from realm.training.loop import OnMetrics, check_ranks, train
from realm.training.pretrain_job import PretrainJob
from realm.training.refreshing import refresher_of, towers_as_asked, with_threads


def pretrain(  # noqa: PLR0913 - each is one input of the stage
    examples: ExampleStore,
    store: PassageStore,
    out: Path,
    *,
    embedder: Path,
    encoder: Path,
    config: PretrainConfig,
    rebuild: bool = False,
    on_metrics: OnMetrics | None = None,
    tensorboard: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
    ranks: Ranks = ALONE,
) -> TrainReport:
    """Train retriever and encoder together on masked examples.

    Args:
        examples: masked sentences of X.
        store: the passages Z.
        out: run folder.
        embedder: run or checkpoint with towers (from `ict`).
        encoder: run or checkpoint with an encoder (from `mlm`).
        config: settings.
        rebuild: replace a run made from other inputs.
        on_metrics: called at logged steps.
        tensorboard: also write TensorBoard events.
        progress: called while the trainer builds the index.
        tell: called with a sentence when something happens to builders or snapshots, or where a run
            goes on with other `batch_tokens`.
        ranks: the processes that train together.

    Returns:
        Steps, seconds and the last values measured.

    Raises:
        ConfigError: more candidates than passages, different vocabularies, inputs longer than a
            part reads, or the ranks cannot share a batch.
        ArtifactError: a folder is missing, damaged, or from another corpus.
        RankError: another rank died, or does not answer.
    """
    check_ranks(config, ranks)
    check_candidates(config.num_candidates, len(store))
    check_examples(examples, store, query_wordpieces=config.query_wordpieces)
    sources = {"embedder": find_checkpoint(embedder), "encoder": find_checkpoint(encoder)}
    request = Request(
        kind="run",
        settings={"stage": "pretrain", **config.identity()},
        inputs={
            "passages": store.fingerprint,
            "examples": examples.fingerprint,
            **{name: _fingerprint(path) for name, path in sources.items()},
        },
    )
    with open_run(out, request, rebuild=rebuild, tell=tell, ranks=ranks) as report:
        if report is not None:
            return report
        if (checkpoint := resume_point(out, ranks)) is not None:
            model = load_model(checkpoint)
            towers, reading = model.need_towers(), model.need_encoder()
        else:
            start = {name: load_model(path) for name, path in sources.items()}
            for model in start.values():
                check_vocabulary(model, store)
            towers, reading = start["embedder"].need_towers(), start["encoder"].need_encoder()
            towers = towers_as_asked(towers, config.share_towers, embedder)
        check_lengths(
            {
                "query_wordpieces": (config.query_wordpieces, towers.query.max_length),
                "passage_wordpieces": (config.passage_wordpieces, towers.passage.max_length),
                "joint_wordpieces": (config.joint_wordpieces, max_length(reading.bert)),
            }
        )
        refresher = refresher_of(out, store, config, progress=progress, tell=tell, ranks=ranks)
        with closing(refresher):
            job = PretrainJob(
                examples,
                towers,
                reading,
                refresher,
                config,
                ranks,
                on_held_out=partial(keep_held_out, out),
            )
            ranks.from_first(partial(start_run, out, request))
            ranks.from_first(partial(write_sources, out, store))
            return train(
                job,
                out,
                request,
                config=with_threads(config),
                on_metrics=on_metrics,
                tensorboard=tensorboard,
                ranks=ranks,
            )


def check_candidates(num_candidates: int, num_passages: int) -> None:
    """Refuse more candidates than the corpus can give.

    Raises:
        ConfigError: the null passage, `num_candidates - 1` others and the excluded own one do not
            fit.
    """
    if num_candidates > num_passages:
        raise ConfigError(
            f"num_candidates={num_candidates} needs at least {num_candidates} passages (the null "
            f"passage is free, the example's own is excluded), found {num_passages}; "
            f"lower it with `--set num_candidates=N` or add passages"
        )


def _fingerprint(checkpoint: Path) -> str:
    return str(read_json(checkpoint / MANIFEST)["fingerprint"])
