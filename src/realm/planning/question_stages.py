"""The cost of fine-tuning and of answering a question."""

from dataclasses import replace

from realm.config import FinetuneConfig
from realm.planning.costs import (
    FLOAT,
    StageCost,
    all_reduce_bytes,
    checkpoints_bytes,
    num_measurements,
    saved,
    search_seconds,
    training_memory,
    writing_seconds,
)
from realm.planning.machine import MachineRates
from realm.planning.stages import LEARNING, refresh_stage, search_bytes, step_parts
from realm.planning.workload import Workload

NUM_FINETUNE_EVAL = 128
"""Held-out questions of a measurement."""


def finetune_stage(work: Workload, rates: MachineRates) -> StageCost:
    """Fine-tuning: embed and search the questions, read the best passages.

    With `train_passages` also: embed the fresh passages of each question, and the index anew.
    """
    config = work.finetune
    joint = min(float(config.joint_wordpieces), work.question_wordpieces + work.body_wordpieces + 1)
    reading = config.num_passages * (
        work.encoder.forward_flops(joint)
        + work.encoder.span_flops(joint, config.span_hidden, config.max_answer_wordpieces)
    )
    question = work.embedder.embed_flops(work.question_wordpieces, work.dim)
    fresh = num_fresh_passages(config) * work.passage_flops
    flops = config.batch_size * (reading + question + fresh) * LEARNING
    towers = 2 if config.train_passages and config.share_towers is False else 1
    parameters = towers * work.tower_parameters
    parameters += work.encoder.reader_parameters(config.span_hidden)
    search = search_seconds(
        rates, rows=work.passages / work.trainers, dim=work.dim, queries=float(config.batch_size)
    )
    told = search_bytes(work, config.batch_size, min(config.retriever_beam, work.passages))
    parts = {
        **step_parts(work, rates, flops=flops, parameters=parameters),
        "search": search,
        "queries and scores": told / rates.network_bytes,
    }
    each = (reading + question + fresh) / rates.embed_flops
    rebuilt = num_rebuilds(config)
    refresh = refresh_stage(replace(work, builders=0), rates).seconds
    held = _held_wordpieces(work, config.num_passages * joint)
    return StageCost(
        name="finetune",
        steps=config.steps,
        flops=config.steps * flops,
        seconds=config.steps * sum(parts.values())
        + num_measurements(config) * NUM_FINETUNE_EVAL * each
        + rebuilt * refresh
        + writing_seconds(rates, config, parameters),
        parts=parts,
        memory=training_memory(
            rates,
            parameters,
            config,
            {
                "activations": saved(work.encoder, rates, config, wordpieces=held, each=joint),
                **_tower_activations(work, rates),
            },
        ),
        mapped={"index (16 bits)": work.scan_bytes / work.trainers, "passages": work.store_bytes},
        disk={
            "checkpoints": checkpoints_bytes(config, parameters),
            "snapshot": float(work.snapshot_bytes) * min(3, 1 + rebuilt),
        },
        network={
            "gradients": all_reduce_bytes(parameters, work.trainers),
            "queries and scores": told,
        },
    )


def _tower_activations(work: Workload, rates: MachineRates) -> dict[str, float]:
    """Return what Embed_doc holds until a group's backward pass, at least one question's."""
    config, each = work.finetune, work.embedded_wordpieces
    one = num_fresh_passages(config) * each
    if not one:
        return {}
    held = _held_wordpieces(work, one)
    return {"tower": saved(work.embedder, rates, config, wordpieces=held, each=each)}


def _held_wordpieces(work: Workload, one: float) -> float:
    """Return what a backward pass holds of questions of which each has `one` wordpieces.

    About `batch_tokens`, at least one question's, at most those of a trainer's share of the batch.
    """
    config = work.finetune
    return max(one, min(float(config.batch_tokens), config.batch_size / work.trainers * one))


def num_fresh_passages(config: FinetuneConfig) -> int:
    """Return how many passages of a question are embedded afresh: those read are among the best."""
    if not config.train_passages:
        return 0
    read = config.num_passages
    return config.fresh_passages + read if config.draw_from else max(config.fresh_passages, read)


def num_rebuilds(config: FinetuneConfig) -> int:
    """Return how often the trainer itself embeds all passages anew, the last index counted."""
    if not config.train_passages:
        return 0
    is_own = config.refresh.mode == "sync"
    return 1 + (config.steps - 1) // config.refresh.every_steps * is_own


def serving_stage(work: Workload, rates: MachineRates) -> StageCost:
    """One question on one process: embed it, search everything, read the best passages."""
    config = work.finetune
    joint = min(float(config.joint_wordpieces), work.question_wordpieces + work.body_wordpieces + 1)
    reading = config.num_passages * (
        work.encoder.forward_flops(joint)
        + work.encoder.span_flops(joint, config.span_hidden, config.max_answer_wordpieces)
    )
    question = work.embedder.embed_flops(work.question_wordpieces, work.dim)
    parts = {
        "embedding": question / rates.embed_flops,
        "search": search_seconds(rates, rows=float(work.passages), dim=work.dim, queries=1.0),
        "reading": reading / rates.embed_flops,
    }
    parameters = work.tower_parameters + work.encoder.reader_parameters(config.span_hidden)
    return StageCost(
        name="a question",
        flops=question + reading,
        seconds=sum(parts.values()),
        parts=parts,
        memory={
            "libraries": rates.base_memory_bytes,
            "parameters": 1.5 * FLOAT * parameters,
        },
        mapped={"index (16 bits)": float(work.scan_bytes), "passages": work.store_bytes},
        disk={"snapshot": float(work.snapshot_bytes), "passages": work.store_bytes},
    )
