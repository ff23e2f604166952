"""The cost of fine-tuning and of answering a question."""

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
from realm.planning.stages import LEARNING, search_bytes, step_parts
from realm.planning.workload import Workload

NUM_FINETUNE_EVAL = 128
"""Held-out questions of a measurement."""


def finetune_stage(work: Workload, rates: MachineRates) -> StageCost:
    """Fine-tuning: embed and search the questions, read the best passages; Embed_doc is fixed."""
    config = work.finetune
    joint = min(float(config.joint_wordpieces), work.question_wordpieces + work.body_wordpieces + 1)
    reading = config.num_passages * (
        work.encoder.forward_flops(joint)
        + work.encoder.span_flops(joint, config.span_hidden, config.max_answer_wordpieces)
    )
    question = work.embedder.embed_flops(work.question_wordpieces, work.dim)
    flops = config.batch_size * (reading + question) * LEARNING
    parameters = work.tower_parameters + work.encoder.reader_parameters(config.span_hidden)
    search = search_seconds(
        rates, rows=work.passages / work.trainers, dim=work.dim, queries=float(config.batch_size)
    )
    parts = {**step_parts(work, rates, flops=flops, parameters=parameters), "search": search}
    each = (reading + question) / rates.embed_flops
    held = min(float(config.batch_tokens), config.num_passages * joint * config.batch_size)
    return StageCost(
        name="finetune",
        steps=config.steps,
        flops=config.steps * flops,
        seconds=config.steps * sum(parts.values())
        + num_measurements(config) * NUM_FINETUNE_EVAL * each
        + writing_seconds(rates, config, parameters),
        parts=parts,
        memory=training_memory(
            rates,
            parameters,
            config,
            {"activations": saved(work.encoder, work, config, wordpieces=held, each=joint)},
        ),
        mapped={"index (16 bits)": work.scan_bytes / work.trainers, "passages": work.store_bytes},
        disk={
            "checkpoints": checkpoints_bytes(config, parameters),
            "snapshot": float(work.snapshot_bytes),
        },
        network={
            "gradients": all_reduce_bytes(parameters, work.trainers),
            "queries and scores": search_bytes(work, min(config.retriever_beam, work.passages)),
        },
    )


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
