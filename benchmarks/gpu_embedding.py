"""Embedding passages on a GPU: passages a second, and how near that comes to its matrix rate.

    python benchmarks/gpu_embedding.py PASSAGES --num-passages 200000 --out embedding.json

The tower is a BERT of any shape with fresh parameters. The rate of matrix products is measured
before and after, in the same run. Passages are taken over and over until there are enough.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.device import choose_device
from realm.index.builder import PassageEmbedder
from realm.model.bert import build_bert
from realm.model.embedder import Embedder

SHAPES = {
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12},
}
TARGET = 0.4
SQUARE = 8_192


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("passages", type=Path)
    parser.add_argument("--encoder", choices=SHAPES, default="bert-base")
    parser.add_argument("--num-passages", type=int, default=200_000)
    parser.add_argument("--batch-tokens", type=int, default=131_072)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    device = choose_device(args.device)
    store = PassageStore.open(args.passages)
    shape = SHAPES[args.encoder]
    settings = {
        **shape,
        "intermediate_size": 4 * shape["hidden_size"],
        "vocab_size": store.tokenizer.vocab_size,
    }
    tower = Embedder(build_bert(settings), projection_size=128, pooling="pooler").to(device).eval()
    embed = PassageEmbedder(tower, store, IndexConfig(batch_tokens=args.batch_tokens))
    embed(
        [row % len(store) for row in range(min(2_000, args.num_passages))]
    )  # kernels are chosen and loaded
    before = matrix_rate(device)
    rows = [number % len(store) for number in range(args.num_passages)]
    lengths = [2 + len(store.wordpieces(row)) + len(store.title_wordpieces(row)) for row in rows]
    began = time.perf_counter()
    embed(rows)
    seconds = time.perf_counter() - began
    after = matrix_rate(device)
    rate = statistics.mean((before, after))
    work = sum(operations(shape, min(length + 1, 288)) for length in lengths)
    content: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "encoder": args.encoder,
        "passages": args.num_passages,
        "wordpieces": sum(lengths),
        "seconds": seconds,
        "passages_per_second": args.num_passages / seconds,
        "tera_flops": work / seconds / 1e12,
        "matrix_tera_flops": [before, after],
        "fraction": work / seconds / 1e12 / rate,
        "target": TARGET,
    }
    args.out.write_text(json.dumps(content, indent=1), encoding="utf-8")
    sys.stdout.write(json.dumps(content, indent=1) + "\n")
    if device.type == "cuda" and content["fraction"] < TARGET:
        sys.exit(f"below {TARGET:.0%} of the rate of matrix products")


def operations(shape: dict[str, int], length: int) -> float:
    """Return the floating-point operations of one text in the Transformer's matrix products."""
    width = shape["hidden_size"]
    return shape["num_hidden_layers"] * length * (24 * width**2 + 4 * length * width)


def matrix_rate(device: torch.device) -> float:
    """Return the rate of bfloat16 matrix products of random numbers, in 1e12 FLOP/s."""
    size = SQUARE if device.type == "cuda" else 1_024
    one = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    seconds: list[float] = []
    for _ in range(13):
        began = time.perf_counter()
        one @ one
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(seconds[3:]) / 1e12


if __name__ == "__main__":
    main()
