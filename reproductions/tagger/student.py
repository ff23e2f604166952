"""Train the small network on the annotated sentences and on those that the teacher tagged.

python reproductions/tagger/student.py NER_FOLDER WEIGHTS.safetensors --silver TEACHER_OUT
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from batching import batches, gold_batches, padded, padded_floats, tell
from data import CONVENTIONS, Sentence, tags_of, training_sets
from scoring import score, spans_of
from teacher import TAUGHT
from torch import Tensor, nn

from realm.checkpoint.folders import load_tokenizer
from realm.checkpoint.pretrained import load_pretrained
from realm.config import EncoderConfig
from realm.masking.trained.features import cut_words, describe_words, flags_of
from realm.masking.trained.network import TaggerNetwork
from realm.masking.trained.weights import save_weights
from realm.tokenizer import WordpieceTokenizer

SIZES = {name: 1 + 2 * len(labels) for name, labels in CONVENTIONS.items()}
LEARNING_RATE = 2e-3
SLOWER = 0.3
"""Of the learning rate for the table of wordpieces, which starts from MiniLM's."""
WORDS = 2_500
"""Of a batch, with the padding."""
DROP = 0.1
"""Share of the affixes, and half of the share of all wordpieces of a word, that are hidden."""
EVERY_STEPS = 400
BIASES = [0.25 * step for step in range(-4, 9)]
"""Of the outside tag, in nats: tried at the end on the sets that select."""

Words = tuple[list[int], list[int]]
"""Numbers and flags of the words of a sentence."""


class Vocabulary:
    """Numbers for words, and the features of each."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.features: list[Tensor] = []

    def encode(self, text: str) -> Words:
        """Return the words of `text`, the first 200."""
        words = cut_words(text)[:200]
        ids = [self.numbers.setdefault(text[a:b], len(self.numbers)) for a, b in words]
        return ids, flags_of(text, words)

    def finish(self, tokenizer: WordpieceTokenizer) -> None:
        """Compute the features of all words met so far."""
        found = describe_words(list(self.numbers), tokenizer)
        self.features = [torch.from_numpy(part).long() for part in found]


class Student:
    """The network that is trained, with the vocabulary of its sentences."""

    def __init__(self, network: TaggerNetwork, vocabulary: Vocabulary) -> None:
        self.network, self.vocabulary = network, vocabulary

    def hidden(self, group: Sequence[Words], *, drop: float) -> Tensor:
        """Return the vectors of the words of a batch, [sentences, words, width]."""
        ids, flags = padded([ids for ids, _ in group]), padded([flags for _, flags in group])
        is_word = padded([[1] * len(ids) for ids, _ in group])[..., None].float()
        distinct, place = ids.unique(return_inverse=True)
        pieces, affixes, shapes = (part[distinct] for part in self.vocabulary.features)
        if drop:
            pieces = pieces * (torch.rand(len(pieces), 1) > drop / 2)
            affixes = affixes * (torch.rand(affixes.shape) > drop)
        vectors = self.network.words(pieces, affixes, shapes)
        return self.network.contextualise(vectors[place], flags, is_word)

    def gold_loss(self, hidden: Tensor, convention: str, tags: Sequence[Sequence[int]]) -> Tensor:
        """Return the cross-entropy of the annotated tags, in nats a word."""
        logits = self.network.heads[convention](hidden)
        return nn.functional.cross_entropy(logits.flatten(0, 1), padded(tags, -100).flatten())

    def silver_loss(self, hidden: Tensor, targets: Sequence[np.ndarray]) -> Tensor:
        """Return the cross-entropy of the teacher's probabilities, in nats a word, of all heads."""
        wanted = padded_floats(targets).split([SIZES[name] for name in TAUGHT], -1)
        num_words = sum(len(target) for target in targets)
        losses = [
            -(want * self.network.heads[name](hidden).log_softmax(-1)).sum() / num_words
            for name, want in zip(TAUGHT, wanted, strict=True)
        ]
        return torch.stack(losses).sum()

    def f1(self, sentences: Sequence[Sentence]) -> float:
        """Return the F1 on sentences of one convention (EWT: PER, LOC, ORG only)."""
        return f1_of(self.scores(sentences), sentences)

    def calibrate(self, sentences: Sequence[Sentence]) -> float:
        """Give the outside tag of their convention the bias that suits the sentences best.

        Return what it was changed by. The teacher saw few sentences without a name.
        """
        scores = self.scores(sentences)
        f1s = {change: f1_of(scores, sentences, outside=change) for change in BIASES}
        best = max(f1s, key=lambda change: (f1s[change], -abs(change)))
        with torch.no_grad():
            self.network.heads[sentences[0].convention].bias[0] += best
        return best

    @torch.no_grad()
    def scores(self, sentences: Sequence[Sentence]) -> list[Tensor]:
        """Return the scores of all tags for each sentence of one convention, [words, tags]."""
        self.network.eval()
        head = self.network.heads[sentences[0].convention]
        encoded = [self.vocabulary.encode(sentence.text) for sentence in sentences]
        lengths = [len(ids) for ids, _ in encoded]
        found = [torch.zeros(0)] * len(sentences)
        for group in batches(lengths, words=4096, rng=None):
            logits = head(self.hidden([encoded[i] for i in group], drop=0.0))
            for row, i in zip(logits, group, strict=True):
                found[i] = row[: lengths[i]]
        self.network.train()
        return found


def f1_of(
    scores: Sequence[Tensor], sentences: Sequence[Sentence], *, outside: float = 0.0
) -> float:
    """Return the F1 of the best tag of each word, `outside` added to the score of none."""
    name = sentences[0].convention
    found: list[list[tuple[int, int, str]]] = []
    for sentence, logits in zip(sentences, scores, strict=True):
        shifted = logits.clone()
        shifted[:, 0] += outside
        words = cut_words(sentence.text)[: len(logits)]
        found.append(spans_of(words, shifted.argmax(-1).tolist(), CONVENTIONS[name]))
    return score(sentences, found, {"PER", "LOC", "ORG"} if name == "web" else None).f1


def new_network(tokenizer: WordpieceTokenizer, dropout: float) -> TaggerNetwork:
    """Return a network whose table of wordpieces is MiniLM's, cut to its principal components."""
    network = TaggerNetwork(SIZES, num_pieces=tokenizer.vocab_size, dropout=dropout)
    minilm = load_pretrained(EncoderConfig(init="minilm"), tokenizer=tokenizer)
    weight = minilm.weights["embeddings.word_embeddings.weight"]
    centred = weight - weight.mean(0)
    right = torch.linalg.svd(centred, full_matrices=False)[2]
    table = centred @ right[: network.words.pieces.embedding_dim].T
    with torch.no_grad():
        network.words.pieces.weight.copy_(table / table.pow(2).mean().sqrt())
        network.words.pieces.weight[0] = 0
        network.words.affixes.weight.mul_(0.3)
        network.flags.weight.mul_(0.3)
    return network


def read_silver(folder: Path, vocabulary: Vocabulary) -> tuple[list[Words], list[np.ndarray]]:
    """Return the sentences and, for each, the probabilities of all tags, [words, tags]."""
    lines = (folder / "silver.jsonl").read_text(encoding="utf-8").splitlines()
    silver = [vocabulary.encode(json.loads(line)) for line in lines]
    ends = np.cumsum([len(ids) for ids, _ in silver])
    scores = np.exp(np.load(folder / "silver.npy").astype(np.float32))
    return silver, np.split(scores, ends[:-1])


def main() -> None:
    """Train; write the weights at every evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ner", type=Path, help="folder of annotated sentences")
    parser.add_argument("out", type=Path, help="file of weights to write")
    parser.add_argument("--silver", type=Path, help="what the teacher wrote; without: gold only")
    parser.add_argument("--silver-epochs", type=int, default=5)
    parser.add_argument("--gold-epochs", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--dropout", type=float, default=0.1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = random.Random(0)  # noqa: S311
    tokenizer = load_tokenizer("minilm")
    gold, held = training_sets(options.ner, CONVENTIONS)
    vocabulary = Vocabulary()
    student = Student(new_network(tokenizer, options.dropout), vocabulary)
    words = [vocabulary.encode(sentence.text) for sentence in gold]
    tags = [tags_of(s)[: len(w[0])] for s, w in zip(gold, words, strict=True)]
    for part in held.values():
        for sentence in part:
            vocabulary.encode(sentence.text)
    silver, targets = read_silver(options.silver, vocabulary) if options.silver else ([], [])
    vocabulary.finish(tokenizer)
    steps: list[tuple[str, list[int]]] = []
    for _ in range(options.gold_epochs):
        lengths = [len(ids) for ids, _ in words]
        steps += gold_batches(gold, tags, lengths, words=WORDS, nameless=1.0, rng=rng)
    for _ in range(options.silver_epochs):
        groups = batches([len(ids) for ids, _ in silver], words=WORDS, rng=rng)
        steps += [("silver", group) for group in groups]
    rng.shuffle(steps)

    def loss_of(kind: str, group: list[int]) -> Tensor:
        source = silver if kind == "silver" else words
        with torch.autocast("cpu", torch.bfloat16):
            hidden = student.hidden([source[i] for i in group], drop=DROP)
        if kind == "silver":
            return student.silver_loss(hidden.float(), [targets[i] for i in group])
        return student.gold_loss(hidden.float(), kind, [tags[i] for i in group])

    def report(step: int, loss: float, cpu_s: float) -> None:
        if step == len(steps):
            tell(**{f"bias_{name}": student.calibrate(part) for name, part in held.items()})
        scores = {name: student.f1(part) for name, part in held.items()}
        tell(step=step, of=len(steps), loss=loss, cpu_s=cpu_s, **scores)
        labels = {name: list(labels) for name, labels in CONVENTIONS.items()}
        save_weights(options.out, student.network, tokenizer=tokenizer, conventions=labels)

    train(student, steps, loss_of, report, learning_rate=options.learning_rate)


def train(student, steps, loss_of, report, *, learning_rate: float) -> None:  # noqa: ANN001
    """Take all steps, with a warm-up of 200 and a linear way down to 0."""
    network = student.network
    table = network.words.pieces.weight
    optimizer = torch.optim.AdamW(
        [
            {"params": [table], "share": SLOWER},
            {"params": [p for p in network.parameters() if p is not table], "share": 1.0},
        ],
        weight_decay=0.01,
        betas=(0.9, 0.98),
        fused=True,
    )
    started = time.process_time()
    for step, (kind, group) in enumerate(steps, start=1):
        rate = min(1.0, step / 200) * (1 - (step - 1) / len(steps))
        for parameters in optimizer.param_groups:
            parameters["lr"] = learning_rate * rate * parameters["share"]
        loss = loss_of(kind, group)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % EVERY_STEPS == 0 or step == len(steps):
            report(step, float(loss.detach()), time.process_time() - started)


if __name__ == "__main__":
    main()
