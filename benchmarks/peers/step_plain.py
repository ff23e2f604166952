"""A joint training step on transformers as it comes: 32 bits, padded, the head at all positions."""

import sys
from pathlib import Path
from typing import Any

import torch
from batch import Padded, Stepper, labels_of, pad, part, read_batch, read_weights
from peer import memory_bytes, serve
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertModel

torch.set_num_threads(1)


class Tower(nn.Module):
    """LayerNorm(W mean(BERT(text)) + b)."""

    def __init__(self, config: BertConfig, dim: int, eps: float) -> None:
        super().__init__()
        self.bert = BertModel(config)
        self.projection = nn.Linear(config.hidden_size, dim)
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, inputs: Padded) -> Tensor:
        """Return the vectors."""
        hidden = self.bert(
            input_ids=inputs.ids, token_type_ids=inputs.segments, attention_mask=inputs.is_real
        ).last_hidden_state
        weights = inputs.is_real[:, :, None].float()
        mean = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        return self.norm(self.projection(mean))


def main(folder: Path, mode: str) -> None:
    """Load, and answer calls."""
    batch, weights = read_batch(folder), read_weights(folder)
    baseline = memory_bytes("VmRSS")
    config = BertConfig(**batch["bert"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    encoder = BertForMaskedLM(config).train()
    encoder.bert.load_state_dict(part(weights, "encoder.bert."), strict=False)  # but the pooler
    head = encoder.cls.predictions
    head.transform.dense.load_state_dict(part(weights, "encoder.head.dense."))
    head.transform.LayerNorm.load_state_dict(part(weights, "encoder.head.norm."))
    head.bias.data.copy_(weights["encoder.head.bias"])
    tower = Tower(config, batch["dim"], batch["norm_eps"]).train()
    tower.load_state_dict(part(weights, "tower."))
    del weights
    stepper = Stepper(baseline, [tower, encoder] if mode == "whole" else [encoder])
    length, rows = batch["length"], len(batch["queries"])
    queries, passages = pad(batch["queries"], length), pad(batch["passages"], length)
    joint, labels = pad(batch["joint"], length), labels_of(batch, length)
    passage_of = torch.tensor(batch["passage_of"])
    chosen = Padded(*(one[passage_of.reshape(-1)] for one in passages))

    def scores() -> Tensor:
        if mode != "whole":
            return torch.tensor(batch["scores"])
        candidates = tower(chosen).view(rows, -1, batch["dim"])
        return torch.einsum("bd,bcd->bc", tower(queries), candidates)

    def backward() -> float:
        logits = encoder(
            input_ids=joint.ids, token_type_ids=joint.segments, attention_mask=joint.is_real
        ).logits
        targets = labels[:, None].expand(rows, passage_of.shape[1], length)
        gold = -nn.functional.cross_entropy(
            logits.view(-1, logits.shape[-1]), targets.reshape(-1), reduction="none"
        ).view(targets.shape)
        marginal = (scores().log_softmax(dim=-1)[:, :, None] + gold).logsumexp(dim=1)
        is_mask = labels >= 0
        loss = -(marginal * is_mask).sum() / is_mask.sum()
        loss.backward()
        return loss.item()

    def step() -> dict[str, Any]:
        return stepper.step(backward)

    serve({"step": step})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
