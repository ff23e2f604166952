"""Twenty steps of joint pre-training show the same loss as when they were written down.

A refactor must not move it. Parameters are set by formula, so that neither torch's nor
transformers' way of drawing them matters. To write it down again after a change that is meant to
move it, run this file with REALM_WRITE_GOLDEN=1 and tell why in the change log.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from realm.checkpoint.checkpoints import save_checkpoint
from realm.checkpoint.parts import Model
from realm.checkpoint.run_records import read_metrics
from realm.config import OptimizerConfig, PretrainConfig, RefreshConfig
from realm.corpus.store import PassageStore
from realm.masking.store import ExampleStore
from realm.model.embedder import build_towers
from realm.model.encoder import build_encoder
from realm.training.pretrain import pretrain

GOLDEN = Path(__file__).with_name("golden_loss.json")
NAMES = ("loss", "p_null", "utility/mean", "index/score_drift")


def start_from_formula(store: PassageStore, folder: Path) -> dict[str, Path]:
    """Publish towers and an encoder whose parameters depend on their names only."""
    bert = {
        "vocab_size": store.tokenizer.vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    towers = build_towers(
        {"bert": bert, "projection_size": 16, "pooling": "pooler", "share_towers": True}
    )
    encoder = build_encoder({"bert": bert})
    with torch.no_grad():
        for module in (towers, encoder):
            for name, parameter in sorted(module.named_parameters()):
                draw = np.random.default_rng(list(name.encode()))
                noise = torch.from_numpy(draw.standard_normal(parameter.shape)).float()
                is_gain = name.endswith("weight") and "norm" in name.lower()
                parameter.copy_(0.1 * noise + (1.0 if is_gain else 0.0))
    models = {
        "embedder": Model(tokenizer=store.tokenizer, towers=towers),
        "encoder": Model(tokenizer=store.tokenizer, encoder=encoder),
    }
    for name, model in models.items():
        save_checkpoint(folder / name, model, settings={}, inputs={})
    return {name: folder / name for name in models}


def test_twenty_steps_show_the_golden_loss(
    examples: ExampleStore, store: PassageStore, tmp_path: Path
) -> None:
    config = PretrainConfig(
        steps=20,
        batch_size=4,
        num_candidates=4,
        autocast="none",
        dropout=0.0,
        held_out=0.1,
        num_eval_examples=8,
        eval_every_steps=20,
        save_every_steps=20,
        threads=1,
        refresh=RefreshConfig(mode="sync", every_steps=6),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=4),
    )
    report = pretrain(
        examples, store, tmp_path / "run", config=config, **start_from_formula(store, tmp_path)
    )
    lines = [line for line in read_metrics(tmp_path / "run") if "loss" in line]
    found = {name: [round(line[name], 6) for line in lines] for name in NAMES}
    found["eval/loss"] = [round(report.metrics["eval/loss"], 6)]
    if os.environ.get("REALM_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert set(found) == set(golden)
    for name, values in golden.items():
        assert found[name] == pytest.approx(values, abs=1e-4), name
    assert len(found["loss"]) == 20
