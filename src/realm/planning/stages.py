"""The cost of each stage, as pure functions of a workload and a machine's rates."""

from realm.planning.costs import (
    CHUNK_ROWS,
    FLOAT,
    SEQUENCE_BYTES,
    VECTOR_BYTES,
    StageCost,
    all_reduce_bytes,
    checkpoints_bytes,
    embedding_seconds,
    num_measurements,
    saved,
    search_seconds,
    training_memory,
    update_seconds,
    writing_seconds,
)
from realm.planning.encoders import BACKWARD, EncoderShape
from realm.planning.machine import MachineRates
from realm.planning.workload import DENSE_MASKS, Workload

LEARNING = 1 + BACKWARD
"""FLOPs of forward and backward relative to forward."""
NUM_ICT_EVAL = 512
SCORE_BYTES = 6.0
"""A score of a chunk: 16 bits, and 32 for the selection."""
LOGIT_BYTES = 14.0
"""A logit of the vocabulary: 16 bits, and 32 for it, its exponential and its gradient."""


def split_stage(work: Workload, rates: MachineRates) -> StageCost:
    """Articles -> passages: total wordpieces / rate of one process."""
    return StageCost(
        name="split",
        seconds=work.total_wordpieces / rates.split_wordpieces,
        memory={"libraries and one shard": 0.3e9},
        disk={"passages": work.store_bytes},
    )


def mask_stage(work: Workload, rates: MachineRates) -> StageCost:
    """Passages -> masked examples: total wordpieces / rate of one process."""
    return StageCost(
        name="mask",
        seconds=work.total_wordpieces / rates.mask_wordpieces,
        memory={"libraries": 0.3e9},
        disk={"examples": work.examples_bytes},
    )


def ict_stage(work: Workload, rates: MachineRates) -> StageCost:
    """Inverse Cloze Task: batch x (sentence + passage), forward and backward through the towers."""
    config = work.ict
    query, passage = (
        work.query_wordpieces,
        min(work.passage_wordpieces, float(config.passage_wordpieces)),
    )
    pair = work.embedder.embed_flops(query, work.dim) + work.embedder.embed_flops(passage, work.dim)
    flops = config.batch_size * pair * LEARNING
    parameters = work.tower_parameters * (1 if config.share_towers else 2)
    parts = step_parts(work, rates, flops=flops, parameters=parameters)
    evaluation = num_measurements(config) * min(NUM_ICT_EVAL, work.passages * config.held_out)
    evaluation *= pair / rates.embed_flops
    held = config.batch_size / work.trainers * (query + passage)  # the whole batch: one backward
    activations = saved(work.embedder, rates, config, wordpieces=held, each=passage)
    return StageCost(
        name="ict",
        steps=config.steps,
        flops=config.steps * flops,
        seconds=config.steps * sum(parts.values())
        + evaluation
        + writing_seconds(rates, config, parameters),
        parts=parts,
        memory=training_memory(rates, parameters, config, {"activations": activations}),
        mapped={"passages": work.store_bytes},
        disk={"checkpoints": checkpoints_bytes(config, parameters)},
        network={"gradients": all_reduce_bytes(parameters, work.trainers)},
    )


def mlm_stage(work: Workload, rates: MachineRates) -> StageCost:
    """Reading warm-up: batch x (sentence + window of a passage), loss at the masks."""
    config = work.mlm
    length = work.query_wordpieces + min(config.window, work.body_wordpieces) + 1
    masks = DENSE_MASKS * work.query_wordpieces
    each = work.encoder.forward_flops(length) + work.encoder.head_flops(masks)
    flops = config.batch_size * each * LEARNING
    parameters = work.encoder.encoder_parameters
    parts = step_parts(work, rates, flops=flops, parameters=parameters)
    evaluation = num_measurements(config) * 3 * config.num_eval_examples * each / rates.embed_flops
    held = min(float(config.batch_tokens), config.batch_size / work.trainers * length)
    return StageCost(
        name="mlm",
        steps=config.steps,
        flops=config.steps * flops,
        seconds=config.steps * sum(parts.values())
        + evaluation
        + writing_seconds(rates, config, parameters),
        parts=parts,
        memory=training_memory(
            rates,
            parameters,
            config,
            {
                "activations": saved(work.encoder, rates, config, wordpieces=held, each=length),
                "logits": held / length * masks * work.encoder.vocabulary * LOGIT_BYTES,
            },
        ),
        mapped={"passages": work.store_bytes, "examples": work.examples_bytes},
        disk={"checkpoints": checkpoints_bytes(config, parameters)},
        network={"gradients": all_reduce_bytes(parameters, work.trainers)},
    )


def refresh_stage(work: Workload, rates: MachineRates, *, name: str = "refresh") -> StageCost:
    """One rebuild of the index: embed every passage, write both halves, hand them over.

    passages x (FLOPs / rate + fixed) / processes + 6 dim x passages / disk rate
    + 4 parameters / network rate (not within the trainer itself)
    """
    processes = work.builders or work.trainers
    flops = work.passages * work.passage_flops
    handed = FLOAT * work.tower_parameters if work.builders else 0.0
    parts = {
        "embedding": embedding_seconds(work, rates, work.passages) / processes,
        "writing": work.snapshot_bytes / rates.disk_write_bytes,
        "handing over": handed / rates.network_bytes,
    }
    shard = min(work.index.shard_rows, work.passages / processes)
    return StageCost(
        name=name,
        flops=flops,
        seconds=sum(parts.values()),
        parts=parts,
        memory={
            "libraries": rates.base_memory_bytes,
            "parameters": 1.5 * FLOAT * work.tower_parameters,
            "a shard's wordpieces": shard * work.embedded_wordpieces * SEQUENCE_BYTES,
            "a shard's vectors": shard * work.dim * VECTOR_BYTES,
            "a group": work.index.batch_tokens * _live_bytes(work.embedder),
        },
        mapped={"passages": work.store_bytes},
        disk={"the new snapshot": float(work.snapshot_bytes)},
        network={
            "parameters": handed,
            "snapshot to the trainers": work.snapshot_bytes / processes if work.builders else 0.0,
        },
    )


def pretrain_stage(work: Workload, rates: MachineRates) -> StageCost:
    """Joint pre-training without its refreshes: select, score afresh, read, update.

    A step's forward FLOPs: batch x (2 query embeddings (one selects, one learns)
    + (candidates - 1) passages + (candidates - 1) joint inputs + the query alone
    + candidates x masks x head); all but the selection three times. With `gradient_candidates`
    the encoder reads once, and three times more for so many.
    """
    config = work.pretrain
    query = work.embedder.embed_flops(work.query_wordpieces, work.dim)
    flops = config.batch_size * (_learning_flops(work) + query)
    parameters = work.embedder_parameters + work.encoder.encoder_parameters
    wanted = config.num_candidates + 7
    parts = {
        **step_parts(work, rates, flops=flops, parameters=parameters),
        "search": search_seconds(
            rates,
            rows=work.passages / work.trainers,
            dim=work.dim,
            queries=float(config.batch_size),
        ),
        "queries and scores": search_bytes(work, config.batch_size, wanted) / rates.network_bytes,
    }
    held_out = min(float(config.num_eval_examples), work.passages * config.held_out)
    forward = sum(_example_flops(work, config.num_candidates)) + query
    evaluation = held_out * forward / rates.embed_flops + (
        search_seconds(rates, rows=float(work.passages), dim=work.dim, queries=held_out)
    )
    seconds = config.steps * sum(parts.values()) + num_measurements(config) * evaluation
    left = _pretrain_saved(work, rates)
    memory = training_memory(rates, parameters, config, left)
    if not work.builders:
        shard = min(work.index.shard_rows, work.passages / work.trainers)
        beside = shard * (work.embedded_wordpieces * SEQUENCE_BYTES + work.dim * VECTOR_BYTES)
        memory["a shard's wordpieces, above the activations"] = max(
            0.0, beside - sum(left.values())
        )
    return StageCost(
        name="pretrain",
        steps=config.steps,
        flops=config.steps * flops,
        seconds=seconds + writing_seconds(rates, config, parameters),
        parts=parts,
        memory=memory,
        mapped={
            "index (16 bits)": work.scan_bytes / work.trainers,
            "passages": work.store_bytes,
            "examples": work.examples_bytes,
        },
        disk={
            "checkpoints": checkpoints_bytes(config, parameters),
            "snapshots": float(work.snapshot_bytes * snapshots_kept(work)),
        },
        network={
            "gradients": all_reduce_bytes(parameters, work.trainers),
            "queries and scores": search_bytes(work, config.batch_size, wanted),
        },
    )


def snapshots_kept(work: Workload) -> int:
    """Snapshots on disk at once: the one in use, those of kept checkpoints, the one being built."""
    if work.num_refreshes == 0:
        return 1
    config = work.pretrain
    spanned = config.keep_checkpoints * config.save_every_steps / work.refresh.every_steps
    return min(1 + work.num_refreshes, 2 + min(config.keep_checkpoints, int(spanned) + 1))


def _learning_flops(work: Workload) -> float:
    """Return an example's FLOPs, forward and backward; reading what is drawn comes on top."""
    config = work.pretrain
    scoring, reading = _example_flops(work, config.num_candidates)
    if config.gradient_candidates is None:
        return LEARNING * (scoring + reading)
    read_again = _example_flops(work, config.gradient_candidates)[1]
    return LEARNING * (scoring + read_again) + reading


def _example_flops(work: Workload, candidates: int) -> tuple[float, float]:
    """Return an example's forward FLOPs (scoring some candidates, reading them), null included."""
    read = candidates - 1
    scoring = work.embedder.embed_flops(work.query_wordpieces, work.dim)
    scoring += read * work.passage_flops
    reading = read * work.encoder.forward_flops(work.joint_wordpieces, spread=_joint_spread(work))
    reading += work.encoder.forward_flops(work.query_wordpieces + 1)
    reading += work.encoder.head_flops(candidates * work.masks)
    return scoring, reading


def _live_bytes(shape: EncoderShape) -> float:
    """Bytes of a wordpiece in a forward pass without gradients: three hidden states, two inner."""
    return FLOAT * (3 * shape.width + 2 * shape.inner)


def _joint_spread(work: Workload) -> float:
    """Return the spread of a query's length plus a passage's: only the passage's varies much."""
    share = work.body_wordpieces / (work.query_wordpieces + work.body_wordpieces)
    return 1 + (work.spread - 1) * share**2


def _pretrain_saved(work: Workload, rates: MachineRates) -> dict[str, float]:
    """Return what one backward pass holds: about `batch_tokens`, at least one query's candidates.

    Towers and encoder both keep theirs, as the loss needs both. Where candidates are drawn, first
    those of the towers, then those of the encoder; what it needs to read them is not counted.
    """
    config, read = work.pretrain, work.pretrain.num_candidates - 1
    joint = read * work.joint_wordpieces + work.query_wordpieces
    examples = max(1, config.batch_tokens // joint)
    examples = min(examples, max(1, config.batch_size / work.trainers))
    embedded = read * work.embedded_wordpieces + work.query_wordpieces
    logits = config.num_candidates * work.masks * work.encoder.vocabulary * LOGIT_BYTES
    drawn = config.gradient_candidates
    part = 1.0 if drawn is None else drawn / config.num_candidates
    reading = part * saved(
        work.encoder, rates, config, wordpieces=examples * joint, each=work.joint_wordpieces
    )
    scoring = saved(
        work.embedder,
        rates,
        config,
        wordpieces=examples * embedded,
        each=work.embedded_wordpieces,
    )
    if drawn is not None:
        reading = max(0.0, reading - scoring)
    return {
        "activations of the encoder": reading,
        "activations of the towers": scoring,
        "logits": part * examples * logits,
        "scores of a chunk": config.batch_size * min(CHUNK_ROWS, work.passages) * SCORE_BYTES,
    }


def search_bytes(work: Workload, queries: int, found: int) -> float:
    """Bytes that a process sends in a sharded search: its queries, its best (score, row) pairs.

    Args:
        work: says how many processes share them.
        queries: of a step, of all processes together.
        found: pairs for each query.
    """
    if work.trainers == 1:
        return 0.0
    own = queries / work.trainers
    others = work.trainers - 1
    return others * own * (work.dim * FLOAT + found * (FLOAT + 8))


def step_parts(
    work: Workload, rates: MachineRates, *, flops: float, parameters: int
) -> dict[str, float]:
    """Return the seconds of a step, each trainer on its share of the batch."""
    return {
        "computing": flops / work.trainers / rates.train_flops,
        "gradients": all_reduce_bytes(parameters, work.trainers) / rates.network_bytes,
        "update": update_seconds(rates, parameters),
    }
