"""An exported retriever is read by the package itself and gives the vectors of our towers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from realm.checkpoint.parts import Model
from realm.errors import ConfigError
from realm.exchange.sentence_transformers import write_sentence_transformers
from realm.model.embedder import Embedder, Towers, embed_in_groups
from realm.model.inputs import TokenSequence
from realm.tokenizer import WordpieceTokenizer

QUERY_WORDPIECES, PASSAGE_WORDPIECES = 40, 64
QUERIES = [
    "Where was Fermat born?",
    "theory",
    "",
    "Who was Noëther, the 学者 of Erlangen, Ünal?",
    "a [MASK] and a [SEP], as text",
]
PASSAGES = [
    ("Fermat of Toulouse", "Fermat was born in the year 1607 near the old harbour of Toulouse."),
    ("", "A passage without a title."),
    ("", ""),
    ("Gauss", ""),
    ("Élie 学者", "naïve 🙂 [CLS] \u0000 Кантор, in the year 1845"),
]
MakeTowers = Callable[..., Towers]


@pytest.fixture
def make_model(make_towers: MakeTowers, tokenizer: WordpieceTokenizer) -> Callable[..., Model]:
    """Build a retriever whose biases are not 0 and whose layer norm's epsilon counts."""

    def make(*, share: bool = True, pooling: str = "mean", eps: float = 1e-3) -> Model:
        towers = make_towers(share=share, pooling=pooling)
        for tower in (towers.query,) if share else (towers.query, towers.passage):
            tower.norm.eps = eps
            with torch.no_grad():
                for value in tower.parameters():
                    value.add_(0.1 * torch.randn_like(value))
                tower.projection.weight.mul_(0.005)
                tower.projection.bias.mul_(0.005)
        return Model(tokenizer=tokenizer, towers=towers)

    return make


def write(model: Model, folder: Path, **lengths: int) -> Path:
    folder.mkdir(exist_ok=True)
    known = {"query_wordpieces": QUERY_WORDPIECES, "passage_wordpieces": PASSAGE_WORDPIECES}
    write_sentence_transformers(model, folder, **(known | lengths))
    return folder


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def export(model: Model, folder: Path, **lengths: int) -> SentenceTransformer:
    return load(write(model, folder, **lengths))


def query_inputs(tokenizer: WordpieceTokenizer, texts: Sequence[str]) -> list[TokenSequence]:
    return [tokenizer.query_input(ids, QUERY_WORDPIECES) for ids in tokenizer.encode_ids(texts)]


def passage_inputs(
    tokenizer: WordpieceTokenizer, passages: Sequence[tuple[str, str]]
) -> list[TokenSequence]:
    titles, bodies = (tokenizer.encode_ids(texts) for texts in zip(*passages, strict=True))
    pairs = zip(titles, bodies, strict=True)
    return [tokenizer.passage_input(title, body, PASSAGE_WORDPIECES) for title, body in pairs]


@torch.no_grad()
def embed(tower: Embedder, inputs: Sequence[TokenSequence], model: Model) -> Tensor:
    return embed_in_groups(tower, inputs, pad_id=model.tokenizer.pad_id, batch_tokens=4_096)


def read(found: SentenceTransformer, texts: Sequence[Any], task: str) -> list[TokenSequence]:
    """Return what the package's tokenizer makes of texts, without the padding."""
    features = found.preprocess(list(texts), task=task)
    return [
        (ids[: sum(mask)], segments[: sum(mask)])
        for ids, segments, mask in zip(
            features["input_ids"].tolist(),
            features["token_type_ids"].tolist(),
            features["attention_mask"].tolist(),
            strict=True,
        )
    ]


def assert_equal(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("eps", [1e-3, 1e-12])
@pytest.mark.parametrize("share", [True, False], ids=["shared", "untied"])
@pytest.mark.parametrize("pooling", ["mean", "pooler"])
def test_vectors_and_scores_are_those_of_our_towers(
    tmp_path: Path, make_model: Callable[..., Model], *, pooling: str, share: bool, eps: float
) -> None:
    model = make_model(share=share, pooling=pooling, eps=eps)
    towers = model.need_towers()
    found = export(model, tmp_path)
    queries = embed(towers.query, query_inputs(model.tokenizer, QUERIES), model)
    passages = embed(towers.passage, passage_inputs(model.tokenizer, PASSAGES), model)
    assert queries.std(dim=0).mean() > 0.01
    assert passages.std(dim=0).mean() > 0.01

    theirs = found.encode_query(QUERIES, convert_to_tensor=True)
    assert_equal(theirs, queries)
    pairs = found.encode_document(PASSAGES, convert_to_tensor=True)
    assert_equal(pairs, passages)
    assert found.similarity_fn_name == "dot"
    torch.testing.assert_close(found.similarity(theirs, pairs), queries @ passages.T)
    plain = found.encode(PASSAGES, batch_size=2, convert_to_tensor=True)
    assert_equal(plain, passages)
    if share:
        assert_equal(found.encode(QUERIES, convert_to_tensor=True), queries)
    else:
        crossed = embed(towers.passage, query_inputs(model.tokenizer, QUERIES), model)
        assert not torch.allclose(theirs, crossed, atol=0.01)


@pytest.mark.parametrize("eps", [1e-3, 1e-12])
def test_the_epsilon_of_the_layer_norm_is_kept(
    tmp_path: Path, make_model: Callable[..., Model], eps: float
) -> None:
    """The package's own is 1e-5: with it, these vectors would be others."""
    model = make_model(eps=eps)
    found = export(model, tmp_path).encode_query(QUERIES, convert_to_tensor=True)
    tower, inputs = model.need_towers().query, query_inputs(model.tokenizer, QUERIES)
    assert_equal(found, embed(tower, inputs, model))
    tower.norm.eps = 1e-5
    assert not torch.allclose(found, embed(tower, inputs, model), atol=1e-3)


@pytest.mark.parametrize("share", [True, False], ids=["shared", "untied"])
def test_their_tokenizer_reads_the_same_wordpieces(
    tmp_path: Path, make_model: Callable[..., Model], *, share: bool
) -> None:
    model = make_model(share=share)
    tokenizer = model.tokenizer
    found = export(model, tmp_path)
    expected = query_inputs(tokenizer, QUERIES)
    assert read(found, QUERIES, "query") == expected
    assert any(tokenizer.unk_id in ids for ids, _ in expected)
    expected = passage_inputs(tokenizer, PASSAGES)
    assert read(found, PASSAGES, "document") == expected
    assert (
        read(found, [list(pair) for pair in PASSAGES], "document") == expected
    )  # as JSON has them
    assert expected[1][0][:2] == [tokenizer.cls_id, tokenizer.sep_id]
    assert found.tokenizer.pad_token_id == tokenizer.pad_id
    assert found.tokenizer.mask_token_id == tokenizer.mask_id


@pytest.mark.parametrize("share", [True, False], ids=["shared", "untied"])
def test_long_texts_are_cut_where_ours_are_but_for_long_titles(
    tmp_path: Path, make_model: Callable[..., Model], *, share: bool
) -> None:
    model = make_model(share=share)
    tokenizer = model.tokenizer
    found = export(model, tmp_path)
    long = "theory " * 200
    assert read(found, [long], "query") == query_inputs(tokenizer, [long])
    half = "harbour " * ((PASSAGE_WORDPIECES - 3) // 2)
    passages = [("Fermat of Toulouse", long), ("", long), (half, long)]
    expected = passage_inputs(tokenizer, passages)
    assert read(found, passages, "document") == expected
    assert {len(ids) for ids, _ in expected} == {PASSAGE_WORDPIECES}
    passages = [(half + "harbour harbour", long)]
    assert read(found, passages, "document") != passage_inputs(tokenizer, passages)


@pytest.mark.parametrize("share", [True, False], ids=["shared", "untied"])
def test_the_files_are_those_that_the_package_itself_writes(
    tmp_path: Path, make_model: Callable[..., Model], *, share: bool
) -> None:
    folder = write(make_model(share=share, pooling="pooler"), tmp_path / "ours")
    load(folder).save(str(tmp_path / "theirs"))
    ours, theirs = (
        {str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*.*")}
        for name in ("ours", "theirs")
    )
    assert ours == theirs
    assert {Path(name).suffix for name in ours} == {".json", ".safetensors", ".md"}
    for name in sorted(ours):
        if not name.endswith(".json") or "tokenizer" in name:
            continue
        found, expected = (
            json.loads((tmp_path / kind / name).read_text(encoding="utf-8"))
            for kind in ("ours", "theirs")
        )
        if name == "config_sentence_transformers.json":
            assert found.pop("requirements") == {"sentence-transformers": ">=6"}
        if isinstance(found, dict):  # theirs tell defaults and versions too
            expected = {key: expected[key] for key in found}
        assert found == expected, name


def test_the_card_says_how_texts_are_given(
    tmp_path: Path, make_model: Callable[..., Model]
) -> None:
    card = (write(make_model(), tmp_path) / "README.md").read_text(encoding="utf-8")
    for told in ("encode_query([", "encode_document([(", "inner", "40 wordpieces", "64 wordpieces"):
        assert told in card
    assert "{" not in card


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        ({"query_wordpieces": 129}, "found query_wordpieces 129; expected 3 to 128"),
        ({"passage_wordpieces": 500}, "found passage_wordpieces 500; expected 3 to 128"),
        ({"query_wordpieces": 2}, "found query_wordpieces 2"),
    ],
)
def test_lengths_beyond_the_embedder_are_told(
    tmp_path: Path, make_model: Callable[..., Model], lengths: dict[str, int], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        write(make_model(), tmp_path, **lengths)
    assert not any(tmp_path.iterdir())


def test_what_the_package_cannot_compute_is_told(
    tmp_path: Path, make_model: Callable[..., Model], tokenizer: WordpieceTokenizer
) -> None:
    with pytest.raises(ConfigError, match=r"found norm_eps 0\.0 in the query tower"):
        write(make_model(eps=0.0), tmp_path)
    with pytest.raises(ConfigError, match="has no embedder"):
        write(Model(tokenizer=tokenizer), tmp_path)
    assert not any(tmp_path.iterdir())
