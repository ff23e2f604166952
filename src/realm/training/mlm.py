"""Masked language modelling with something to read: the encoder's warm start (section 3.4).

Without it joint training falls into the cold-start circle: an encoder that cannot read passages
gives the retriever no signal. Three kinds of examples are mixed:

* copy: a sentence with short spans masked, read with the very passage that holds it;
* read: one salient span masked, read with another passage that holds the same span and shares
  other spans with the sentence (no label is used: the match of strings is distant supervision);
* guess: the same tasks with the null passage, so that the encoder keeps a sense of what it knows
  without help. Its accuracy is the "BERT, no retrieval" baseline.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from realm.checkpoint.checkpoints import load_model
from realm.checkpoint.pretrained import hash_tensors, load_pretrained
from realm.checkpoint.run_folder import TrainReport, open_run, resume_point
from realm.config import MlmConfig
from realm.corpus.store import PassageStore
from realm.device import choose_device
from realm.errors import ConfigError
from realm.masking.store import ExampleStore
from realm.model.bert import max_length
from realm.ranks import ALONE, Ranks
from realm.storage import Request
from realm.training.examples import check_examples
from realm.training.head import init_head
from realm.training.lengths import check_lengths
from realm.training.loop import OnMetrics, check_ranks, train
from realm.training.mlm_job import MlmJob


def mlm(
    store: PassageStore,
    out: Path,
    *,
    config: MlmConfig,
    examples: ExampleStore | None = None,
    rebuild: bool = False,
    on_metrics: OnMetrics | None = None,
    tensorboard: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    ranks: Ranks = ALONE,
) -> TrainReport:
    """Warm-start an encoder; the run's checkpoints hold the encoder.

    Args:
        store: the passages.
        out: run folder.
        config: settings.
        examples: salient spans of the same passages (`mask`); without them there are no `read`
            examples and their share is guessed and copied.
        rebuild: replace a run made from other inputs.
        on_metrics: called at logged steps.
        tensorboard: also write TensorBoard events.
        tell: called with a sentence where a run goes on with other `batch_tokens`.
        ranks: the processes that train together.

    Returns:
        Steps, seconds and the last values measured.

    Raises:
        CorpusError: no sentence to train on.
        ConfigError: the encoder cannot be loaded, or reads less than the longest sentence, or the
            examples are of other passages, or the shares of copied and read ones are more than 1.
        ArtifactError: `out` holds another run.
    """
    check_ranks(config, ranks)
    if examples is not None and examples.passages_fingerprint != store.fingerprint:
        raise ConfigError(
            f"{examples.folder} was masked from other passages than {store.folder}; "
            "run `realm mask` on these"
        )
    if examples is not None:
        check_examples(examples, store, query_wordpieces=config.query_wordpieces)
    pretrained = load_pretrained(config.encoder, tokenizer=store.tokenizer)
    request = Request(
        kind="run",
        settings={"stage": "mlm", **config.identity()},
        inputs={
            "passages": store.fingerprint,
            "encoder": pretrained.fingerprint,
            **({"head": hash_tensors(pretrained.head)} if pretrained.head else {}),
            **({"examples": examples.fingerprint} if examples else {}),
        },
    )
    with open_run(out, request, rebuild=rebuild, tell=tell, ranks=ranks) as report:
        if report is not None:
            return report
        if (checkpoint := resume_point(out, ranks)) is not None:
            encoder = load_model(checkpoint).need_encoder()
            job = MlmJob(store, examples, encoder, config, ranks)
        else:
            torch.manual_seed(config.seed)
            encoder = pretrained.build_encoder().to(choose_device(config.device))
            most = max_length(encoder.bert) - 1  # a [SEP] follows the sentence
            check_lengths({"query_wordpieces": (config.query_wordpieces, most)})
            job = MlmJob(store, examples, encoder, config, ranks)
            if not pretrained.head and pretrained.weights and config.head_init == "ridge":
                init_head(encoder, store, job.train_rows, config)
        return train(
            job,
            out,
            request,
            config=config,
            on_metrics=on_metrics,
            tensorboard=tensorboard,
            ranks=ranks,
        )
