"""Fine-tune MiniLM on the annotated sentences, then let it tag plain ones: the silver data.

python reproductions/tagger/teacher.py NER_FOLDER OUT --plain ARTICLES.jsonl.gz ...
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from batching import batches, gold_batches, padded, tell
from data import CONVENTIONS, CROSSNER, Sentence, plain_sentences, read_annotated, tags_of
from data import training_sets as read_sets
from scoring import Score, score, spans_of
from torch import Tensor, nn
from transformers import BertModel

from realm.checkpoint.folders import load_tokenizer
from realm.checkpoint.pretrained import load_pretrained
from realm.config import EncoderConfig
from realm.masking.trained.features import SHAPES, cut_words, shape_of
from realm.tokenizer import WordpieceTokenizer

TAUGHT = ("wiki", "web")
"""Conventions that the teacher learns; WNUT17 is not the aim, and the teacher takes most time."""
LEARNING_RATE = 3e-4
EPOCHS = 2
WORDPIECES = 1_200
"""Of a batch, with the padding."""
SILVER_WORDS = 600_000
NAMELESS = 0.25
"""Share of the sentences without a name that an epoch sees: they are many and teach little."""
LONGEST = 500
"""Wordpieces of a sentence; MiniLM has places for 512."""


class Encoded:
    """A sentence as wordpieces, with the shape of the word that each belongs to."""

    def __init__(self, text: str, tokenizer: WordpieceTokenizer) -> None:
        words = [text[start:end] for start, end in cut_words(text)][:200]
        self.ids, self.shapes, self.first = [tokenizer.cls_id], [0], list[int]()
        for word, pieces in zip(words, tokenizer.encode_ids(words), strict=True):
            self.first.append(min(len(self.ids), LONGEST - 1))
            ids = pieces[:12] or [tokenizer.unk_id]
            self.ids += ids
            self.shapes += [SHAPES.index(shape_of(word))] * len(ids)
        self.ids = [*self.ids, tokenizer.sep_id][:LONGEST]
        self.shapes = [*self.shapes, 0][:LONGEST]


class Teacher(nn.Module):
    """MiniLM over wordpieces, with the spelling of each word added: its vocabulary has no case."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert
        bert.embeddings.word_embeddings.weight.requires_grad_(requires_grad=False)
        for module in bert.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # two epochs do not overfit, and random numbers take time
        width = bert.config.hidden_size
        self.shapes = nn.Embedding(len(SHAPES), width)
        nn.init.zeros_(self.shapes.weight)
        self.dropout = nn.Dropout(0.1)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(width, 1 + 2 * len(CONVENTIONS[name])) for name in TAUGHT}
        )

    def forward(self, sentences: Sequence[Encoded]) -> Tensor:
        """Return [sentences, words, width]: of each word the vector of its first wordpiece."""
        ids = padded([sentence.ids for sentence in sentences])
        shapes = padded([sentence.shapes for sentence in sentences])
        first = padded([sentence.first for sentence in sentences])
        with torch.autocast("cpu", torch.bfloat16):
            embedded = self.bert.embeddings.word_embeddings(ids) + self.shapes(shapes)
            found = self.bert(inputs_embeds=embedded, attention_mask=(ids > 0).long())
        hidden = found.last_hidden_state.float()
        index = first[..., None].expand(-1, -1, hidden.shape[-1])
        return self.dropout(hidden.gather(1, index))


@torch.no_grad()
def evaluate(
    teacher: Teacher, sentences: Sequence[Sentence], tokenizer: WordpieceTokenizer
) -> Score:
    """Return the score on sentences of one convention (EWT: PER, LOC, ORG only)."""
    teacher.eval()
    encoded = [Encoded(sentence.text, tokenizer) for sentence in sentences]
    name = sentences[0].convention
    found: list[list[tuple[int, int, str]]] = [[] for _ in sentences]
    for group in batches([len(e.ids) for e in encoded], words=4096, rng=None):
        tags = teacher.heads[name](teacher([encoded[i] for i in group])).argmax(-1)
        for row, i in zip(tags.tolist(), group, strict=True):
            words = cut_words(sentences[i].text)[: len(encoded[i].first)]
            found[i] = spans_of(words, row[: len(words)], CONVENTIONS[name])
    teacher.train()
    return score(sentences, found, {"PER", "LOC", "ORG"} if name == "web" else None)


def train(teacher: Teacher, ner: Path, tokenizer: WordpieceTokenizer, epochs: int) -> None:
    """Train on what `training_sets` says; the sets that select are told, nothing stops early."""
    rng = random.Random(0)  # noqa: S311
    gold, held = read_sets(ner, TAUGHT)
    encoded = [Encoded(sentence.text, tokenizer) for sentence in gold]
    tags = [tags_of(s)[: len(e.first)] for s, e in zip(gold, encoded, strict=True)]
    lengths = [len(e.ids) for e in encoded]
    steps: list[tuple[str, list[int]]] = []
    for _ in range(epochs):
        epoch = gold_batches(gold, tags, lengths, words=WORDPIECES, nameless=NAMELESS, rng=rng)
        rng.shuffle(epoch)
        steps += epoch
    trained = [p for p in teacher.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.dim() > 1], "weight_decay": 0.01},
            {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
        ],
        fused=True,
    )
    started, total = time.process_time(), 0.0
    for step, (convention, group) in enumerate(steps):
        rate = min(1.0, (step + 1) / (0.1 * len(steps))) * (1 - step / len(steps))
        for parameters in optimizer.param_groups:
            parameters["lr"] = LEARNING_RATE * rate
        logits = teacher.heads[convention](teacher([encoded[i] for i in group]))
        target = padded([tags[i] for i in group], -100)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
        optimizer.step()
        total += float(loss.detach())
        if (step + 1) % 50 == 0:
            tell(step=step + 1, of=len(steps), loss=total / 50, cpu_s=time.process_time() - started)
            total = 0.0
    tell(**{name: evaluate(teacher, part, tokenizer).f1 for name, part in held.items()})


@torch.no_grad()
def tag_plain(teacher: Teacher, tokenizer: WordpieceTokenizer, texts: list[str], out: Path) -> None:
    """Write the sentences and the log-probabilities of all tags: silver.jsonl, silver.npy."""
    teacher.eval()
    encoded = [Encoded(text, tokenizer) for text in texts]
    rows: list[np.ndarray] = [np.zeros(0)] * len(texts)
    for group in batches([len(e.ids) for e in encoded], words=4096, rng=None):
        hidden = teacher([encoded[i] for i in group])
        scores = torch.cat([head(hidden).log_softmax(-1) for head in teacher.heads.values()], -1)
        for row, i in zip(scores.half().numpy(), group, strict=True):
            rows[i] = row[: len(encoded[i].first)]
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    (out / "silver.jsonl").write_text(lines, encoding="utf-8")
    np.save(out / "silver.npy", np.concatenate(rows))


def main() -> None:
    """Train, tell the score on the test sets, tag."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ner", type=Path, help="folder of annotated sentences")
    parser.add_argument("out", type=Path, help="folder for the silver data")
    parser.add_argument("--plain", type=Path, nargs="+", required=True, help="articles to tag")
    parser.add_argument("--silver-words", type=int, default=SILVER_WORDS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = load_tokenizer("minilm")
    teacher = Teacher(load_pretrained(EncoderConfig(init="minilm"), tokenizer=tokenizer).build())
    train(teacher, options.ner, tokenizer, options.epochs)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("uner_en_ewt", *(f"crossner_{domain}" for domain in CROSSNER)):
        tell(**{name: evaluate(teacher, read_annotated(options.ner, f"{name}.test"), tokenizer).f1})
    texts = list(plain_sentences(options.plain, words=options.silver_words, seed=0))
    tag_plain(teacher, tokenizer, texts, options.out)


if __name__ == "__main__":
    main()
