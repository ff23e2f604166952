"""Embedding a corpus on one core: ours against sentence-transformers and plain transformers.

    python benchmarks/embedding.py --check

All engines read the same wordpieces ([CLS] title [SEP] body [SEP], at most 288) of 2,000 passages
drawn at random, with the weights of all-MiniLM-L6-v2. A round takes three of the batches that
sentence-transformers would make of all 2,000, sorted by length as it does: a long, a middling and a
short one, others each round, the same for every engine. So its batches are padded as little as in
a whole corpus. Ours has to cut the texts into wordpieces too, although a store already holds them.

The limit is the rate of matrix products in 16 bits, in the same rounds, into preallocated memory.
"""

import argparse
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence

import torch
from corpus import add_corpus_arguments, open_corpus
from harness import Figure, Measured, Timings, interleaved, ratio, run_benchmark, spread
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import AutoTokenizer, BertModel

from realm.checkpoint.folders import pretrained_folder
from realm.checkpoint.pretrained import load_pretrained
from realm.config import EncoderConfig, IndexConfig
from realm.corpus.store import PassageStore
from realm.device import CPU, has_quick_bfloat16
from realm.index.builder import PassageEmbedder
from realm.model.embedder import MeanEmbedder
from realm.planning.encoders import parse_encoder

LONGEST = 288
BATCH = 32
"""Texts of a batch of sentence-transformers, by default."""
PRODUCTS = {"2048 x 2048 x 2048": (2048, 2048, 2048), "8192 x 384 x 1536": (8192, 384, 1536)}
"""Of matrices (rows, inner, columns): a large one, and the largest of MiniLM's layers."""
OURS = "ours"
SENTENCE = "sentence-transformers at its defaults"
SENTENCE_16 = "sentence-transformers in 16 bits"
PLAIN = "transformers padded to 288"
TARGETS = {PLAIN: 4.0, SENTENCE: 3.0, SENTENCE_16: 1.6}
ROUNDS = 3
"""Each takes half a minute, and CPU seconds differ little."""
REPEATS = 4
"""Products of one timing."""
IS_QUICK_IN_16 = has_quick_bfloat16(CPU)
"""Otherwise everybody computes in 32 bits: products of 16 would take up to 60 times as long."""
Embed = Callable[[Sequence[int]], Tensor]


class Engines:
    """One function for each engine: rows of the store -> their unit vectors."""

    def __init__(self, store: PassageStore) -> None:
        folder = str(pretrained_folder("minilm"))
        self.store = store
        self.texts = [(store.title(row), store.text(row)) for row in range(len(store))]
        config = EncoderConfig(init="minilm")
        tower = MeanEmbedder(load_pretrained(config, tokenizer=store.tokenizer).build()).eval()
        self._ours = PassageEmbedder(tower, store, IndexConfig(passage_wordpieces=LONGEST))
        exact = IndexConfig(passage_wordpieces=LONGEST, autocast="none")
        self._exact = PassageEmbedder(tower, store, exact)
        self._sentence = SentenceTransformer(folder, device="cpu")
        self._sentence.max_seq_length = LONGEST
        self._sentence_16 = SentenceTransformer(
            folder, device="cpu", model_kwargs={"dtype": torch.bfloat16}
        )
        self._sentence_16.max_seq_length = LONGEST
        self._plain = BertModel.from_pretrained(folder).eval()
        self._cut = AutoTokenizer.from_pretrained(folder)

    @property
    def by_name(self) -> dict[str, Embed]:
        """Ours and the peers, by what reports call them."""
        peers: dict[str, Embed] = {SENTENCE: self.sentence_transformers, PLAIN: self.plain}
        if IS_QUICK_IN_16:
            peers[SENTENCE_16] = self.sentence_transformers_16
        return {OURS: self.ours, **peers}

    def num_characters(self, row: int) -> int:
        """Return by what sentence-transformers sorts."""
        return sum(map(len, self.texts[row]))

    def flops(self, rows: Sequence[int]) -> float:
        """Return the operations of embedding these passages, without padding."""
        shape = parse_encoder("minilm")
        lengths = self.store.lengths(rows).clip(max=LONGEST).tolist()
        return sum(shape.forward_flops(float(length)) for length in lengths)

    def ours(self, rows: Sequence[int]) -> Tensor:
        """Embed as `realm index` does; the texts are cut again only so that their time counts."""
        for text in zip(*(self.texts[row] for row in rows), strict=True):
            self.store.tokenizer.encode_batch(text)
        return self._ours(rows)

    def exact(self, rows: Sequence[int]) -> Tensor:
        """Embed in 32 bits."""
        return self._exact(rows)

    def sentence_transformers(self, rows: Sequence[int]) -> Tensor:
        """Call encode() at its defaults."""
        return torch.from_numpy(self._sentence.encode([self.texts[row] for row in rows]))

    def sentence_transformers_16(self, rows: Sequence[int]) -> Tensor:
        """Call encode() of the model in 16 bits."""
        found = self._sentence_16.encode([self.texts[row] for row in rows], convert_to_tensor=True)
        return nn.functional.normalize(found.float(), dim=-1)

    @torch.no_grad()
    def plain(self, rows: Sequence[int]) -> Tensor:
        """Run transformers' BertModel on texts in their order, padded to the longest allowed."""
        found: list[Tensor] = []
        for start in range(0, len(rows), BATCH):
            titles, bodies = zip(*(self.texts[r] for r in rows[start : start + BATCH]), strict=True)
            inputs = self._cut(
                list(titles),
                list(bodies),
                padding="max_length",
                truncation="only_second",
                max_length=LONGEST,
                return_tensors="pt",
            )
            hidden = self._plain(**inputs).last_hidden_state
            weights = inputs["attention_mask"][:, :, None].float()
            found.append((hidden * weights).sum(dim=1) / weights.sum(dim=1))
        return nn.functional.normalize(torch.cat(found), dim=-1)


def main() -> int:
    """Measure."""
    return run_benchmark("embedding", __doc__, measure, _add_arguments)


def measure(told: argparse.Namespace) -> Measured:
    """Return the ratios of interleaved rounds, and the worst cosine over all passages."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    corpus = open_corpus(told)
    engines = Engines(corpus.store)
    batch = 4 if told.quick else BATCH
    count = min(len(corpus.store), 3 * batch if told.quick else told.passages)
    chosen = random.Random(0).sample(range(len(corpus.store)), count)  # noqa: S311 - no secret
    rounds = 1 if told.quick else min(told.rounds, ROUNDS)
    by_length = sorted(chosen, key=engines.num_characters, reverse=True)
    draws = draw_rounds(by_length, rounds + 1, batch)
    check_peers(engines, draws[0])
    actions = {name: in_turn(embed, draws) for name, embed in engines.by_name.items()}
    actions |= {name: product(*shape) for name, shape in PRODUCTS.items()}
    timings = interleaved(actions, rounds=rounds)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    cosines = (engines.ours(chosen) * engines.exact(chosen)).sum(dim=-1)
    lengths = corpus.store.lengths(chosen).clip(max=LONGEST)
    return Measured(
        figures=[
            *(speed_up(timings, name, TARGETS[name]) for name in TARGETS if name in timings),
            *share_of_products(timings, [engines.flops(rows) for rows in draws[1:]]),
            Figure(
                what="smallest cosine to our own vectors in 32 bits",
                value=float(cosines.min()),
                unit="",
                at_least=0.9999,
                note=f"of {count:,} passages",
            ),
            Figure(
                what="ours, passages a CPU second",
                value=spread(
                    [len(rows) / s for rows, s in zip(draws[1:], timings[OURS].cpu, strict=True)]
                ),
                unit="",
            ),
        ],
        timings=timings,
        settings={
            "corpus": corpus.name,
            "passages": count,
            "passages_a_round": len(draws[0]),
            "mean_wordpieces": round(float(lengths.mean()), 1),
            "threads": 1,
        },
    )


def draw_rounds(by_length: Sequence[int], count: int, batch: int = BATCH) -> list[list[int]]:
    """Return the rows of each round: three whole batches, one of each third of the lengths."""
    batches = [list(by_length[i : i + batch]) for i in range(0, len(by_length), batch)]
    third = max(1, len(batches) // 3)
    thirds = [batches[start : start + third] for start in range(0, len(batches), third)][:3]
    drawn = random.Random(1)  # noqa: S311 - no secret
    orders = [drawn.sample(part, len(part)) for part in thirds]
    return [[row for part in orders for row in part[i % len(part)]] for i in range(count)]


def check_peers(engines: Engines, rows: Sequence[int]) -> None:
    """See that all engines read the same wordpieces with the same weights.

    Raises:
        SystemExit: a peer's vectors are not those of ours in 32 bits.
    """
    exact = engines.exact(rows)
    for name, embed in engines.by_name.items():
        worst = float((embed(rows) * exact).sum(dim=-1).min())
        if worst < 0.99:
            raise SystemExit(f"{name} embeds something else: cosine {worst:.4f} to ours in 32 bits")


def in_turn(embed: Embed, draws: Sequence[Sequence[int]]) -> Callable[[], object]:
    """Return an action that embeds the next draw each time."""
    turns = iter(draws)
    return lambda: embed(next(turns))


def product(rows: int, inner: int, columns: int) -> Callable[[], object]:
    """Return an action that multiplies matrices into preallocated memory."""
    dtype = torch.bfloat16 if IS_QUICK_IN_16 else torch.float32
    left = torch.randn(rows, inner).to(dtype)
    right = torch.randn(inner, columns).to(dtype)
    out = torch.empty(rows, columns, dtype=dtype)

    def multiply() -> None:
        for _ in range(REPEATS):
            torch.mm(left, right, out=out)

    return multiply


def speed_up(timings: Mapping[str, Timings], peer: str, target: float) -> Figure:
    """Return how many times as many passages ours embeds in a CPU second."""
    return Figure(
        what=f"against {peer}", value=ratio(timings[peer], timings[OURS]), at_least=target
    )


def share_of_products(timings: Mapping[str, Timings], flops: Sequence[float]) -> list[Figure]:
    """Return the rate of ours, real wordpieces only, as a share of each matrix product's."""
    found: list[Figure] = []
    for name, (rows, inner, columns) in PRODUCTS.items():
        of_product = 2.0 * rows * inner * columns * REPEATS
        shares = [
            (ours / seconds) / (of_product / limit)
            for ours, seconds, limit in zip(
                flops, timings[OURS].cpu, timings[name].cpu, strict=True
            )
        ]
        bits = 16 if IS_QUICK_IN_16 else 32
        what = f"share of the rate of {bits}-bit products {name}"
        found.append(Figure(what=what, value=spread(shares), unit="", at_least=0.6))
    return found


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_corpus_arguments(parser)
    parser.add_argument("--passages", type=int, default=2_000, help="of the sample")


if __name__ == "__main__":
    sys.exit(main())
