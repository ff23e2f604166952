"""Corpus swap (Appendix C): Z is replaced, nothing is trained, and the prediction follows.

The model is tiny, and learns in half a minute what this needs and no more: to find the passage
that tells of a town and an office, and to copy a name out of a passage. It learns from sentences
whose names are drawn anew at every step, so that no parameter can hold who is mayor where: what it
says of a town, it has read.
"""

import copy
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from realm.answering import Answerer
from realm.checkpoint.checkpoints import checkpoint_folder, save_checkpoint
from realm.checkpoint.parts import Model
from realm.checkpoint.sources import write_sources
from realm.config import SplitConfig
from realm.corpus.split import split
from realm.corpus.store import PassageStore
from realm.explaining import Explainer
from realm.model.embedder import Towers, build_towers, embed_in_groups
from realm.model.encoder import Encoder, build_encoder
from realm.model.inputs import TokenSequence, pad
from realm.model.likelihood import correct_log_likelihood, inverse_cloze_loss
from realm.model.reader import Reader
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

OFFICES = ("mayor", "doctor", "baker", "teacher")
SYLLABLES = ("ba", "do", "fi", "gu", "ke", "lo", "mi", "na", "pu", "re", "si", "to")
TOWNS = [f"{a}{b}" for a in SYLLABLES[:6] for b in SYLLABLES[6:]][:32]
NAMES = [f"{a}{b}" for a in SYLLABLES[6:] for b in SYLLABLES][:48]
PASSAGES = (
    "the {office} of {town} is {name} .",
    "{name} is the {office} of {town} .",
    "in {town} they all know {name} the {office} .",
)
SENTENCE = "people in {town} say that the {office} is [MASK] ."
QUESTION = "who is the {office} of {town} ?"
WORDS = ("the", "of", "is", "in", "they", "all", "know", "people", "say", "that", "who", *".?[]")
SETTINGS = {
    "query_wordpieces": 32,
    "question_wordpieces": 32,
    "passage_wordpieces": 32,
    "joint_wordpieces": 64,
}
BATCH = 48


class Fact(NamedTuple):
    """Who holds an office in a town."""

    town: str
    office: str
    name: str

    def put(self, template: str) -> str:
        return template.format(**self._asdict())


def draw(rng: random.Random) -> list[Fact]:
    """Return facts with names that nothing decides."""
    places = rng.sample([(town, office) for town in TOWNS for office in OFFICES], BATCH)
    return [Fact(town, office, rng.choice(NAMES)) for town, office in places]


class Teacher:
    """Trains the three parts, each on what the paper's stages give it."""

    def __init__(self, tokenizer: WordpieceTokenizer) -> None:
        self.tokenizer = tokenizer
        self.rng = random.Random(0)  # noqa: S311 - draws no secret
        self.bert = {
            "vocab_size": tokenizer.vocab_size,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "max_position_embeddings": 64,
            "initializer_range": 0.1,
        }

    def query(self, text: str) -> list[int]:
        before, _, after = text.partition("[MASK]")
        ids = [*self.tokenizer.encode(before).ids]
        if after:
            ids += [self.tokenizer.mask_id, *self.tokenizer.encode(after).ids]
        return ids

    def body(self, fact: Fact) -> list[int]:
        return self.tokenizer.encode(fact.put(self.rng.choice(PASSAGES))).ids

    def towers(self) -> Towers:
        """Return towers that bring a sentence together with the passage of its town and office."""
        towers = build_towers(
            {"bert": self.bert, "projection_size": 32, "pooling": "mean", "share_towers": True}
        )
        towers.query.init_score_scale(16.0)

        def embed(tower: nn.Module, sequences: list[TokenSequence]) -> Tensor:
            return embed_in_groups(tower, sequences, pad_id=0, batch_tokens=4_096)

        def losses() -> Iterator[Tensor]:
            for step in range(140):
                facts = draw(self.rng)
                asked = SENTENCE if step % 2 else QUESTION
                queries = [self.tokenizer.query_input(self.query(f.put(asked)), 32) for f in facts]
                passages = [self.tokenizer.passage_input([], self.body(f), 32) for f in facts]
                scores = embed(towers.query, queries) @ embed(towers.passage, passages).T
                yield inverse_cloze_loss(scores, torch.arange(len(facts)))

        train(towers, losses())
        return towers

    def encoder(self) -> Encoder:
        """Return an encoder that copies a name out of a passage, and guesses without one."""
        encoder = build_encoder({"bert": self.bert})

        def losses() -> Iterator[Tensor]:
            for _ in range(160):
                facts = draw(self.rng)
                bodies = [self.body(fact) if n % 6 else [] for n, fact in enumerate(facts)]
                queries = [self.query(fact.put(SENTENCE)) for fact in facts]
                pairs = zip(queries, bodies, strict=True)
                inputs = pad([self.tokenizer.joint_input(q, b, 64) for q, b in pairs], 0)
                places = [query.index(self.tokenizer.mask_id) + 1 for query in queries]
                targets = [self.tokenizer.encode(fact.name).ids[0] for fact in facts]
                log_probs, _ = encoder.log_probs(
                    inputs, torch.arange(len(facts)), torch.tensor(places), torch.tensor(targets)
                )
                yield -log_probs.mean()

        train(encoder, losses())
        return encoder

    def reader(self, encoder: Encoder) -> Reader:
        """Return a reader, fine-tuned from the encoder, that points at a name in a passage."""
        reader = Reader(copy.deepcopy(encoder.bert), span_hidden=32, max_answer_wordpieces=2)

        def losses() -> Iterator[Tensor]:
            for _ in range(120):
                facts = draw(self.rng)
                bodies = [self.body(fact) for fact in facts]
                joint = [
                    self.tokenizer.joint_input(self.query(fact.put(QUESTION)), body, 64)
                    for fact, body in zip(facts, bodies, strict=True)
                ]
                inputs = pad(joint, 0)
                in_passage = (inputs.segments == 1) & (inputs.ids != self.tokenizer.sep_id)
                logits = reader(inputs, in_passage)
                right = torch.zeros_like(logits, dtype=torch.bool)
                names = torch.tensor([self.tokenizer.encode(fact.name).ids for fact in facts])
                right[:, :, 0] = (inputs.ids == names) & in_passage
                found = correct_log_likelihood(logits.flatten(1), right.flatten(1))
                yield -found.mean()

        train(reader, losses())
        return reader


def train(module: nn.Module, losses: Iterable[Tensor]) -> None:
    """Take a step for each loss."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for step, loss in enumerate(losses):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 20)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


Corpus = Callable[..., PassageStore]


@pytest.fixture(scope="module")
def tokenizer() -> WordpieceTokenizer:
    words = [*SPECIAL_TOKENS, *WORDS, *OFFICES, *TOWNS, *NAMES, "mask"]
    return WordpieceTokenizer.from_vocabulary(words)


@pytest.fixture(scope="module")
def make_corpus(tokenizer: WordpieceTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Split one passage for each fact."""

    def make(facts: Sequence[Fact]) -> PassageStore:
        folder = tmp_path_factory.mktemp("corpus")
        articles = [
            {"id": f"{f.town}-{f.office}", "text": f.put(PASSAGES[n % len(PASSAGES)])}
            for n, f in enumerate(facts)
        ]
        lines = "".join(json.dumps(article) + "\n" for article in articles)
        (folder / "articles.jsonl").write_text(lines, encoding="utf-8")
        config = SplitConfig(max_wordpieces=32)
        split([folder / "articles.jsonl"], folder / "Z", config=config, tokenizer=tokenizer)
        return PassageStore.open(folder / "Z")

    return make


@pytest.fixture(scope="module")
def facts() -> list[Fact]:
    """Return the facts of the old corpus; of the last town nothing is told."""
    rng = random.Random(7)  # noqa: S311 - draws no secret
    return [Fact(t, o, rng.choice(NAMES)) for t in TOWNS[:-1] for o in OFFICES]


@pytest.fixture(scope="module")
def old(make_corpus: Corpus, facts: list[Fact]) -> PassageStore:
    return make_corpus(facts)


@pytest.fixture(scope="module")
def runs(
    tokenizer: WordpieceTokenizer, old: PassageStore, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Return a pre-trained run and a fine-tuned one, as `pretrain` and `finetune` leave them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    teacher = Teacher(tokenizer)
    towers, encoder = teacher.towers(), teacher.encoder()
    reader = teacher.reader(encoder)
    folder = tmp_path_factory.mktemp("runs")
    parts = {
        "pretrain": Model(tokenizer=tokenizer, towers=towers, encoder=encoder),
        "qa": Model(tokenizer=tokenizer, towers=towers, reader=reader),
    }
    for name, model in parts.items():
        save_checkpoint(checkpoint_folder(folder / name, 1), model, settings=SETTINGS, inputs={})
        write_sources(folder / name, old)
    return {name: folder / name for name in parts}


def parameters(run: Path) -> str:
    files = sorted((run / "checkpoints").rglob("*.safetensors"))
    assert files
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def names_in(facts: Sequence[Fact], explainer: Explainer) -> list[str]:
    return [explainer.explain(fact.put(SENTENCE), num_candidates=5).predicted for fact in facts]


def test_the_model_reads_and_remembers_nothing(runs: dict[str, Path], facts: list[Fact]) -> None:
    """What the next tests rest on: right with retrieval, ignorant without."""
    explainer = Explainer.load(runs["pretrain"])
    asked = facts[::5]
    found = [explainer.explain(f.put(SENTENCE), answers=[f.name], num_candidates=5) for f in asked]
    right = sum(one.predicted == f.name for one, f in zip(found, asked, strict=True))
    assert right >= 0.9 * len(asked)
    assert max(one.p_without for one in found) < 0.2
    assert sum(one.predicted_without == f.name for one, f in zip(found, asked, strict=True)) <= 3


def test_a_changed_fact_changes_the_prediction_and_the_answer(
    runs: dict[str, Path], facts: list[Fact], make_corpus: Corpus
) -> None:
    """As "Jennifer ___ formed the production company Excellent Cadaver" with Z of 2018 and 2020."""
    before = {name: parameters(run) for name, run in runs.items()}
    changed = {n: Fact(f.town, f.office, other_name(f.name)) for n, f in enumerate(facts[::10])}
    new = list(facts)
    new[::10] = changed.values()
    swapped = make_corpus(new).folder
    then, now = (
        Explainer.load(runs["pretrain"], passages=passages) for passages in (None, swapped)
    )
    follows = 0
    for was, fact in zip(facts[::10], changed.values(), strict=True):
        text = fact.put(SENTENCE)
        old_then, new_then = (then.explain(text, answers=[n]) for n in (was.name, fact.name))
        old_now, new_now = (now.explain(text, answers=[n]) for n in (was.name, fact.name))
        assert new_now.p_without == pytest.approx(new_then.p_without, rel=1e-4)  # the same model
        follows += (
            old_then.predicted == was.name
            and new_now.predicted == fact.name
            and old_then.p_marginal > 0.5 > new_then.p_marginal
            and new_now.p_marginal > 0.5 > old_now.p_marginal
        )
    assert follows >= 0.9 * len(changed)

    answerers = [Answerer.load(runs["qa"], passages=passages) for passages in (None, swapped)]
    asked = [fact.put(QUESTION) for fact in changed.values()]
    was_said, is_said = (answerer.answer(asked) for answerer in answerers)
    old_names = [fact.name for fact in facts[::10]]
    new_names = [fact.name for fact in changed.values()]
    assert agreement(was_said, old_names) >= 0.9
    assert agreement(is_said, new_names) >= 0.9
    for said, fact in zip(is_said, changed.values(), strict=True):
        best = said.answers[0]
        if best.text == fact.name:
            assert best.passage.article_id == f"{fact.town}-{fact.office}"
    assert {name: parameters(run) for name, run in runs.items()} == before


def test_an_added_passage_tells_what_was_not_known(
    runs: dict[str, Path], facts: list[Fact], make_corpus: Corpus
) -> None:
    added = [Fact(TOWNS[-1], office, NAMES[5 * n + 3]) for n, office in enumerate(OFFICES)]
    grown = make_corpus([*facts, *added]).folder
    before = names_in(added, Explainer.load(runs["pretrain"]))
    assert sum(said == f.name for said, f in zip(before, added, strict=True)) <= 1
    after = names_in(added, Explainer.load(runs["pretrain"], passages=grown))
    assert sum(said == f.name for said, f in zip(after, added, strict=True)) >= 3
    asked = [fact.put(QUESTION) for fact in added]
    answered = Answerer.load(runs["qa"], passages=grown).answer(asked)
    assert agreement(answered, [fact.name for fact in added]) >= 0.75


def test_a_removed_passage_is_forgotten(
    runs: dict[str, Path], facts: list[Fact], make_corpus: Corpus
) -> None:
    asked = facts[3::20]
    kept = [fact for fact in facts if fact not in asked]
    explainer = Explainer.load(runs["pretrain"], passages=make_corpus(kept).folder)
    said = names_in(asked, explainer)
    assert sum(name == fact.name for name, fact in zip(said, asked, strict=True)) <= 2


def other_name(name: str) -> str:
    return NAMES[(NAMES.index(name) + 11) % len(NAMES)]


def agreement(answered: Sequence[object], names: Sequence[str]) -> float:
    said = [one.answers[0].text for one in answered]  # type: ignore[attr-defined]
    return sum(a == b for a, b in zip(said, names, strict=True)) / len(names)
