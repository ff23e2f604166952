"""A training step of RealmKnowledgeAugEncoder, transformers 4.57.6; the scores are given to it."""

import sys
from pathlib import Path
from typing import Any

import torch
from batch import Stepper, labels_of, pad, part, read_batch, read_weights
from peer import memory_bytes, serve
from transformers.models.deprecated.realm import RealmConfig, RealmKnowledgeAugEncoder

torch.set_num_threads(1)


def main(folder: Path) -> None:
    """Load, and answer calls."""
    batch, weights = read_batch(folder), read_weights(folder)
    baseline = memory_bytes("VmRSS")
    scores = torch.tensor(batch["scores"])
    rows, candidates = scores.shape
    config = RealmConfig(
        **batch["bert"],
        num_candidates=candidates,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    encoder = RealmKnowledgeAugEncoder(config).train()
    encoder.realm.load_state_dict(part(weights, "encoder.bert."))
    head = encoder.cls.predictions
    head.transform.dense.load_state_dict(part(weights, "encoder.head.dense."))
    head.transform.LayerNorm.load_state_dict(part(weights, "encoder.head.norm."))
    head.bias.data.copy_(weights["encoder.head.bias"])
    del weights
    stepper = Stepper(baseline, [encoder])
    length = batch["length"]
    joint, labels = pad(batch["joint"], length), labels_of(batch, length)
    inputs = {
        "input_ids": joint.ids.view(rows, candidates, length),
        "token_type_ids": joint.segments.view(rows, candidates, length),
        "attention_mask": joint.is_real.view(rows, candidates, length),
    }

    def backward() -> float:
        loss = encoder(
            **inputs, relevance_score=scores, labels=labels, mlm_mask=(labels >= 0).long()
        ).loss
        loss.backward()
        return loss.item()

    def step() -> dict[str, Any]:
        return stepper.step(backward)

    serve({"step": step})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
