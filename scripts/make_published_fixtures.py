"""Write tests/exchange/published/: tiny checkpoints in the published layout, and what they answer.

REALM was published as Hugging Face checkpoints of six model classes, whose code left that library
with transformers 5. Our importer has to give the numbers which the old code gave. So this script
runs the old code: on models of some ten thousand random parameters, and on passages and questions
about an invented world. It is run by hand, in an environment of its own; the tests only read what
it wrote:

    python3 -m venv OLD
    OLD/bin/pip install torch==2.13.0 transformers==4.57.6 safetensors numpy
    OLD/bin/python scripts/make_published_fixtures.py

Every run on the same machine writes the same bytes. Each folder is a checkpoint and expected.npz.
Arrays with the names of the old code's arguments are inputs. Its outputs follow the arrow:

    embedder   input_ids attention_mask token_type_ids -> projected_score
               gradients of (projected_score * grad/w).sum()
    scorer_*   the same and candidate_* -> query_score candidate_score relevance_score
               gradients of (log_softmax(relevance_score) * grad/w).sum()
    encoder    joint inputs, relevance_score labels mlm_mask mask_positions
               -> logits (at mask_positions) gold_log_probs loss grad/relevance_score
               gradients of loss
    reader     inputs, block_mask relevance_score -> reader_logits (without relevance) prediction
               {A,B,C,D}/{start_positions end_positions has_answers} -> {losses reader_correct}
               gradients of A's loss, grad/relevance_score too
    openqa     q0, q1, ... as in questions.json: question_projection
               q*/{eval,train}/{retrieved_ids retrieved_logits input_ids attention_mask
               token_type_ids block_mask has_answers start_positions end_positions prediction
               predicted_answer_ids losses}; gradients of the loss of q0/train

`losses` is (loss, retriever_loss, reader_loss); `prediction` is (block_idx, candidate, start_pos,
end_pos). `f64/x` is `x` by the same weights after `.double()`. `grad/names` are all parameters,
`grad/norms` the L2 norms of their gradients, NaN for those that take no part. The formats of the
checkpoints differ on purpose, see `save_new` and `save_old`. README.md beside them says the same.
"""

import copy
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import (
    RealmConfig,
    RealmEmbedder,
    RealmForOpenQA,
    RealmKnowledgeAugEncoder,
    RealmReader,
    RealmRetriever,
    RealmScorer,
    RealmTokenizer,
)

TARGET = Path(__file__).parent.parent / "tests" / "exchange" / "published"
WANTED = "4.57.6"
SEED = 2055
GAP = 1e-3
"""Least distance between scores whose order decides a top-k or a span: far above rounding."""
MARGIN = 1e-4
"""Least change of an output that a wrong activation, epsilon, mask or segment has to cause."""
GRID = 256.0
"""Weights are multiples of 1/GRID: exact in float32, and small when compressed."""

PAD, UNUSED, UNK, CLS, SEP, MASK = 0, 1, 100, 101, 102, 103
SPECIALS = {PAD: "[PAD]", UNUSED: "[unused0]", UNK: "[UNK]", CLS: "[CLS]", SEP: "[SEP]"}
SPECIALS |= {MASK: "[MASK]"}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = (
    "the of a in is and was by to on with who what where river city king queen lake island moon "
    "tower old red salt bridge bird glass song under year north people built tovi arl ##er ##ing"
)
BLOCKS = (
    "Tovi is a city on the river Arl. The king of Tovi built a tower of red glass.",
    "The river Arl is old. People in the north sing a song to the river.",
    "Mist.",
    "The queen Imra built a bridge of salt. The bridge is under the moon.",
    "Sørholm is an island in the north. Who was king in Sørholm?",
    "The lake of salt is under the tower, and a red bird is on the lake.",
    "In the year 312 the old bridge was built by Éveline and the people of Tovi.",
    "A bird of glass is in the tower of the queen.",
    "The island of Kae is red. The king built a city on the island.",
    "The song of the moon: what is under the lake? The old city is under the lake, with a tower "
    "and a bridge and a river of salt. The queen and the king and the people of the north sing "
    "the song in the tower to the moon, to the red bird, to the lake and to the river Arl.",
    "The moon is a lake of glass.",
    "Arl was king. The king Arl was built of salt!",
    "People in Tovi sing on the bridge in the year of the red moon.",
    "The north of the island is old, with a river and a lake.",
    "Queen Imra was in the city in the year 47.",
    "The red tower (built in the year 312) is under the moon.",
    "Where is the bird? The bird is in the north, on the old tower.",
    "塔 Tovi is the tower of the people, and Tovi is the song.",
    "Salting the lake was the song of the king.",
    "The glasser built a glass river, a glass bird and a glass king in Tovi.",
)
QUESTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Who built the bridge of salt?", ("queen Imra", "the king")),
    ("Where is the red bird?", ("on the lake", "lake")),
    ("What is Sørholm?", ("an island", "island")),  # its name is not in the vocabulary
    ("Who was king in the year 99?", ("Zuzu",)),  # in no block
    ("What is under the moon?", ("The bridge", "bridge", "red tower")),  # overlapping, repeated
    (  # longer than the blocks, and cut like them
        "In the old city of Tovi, on the river and under the moon, what was built of glass by the "
        "people of the north?",
        ("a tower", "river"),
    ),
    (  # in a block that is read, but wider than a span
        "What is the tower of the people?",
        ("the king Arl was built", "Tovi"),
    ),
)

Arrays = dict[str, Any]
Batch = dict[str, torch.Tensor]


def main() -> None:
    """Write all folders and say how large they are."""
    require(transformers.__version__ == WANTED, f"transformers {transformers.__version__}")
    os.environ["TRUST_REMOTE_CODE"] = "True"  # the retriever unpickles block_records.npy
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for make in (embedder, scorer_shared, scorer_two_tower, encoder, reader, openqa):
        folder = TARGET / make.__name__
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        arrays = make(folder)
        np.savez_compressed(folder / "expected.npz", **{k: plain(v) for k, v in arrays.items()})
        size = sum(path.stat().st_size for path in folder.iterdir())
        sys.stdout.write(f"{make.__name__}: {len(arrays)} arrays, {size / 1024:.0f} KB\n")


def embedder(folder: Path) -> Arrays:
    """Text to vector; safetensors, tied keys left out."""
    rng = numbers(1)
    model = randomised(RealmEmbedder(config()), rng)
    save_new(model, folder)
    model = RealmEmbedder.from_pretrained(folder)
    batch = texts(rng, 4, 20)
    weights = torch.from_numpy(rng.normal(size=(4, 8)).astype(np.float32))

    def outputs(net: RealmEmbedder) -> tuple[Arrays, torch.Tensor]:
        score = net(**batch).projected_score
        return {"projected_score": score}, (score * weights.to(score.dtype)).sum()

    sensitive(model, lambda net: outputs(net)[0]["projected_score"])
    for name in ("attention_mask", "token_type_ids"):
        less = {key: value for key, value in batch.items() if key != name}
        far(model(**batch).projected_score, model(**less).projected_score, f"without {name}")
    return {**batch, "grad/w": weights, **computed(model, outputs)}


def scorer_shared(folder: Path) -> Arrays:
    """Relevance with one embedder for both sides; the pickle layout, both prefixes present."""
    rng = numbers(2)
    model = randomised(RealmScorer(config()), rng)
    save_old(model, folder)
    return scored(RealmScorer.from_pretrained(folder), rng)


def scorer_two_tower(folder: Path) -> Arrays:
    """Relevance with an embedder for each side; safetensors.

    The old `from_pretrained` without `query_embedder` makes one embedder and loads both into it.
    """
    rng = numbers(3)
    model = randomised(RealmScorer(config(), query_embedder=RealmEmbedder(config())), rng)
    save_new(model, folder)
    loaded = RealmScorer.from_pretrained(folder, query_embedder=RealmEmbedder(config()))
    for name, value in model.state_dict().items():
        require(torch.equal(loaded.state_dict()[name], value), f"{name} was not loaded")
    return scored(loaded, rng)


def scored(model: RealmScorer, rng: np.random.Generator) -> Arrays:
    """Return inputs and outputs of a scorer."""
    batch = texts(rng, 3, 12)
    rows = texts(rng, 9, 20)
    batch |= {f"candidate_{name}": value.view(3, 3, 20) for name, value in rows.items()}
    weights = torch.from_numpy(rng.normal(size=(3, 3)).astype(np.float32))

    def outputs(net: RealmScorer) -> tuple[Arrays, torch.Tensor]:
        out = net(**batch)
        loss = out.relevance_score.log_softmax(-1) * weights.to(out.relevance_score.dtype)
        return dict(out), loss.sum()

    return {**batch, "grad/w": weights, **computed(model, outputs)}


def encoder(folder: Path) -> Arrays:
    """Masked query and candidate to words; safetensors without the tied output matrix."""
    rng = numbers(4)
    model = randomised(RealmKnowledgeAugEncoder(config()), rng)
    save_new(model, folder)
    model = RealmKnowledgeAugEncoder.from_pretrained(folder)
    batch, labels = joint(rng)
    positions = (labels != -100).nonzero()[:, 1].view(2, 3)
    relevance = torch.from_numpy(rng.normal(size=(2, 3)).astype(np.float32) * 2)
    gold = labels.gather(1, positions)[:, None, :, None].expand(2, 3, 3, 1)

    def outputs(net: RealmKnowledgeAugEncoder) -> tuple[Arrays, torch.Tensor]:
        score = relevance.to(net.dtype).requires_grad_()
        out = net(
            **batch,
            relevance_score=score,
            labels=labels.clamp(min=0),
            mlm_mask=(labels != -100).float(),
        )
        rows = out.logits.view(2, 3, labels.shape[1], -1)
        logits = rows.gather(2, positions[:, None, :, None].expand(2, 3, 3, rows.shape[-1]))
        log_probs = logits.log_softmax(-1).gather(-1, gold).squeeze(-1)
        (slope,) = torch.autograd.grad(out.loss, score, retain_graph=True)
        told = {"logits": logits, "gold_log_probs": log_probs, "loss": out.loss}
        return {**told, "grad/relevance_score": slope}, out.loss

    sensitive(model, lambda net: outputs(net)[0]["logits"])
    found = computed(model, outputs)
    del found["f64/logits"]  # large; f64/gold_log_probs is as good
    mask = (labels != -100).float()
    extra = {"relevance_score": relevance, "labels": labels, "mlm_mask": mask}
    return {**batch, **extra, "mask_positions": positions, **found}


def reader(folder: Path) -> Arrays:
    """Question and blocks to a span; the pickle layout."""
    rng = numbers(5)
    model = randomised(RealmReader(config()), rng)
    save_old(model, folder)
    model = RealmReader.from_pretrained(folder)
    rows, blocks = pairs(rng, 5, 28)
    batch = {name: value[:3] for name, value in rows.items()}
    relevance = torch.from_numpy(np.sort(rng.normal(size=5).astype(np.float32))[::-1].copy())
    cases = labelled(blocks)

    def outputs(net: RealmReader) -> tuple[Arrays, torch.Tensor]:
        told, first = {}, None
        score = relevance.to(net.dtype).requires_grad_()
        hidden = net.realm(**batch)[0]
        told["reader_logits"] = net.qa_outputs(hidden, blocks[:3])[0]
        for case, labels in cases.items():
            out = net(**batch, block_mask=blocks, relevance_score=score, **labels)
            told |= {f"{case}/losses": losses(out), f"{case}/reader_correct": out.reader_correct}
            told["prediction"] = prediction(out)
            first = out.loss if first is None else first
        (told["grad/relevance_score"],) = torch.autograd.grad(first, score, retain_graph=True)
        return told, first

    sensitive(model, lambda net: visible(outputs(net)[0]["reader_logits"]))
    other = changed(model, reader_layer_norm_eps=1e-12)
    logits = [visible(outputs(net)[0]["reader_logits"]) for net in (model, other)]
    far(*logits, "another reader_layer_norm_eps")
    found = computed(model, outputs)
    spread(found["reader_logits"] + relevance[:3, None], 2, "reader: spans")
    told = [found[f"{case}/losses"] for case in "ABCD"]
    require(bool((told[0] > 0).all()), "A: both losses are wanted")
    require(told[1][2] == 0 < told[1][1], "B: only a retriever's loss is wanted")
    require(not told[2].any(), "C: no loss is wanted")
    require(told[3][2] == 0 < told[3][1], "D: spans wider than the widest have no reader's loss")
    flat = {f"{case}/{name}": value for case, one in cases.items() for name, value in one.items()}
    return {**batch, "block_mask": blocks, "relevance_score": relevance, **flat, **found}


def openqa(folder: Path) -> Arrays:
    """Question to answer; the pickle layout with records, vocabulary and an old setting."""
    model = randomised(RealmForOpenQA(config(), None), numbers(6))
    write_vocabulary(folder)
    np.save(folder / "block_records.npy", np.array([b.encode() for b in BLOCKS], dtype=object))
    RealmTokenizer(str(folder / "vocab.txt")).save_pretrained(scratch := tempfile.mkdtemp())
    shutil.copy(Path(scratch) / "tokenizer_config.json", folder)
    shutil.rmtree(scratch)
    write_json(folder / "config.json", model.config.to_diff_dict())  # names the tokenizer's class
    retriever = RealmRetriever.from_pretrained(folder)
    tokenizer = retriever.tokenizer
    cut = {"max_length": model.config.reader_seq_len, "truncation": True, "padding": True}
    with torch.no_grad():
        encoded = tokenizer(list(BLOCKS), return_tensors="pt", **cut)
        model.block_emb.copy_(model.embedder(**encoded).projected_score)
    save_old(model, folder, searcher_seq_len=64)
    loaded = RealmForOpenQA.from_pretrained(folder, retriever=retriever)
    require(torch.equal(model.block_emb, loaded.block_emb), "block_emb was not loaded")

    arrays: Arrays = {}
    told: list[dict[str, Any]] = []
    for number, (question, answers) in enumerate(QUESTIONS):
        inputs = tokenizer([question], return_tensors="pt")
        ids = tokenizer(list(answers), add_special_tokens=False).input_ids
        found = answered(loaded, inputs, ids)
        if number:  # gradients of one question are enough
            found = {name: value for name, value in found.items() if "grad/" not in name}
        arrays |= {f"q{number}/{name}": value for name, value in found.items()}
        predicted = found["eval/predicted_answer_ids"].tolist()
        told.append(
            {
                "question": question,
                "question_ids": inputs.input_ids[0].tolist(),
                "question_as_read": tokenizer.decode(inputs.input_ids[0], skip_special_tokens=True),
                "answers": list(answers),
                "answer_ids": ids,
                "predicted_answer_ids": predicted,
                "predicted_answer": tokenizer.decode(predicted),
            }
        )
    write_json(folder / "questions.json", told)
    telling(arrays, told)
    return arrays


def answered(model: RealmForOpenQA, inputs: Batch, answer_ids: list[list[int]]) -> Arrays:
    """Return what the model computes for a question in both modes, checked against its parts."""
    told: Arrays = {}
    for mode in ("eval", "train"):
        model.train(mode == "train")

        def outputs(net: RealmForOpenQA) -> tuple[Arrays, torch.Tensor]:
            asked = net.embedder(**inputs).projected_score
            scores = (net.block_emb @ asked[0]).topk(net.searcher_beam_size)
            out = net(**inputs, answer_ids=answer_ids).reader_output
            found = {"retrieved_logits": scores.values, "losses": losses(out)}
            return {**found, "question_projection": asked}, out.loss

        found = computed(model, outputs)
        for name in ("question_projection", "f64/question_projection"):
            told[name] = found.pop(name)
        told |= {f"{mode}/{name}": value for name, value in found.items()}
        told |= {f"{mode}/{name}": value for name, value in read(model, inputs, answer_ids).items()}
    same = torch.equal(told["eval/predicted_answer_ids"], told["train/predicted_answer_ids"])
    require(same, "the answer depends on the mode")
    evaluated = [name for name in told if name.startswith("eval/") and "grad/" in name]
    return {name: value for name, value in told.items() if name not in evaluated}


@torch.no_grad()
def read(model: RealmForOpenQA, inputs: Batch, answer_ids: list[list[int]]) -> Arrays:
    """Return what the retriever hands to the reader, and what is read from it."""
    given: Arrays = {}
    hook = model.reader.register_forward_pre_hook(
        lambda _module, _given, named: given.update(named), with_kwargs=True
    )
    out = model(**inputs, answer_ids=answer_ids)
    hook.remove()
    alone = model(**inputs)
    same = torch.equal(alone.predicted_answer_ids, out.predicted_answer_ids)
    require(same, "the answer depends on the labels")

    asked = model.embedder(**inputs).projected_score
    beam = model.searcher_beam_size
    scores, ids = (model.block_emb @ asked[0]).sort(descending=True)
    spread(scores[: beam + 1], beam + 1, "openqa: blocks")
    joined = model.retriever(
        ids[:beam], inputs["input_ids"], answer_ids, max_length=model.config.reader_seq_len
    )[-1]
    rows = {name: joined[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    for name, value in rows.items():
        require(torch.equal(value[:3], given[name]), f"{name} of the reader differ")
    hidden = model.reader.realm(**{name: value[:3] for name, value in rows.items()})[0]
    logits = model.reader.qa_outputs(hidden, given["block_mask"][:3])[0]
    spread(logits + given["relevance_score"][:3, None], 2, "openqa: spans")

    labels = {name: given[name] for name in ("has_answers", "start_positions", "end_positions")}
    return {
        "retrieved_ids": ids[:beam],
        **rows,
        "block_mask": given["block_mask"],
        **labels,
        "prediction": prediction(out.reader_output),
        "predicted_answer_ids": out.predicted_answer_ids,
    }


def telling(arrays: Arrays, told: list[dict[str, Any]]) -> None:
    """See that the questions show the cases for which they were written."""
    found = torch.stack([arrays[f"q{n}/train/losses"] for n in range(len(told))])
    retrieved, spans = (found[:, 1] > 0).tolist(), (found[:, 2] > 0).tolist()
    sys.stdout.write(f"losses of training:\n{found}\n")
    sys.stdout.write("".join(f"{t['question']} {t['predicted_answer']}\n" for t in told))
    require(retrieved[0] and spans[0], "q0: both losses are wanted, for the gradients")
    require(UNK in told[2]["question_ids"], "q2: an unknown word is wanted")
    require(not retrieved[3] and not spans[3], "q3: no loss is wanted")
    cut = [row[-1] == SEP for row in arrays["q5/eval/input_ids"].tolist()]
    require(len(arrays["q5/eval/input_ids"][0]) == 40 and all(cut), "q5: it has to be cut")
    require(arrays["q4/train/start_positions"].shape[1] > 2, "q4: several matches are wanted")
    wide = (arrays["q6/eval/end_positions"] - arrays["q6/eval/start_positions"]).max() >= 4
    require(bool(wide) and not spans[6], "q6: a match that no span covers is wanted")
    longest = max(range(len(BLOCKS)), key=lambda block: len(BLOCKS[block]))
    blocks = torch.cat([arrays[f"q{n}/eval/retrieved_ids"] for n in (0, 1, 2, 3, 4, 6)])
    require(longest in blocks.tolist(), "a block is wanted that is cut to its question's room")
    only = [r and not s for r, s in zip(retrieved, spans, strict=True)]
    require(any(only), "a question is wanted whose answer only unread blocks have")


def config() -> RealmConfig:
    """Return the smallest model that still has two of everything; the rest is as published."""
    return RealmConfig(
        vocab_size=len(vocabulary()),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        retriever_proj_size=8,
        num_candidates=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        span_hidden_size=12,
        max_span_width=4,
        reader_beam_size=3,
        reader_seq_len=40,
        searcher_beam_size=5,
        num_block_records=len(BLOCKS),
    )


def numbers(folder: int) -> np.random.Generator:
    """Return the random numbers of a folder."""
    return np.random.default_rng([SEED, folder])


@torch.no_grad()
def randomised(model: Any, rng: np.random.Generator) -> Any:  # noqa: ANN401 - any of the classes
    """Fill a model with weights of which each matters; layer norms see small variances too."""
    for name, parameter in model.named_parameters():
        norm = "LayerNorm" in name or "layer_normalization" in name
        small = 0.15 if "embeddings" in name else 0.05 if "cls.dense" in name else None
        std = 0.3 if norm else small or (0.3 if name.endswith("bias") else 0.4)
        values = rng.normal(size=parameter.shape) * std + (norm and name.endswith("weight"))
        parameter.copy_(torch.from_numpy((values * GRID).round() / GRID))
    return model.eval()


def texts(rng: np.random.Generator, rows: int, length: int) -> Batch:
    """Return random pieces in two segments, padded."""
    ids = pieces(rng, rows, length)
    mask, segments = torch.zeros_like(ids), torch.zeros_like(ids)
    for row in range(rows):
        end = length if row == 0 else int(rng.integers(length // 2, length))
        mask[row, :end] = 1
        segments[row, int(rng.integers(3, end)) : end] = 1
        ids[row, 0], ids[row, end - 1], ids[row, end:] = CLS, SEP, PAD
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}


def pairs(rng: np.random.Generator, rows: int, length: int) -> tuple[Batch, torch.Tensor]:
    """Return `[CLS] question [SEP] block [SEP]` with a question of five pieces, and block masks."""
    ids = pieces(rng, rows, length)
    ids[:, :6] = ids[0, :6]
    ids[:, 0], ids[:, 6] = CLS, SEP
    mask, segments = torch.zeros_like(ids), torch.zeros_like(ids)
    blocks = torch.zeros_like(ids, dtype=torch.bool)
    for row in range(rows):
        end = length if row == 0 else int(rng.integers(18, length))
        mask[row, :end], segments[row, 7:end], blocks[row, 7 : end - 1] = 1, 1, True
        ids[row, end - 1], ids[row, end:] = SEP, PAD
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}, blocks


def joint(rng: np.random.Generator) -> tuple[Batch, torch.Tensor]:
    """Return `[CLS] masked query [SEP] passage [SEP]` and labels; the last passage is empty."""
    length = 24
    rows, _ = pairs(rng, 6, length)
    batch = {name: value.view(2, 3, length) for name, value in rows.items()}
    labels = torch.full((2, length), -100)
    for row, masked in enumerate(([1, 2, 5], [3, 4, 5])):
        query = pieces(rng, 1, 5)[0]
        batch["input_ids"][row, :, 1:6] = query
        batch["input_ids"][row, :, masked] = MASK
        labels[row, masked] = query[[position - 1 for position in masked]]
        batch["input_ids"][row, -1, 7], batch["input_ids"][row, -1, 8:] = SEP, PAD
        for name in ("attention_mask", "token_type_ids"):
            batch[name][row, -1, 8:] = 0
    return batch, labels


def pieces(rng: np.random.Generator, rows: int, length: int) -> torch.Tensor:
    """Return random ids of ordinary pieces."""
    usual = [number for number in range(len(vocabulary())) if number not in SPECIALS]
    return torch.from_numpy(rng.choice(usual, size=(rows, length)))


def labelled(blocks: torch.Tensor) -> dict[str, Batch]:
    """Return four cases of labels for five blocks of which the reader reads three."""
    cases = {
        "A": {0: [(9, 9)], 2: [(8, 10), (12, 13)], 4: [(9, 12)]},  # read and unread blocks
        "B": {3: [(8, 9)], 4: [(10, 10), (12, 12)]},  # unread blocks only
        "C": {},  # nowhere
        "D": {1: [(8, 13)]},  # wider than the reader's spans
    }
    told = {}
    for case, spans in cases.items():
        bounds = torch.full((2, len(blocks), 2), -1)
        for row, found in spans.items():
            for column, span in enumerate(found):
                require(bool(blocks[row, list(span)].all()), f"{case}: {span} is outside the block")
                bounds[:, row, column] = torch.tensor(span)
        has = torch.tensor([row in spans for row in range(len(blocks))])
        told[case] = {
            "start_positions": bounds[0],
            "end_positions": bounds[1],
            "has_answers": has,
        }
    return told


def computed(model: Any, outputs: Callable[..., tuple[Arrays, torch.Tensor]]) -> Arrays:  # noqa: ANN401
    """Return outputs and gradient norms in float32 and float64, which have to agree."""
    arrays: Arrays = {}
    for net, prefix in ((model, ""), (copy.deepcopy(model).double(), "f64/")):
        told, loss = outputs(net)
        names, norms = slopes(net, loss)
        arrays |= {} if prefix else {"grad/names": names}
        arrays[f"{prefix}grad/norms"] = norms
        real = {name: value for name, value in told.items() if value.is_floating_point()}
        arrays |= {f"{prefix}{name}": value for name, value in (real if prefix else told).items()}
    for name, value in arrays.items():
        if (exact := arrays.get(f"f64/{name}")) is not None:
            scale = max(1.0, float(np.nanmax(np.abs(visible(plain(exact))))))
            off = np.abs(visible(plain(value)) - visible(plain(exact)))
            require(float(np.nanmax(off)) < 2e-5 * scale, f"{name} depends on the precision")
    return arrays


def slopes(model: Any, loss: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:  # noqa: ANN401
    """Return the names of all parameters and the norms of their gradients."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    norms = [float("nan") if slope is None else slope.double().norm().item() for slope in found]
    return np.array(names), np.array(norms)


def sensitive(model: Any, output: Callable[[Any], torch.Tensor]) -> None:  # noqa: ANN401
    """See that an output tells another activation or epsilon from the published one."""
    for change in ({"hidden_act": "gelu"}, {"layer_norm_eps": 1e-5}):
        far(output(model), output(changed(model, **change)), str(change))


def changed(model: Any, **changes: object) -> Any:  # noqa: ANN401 - any of the classes
    """Return the same weights under other settings."""
    other = type(model)(RealmConfig(**{**model.config.to_dict(), **changes}))
    other.load_state_dict(model.state_dict())
    return other.eval()


def far(one: torch.Tensor, other: torch.Tensor, what: str) -> None:
    """See that a mistake shows."""
    distance = (one - other).abs().max().item()
    sys.stdout.write(f"  {what}: {distance:.1e}\n")
    require(distance > MARGIN, f"{what} changes only {distance}")


def spread(scores: torch.Tensor, best: int, what: str) -> None:
    """See that the order of the best scores is no matter of rounding."""
    top = scores.detach().flatten().sort(descending=True).values[:best]
    require(bool((top.diff() < -GAP).all()), f"{what} are too close: {top.tolist()}")


def visible(values: Any) -> Any:  # noqa: ANN401 - tensor or array
    """Return the scores without those of impossible spans, which are the lowest of their type."""
    return values[values > -1e30] if values.ndim else values


def losses(out: Any) -> torch.Tensor:  # noqa: ANN401 - the reader's output
    """Return loss, retriever's and reader's."""
    return torch.stack([out.loss, out.retriever_loss, out.reader_loss]).detach()


def prediction(out: Any) -> torch.Tensor:  # noqa: ANN401 - the reader's output
    """Return block, candidate, start and end."""
    return torch.stack([out.block_idx, out.candidate, out.start_pos[0], out.end_pos[0]])


def vocabulary() -> list[str]:
    """Return the wordpieces: specials where BERT has them, the rest around."""
    digits = [str(digit) for digit in range(10)]
    single = [*LETTERS, *digits]
    rest = [*single, *(f"##{piece}" for piece in single), *".,?!:()", *WORDS.split()]
    ordinary = iter(dict.fromkeys(rest))
    size = len(dict.fromkeys(rest)) + len(SPECIALS)
    return [SPECIALS.get(number) or next(ordinary) for number in range(size)]


def write_vocabulary(folder: Path) -> None:
    """Write vocab.txt with line ends as in the published files: CR LF."""
    text = "".join(f"{piece}\r\n" for piece in vocabulary())
    (folder / "vocab.txt").write_bytes(text.encode())


def save_new(model: Any, folder: Path) -> None:  # noqa: ANN401 - any of the classes
    """Save as the last release did: safetensors, of tied keys only the first."""
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def save_old(model: Any, folder: Path, **settings: object) -> None:  # noqa: ANN401
    """Save as the uploads of 2021 and 2022: a pickle with all tied keys and position ids."""
    state = model.state_dict()
    for name in [name for name in state if name.endswith(".position_embeddings.weight")]:
        key = name.replace("position_embeddings.weight", "position_ids")
        state[key] = torch.arange(len(state[name])).unsqueeze(0)
    torch.save(state, folder / "pytorch_model.bin")
    told = {**model.config.to_diff_dict(), **settings, "architectures": [type(model).__name__]}
    told.pop("dtype", None)  # a newer name
    write_json(folder / "config.json", dict(sorted({**told, "torch_dtype": "float32"}.items())))


def write_json(path: Path, content: object) -> None:
    """Write readable JSON."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def plain(value: Any) -> np.ndarray:  # noqa: ANN401 - tensor or array
    """Return a NumPy array."""
    return value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def require(holds: bool, what: str) -> None:  # noqa: FBT001 - reads like assert
    """Stop where the fixtures would not show what they are for."""
    if not holds:
        raise SystemExit(f"make_published_fixtures: {what}")


if __name__ == "__main__":
    main()
