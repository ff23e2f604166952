"""The retriever as a model of the package sentence-transformers 6, in that package's own files.

modules.json, config_sentence_transformers.json, README.md
config.json, model.safetensors, tokenizer.json, ...    BERT, at the top when the towers are shared
1_Pooling, 2_Dense, 3_LayerNorm                        its projection and norm
router_config.json, query_N_*, document_N_*            instead, when the towers are untied

The package itself is not needed to write them. Its layer norm has a fixed epsilon; the projection
is scaled so that the result is the same function of the text.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.processors import BertProcessing
from torch import Tensor, nn

from realm.checkpoint.parts import Model
from realm.errors import ConfigError
from realm.model.bert import bert_settings
from realm.model.embedder import Embedder
from realm.storage import write_plain_json
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

THEIR_NORM_EPS = 1e-5
"""Of the package's module LayerNorm: torch's default, not configurable (as of 6.2.0)."""
CLASSES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Router": "sentence_transformers.base.modules.router.Router",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
}
TANH = "torch.nn.modules.activation.Tanh"
IDENTITY = "torch.nn.modules.linear.Identity"
MIN_WORDPIECES = 3
"""[CLS] and both [SEP]."""
WHOLE = {
    "model_type": "SentenceTransformer",
    "requirements": {"sentence-transformers": ">=6"},
    "prompts": {"query": "", "document": ""},
    "default_prompt_name": None,
    "similarity_fn_name": "dot",
}
TRANSFORMER = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
ROUTER = {"default_route": "document", "allow_empty_key": True, "route_mappings": {}}
CARD = """\
---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, feature-extraction, REALM]
---

# REALM retriever

Embeds questions and passages as vectors of width {dim}; the score of a passage is its **inner
product** with the question, without normalisation to unit length. Written by
`realm export RUN --to sentence-transformers`.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")  # sentence-transformers 6 or newer
queries = model.encode_query(["Where was Fermat born?"])
passages = model.encode_document([("Pierre de Fermat", "Fermat was born in ..."), ("", "...")])
scores = model.similarity(queries, passages)  # inner products
```

- A question is one text, `[CLS] question [SEP]`; at most {query_wordpieces} wordpieces are read.
- A passage is a pair (title, body), `[CLS] title [SEP] body [SEP]`, with an empty title where there
  is none. Give a list of pairs, also for one: a pair alone is taken for two texts. At most
  {passage_wordpieces} wordpieces are read. The end of the body is cut, as `realm` does it; a title
  longer than half of them is cut too, where `realm` keeps it.
- {towers}
- No prompts. Special tokens written in a text, such as "[MASK]", are read as text.
- Parameters are in 32 bits; to save memory use bfloat16, as float16 may overflow before the norm.
"""
SHARED_CARD = "Questions and passages go through the same parameters."
UNTIED_CARD = (
    "Questions and passages go through different parameters: use `encode_query` and\n"
    "  `encode_document`; `encode` alone takes a text for a passage."
)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One module after BERT: its config.json and its model.safetensors."""

    kind: str
    settings: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


def write_sentence_transformers(
    model: Model, folder: Path, *, query_wordpieces: int, passage_wordpieces: int
) -> None:
    """Write the towers and the tokenizer so that `SentenceTransformer(folder)` gives equal vectors.

    Args:
        model: the run's; only its towers and its tokenizer are taken.
        folder: an existing folder.
        query_wordpieces: longest query, [CLS] and [SEP] included.
        passage_wordpieces: longest passage, title, [CLS] and both [SEP] included.

    Raises:
        ConfigError: there are no towers, they do not reach so far, or their layer norm has no
            epsilon.
        OSError: a file cannot be written.
    """
    towers = model.need_towers()
    _check("query", towers.query, query_wordpieces)
    _check("passage", towers.passage, passage_wordpieces)
    if towers.shared:
        types = _write_tower(towers.passage, folder, prefix="", bert_in_root=True)
        _write_tokenizer(
            model.tokenizer, folder, max_length=passage_wordpieces, query_length=query_wordpieces
        )
    else:
        query = _write_tower(towers.query, folder, prefix="query_")
        passage = _write_tower(towers.passage, folder, prefix="document_")
        for place, max_length in (
            (next(iter(query)), query_wordpieces),
            (next(iter(passage)), passage_wordpieces),
        ):
            _write_tokenizer(model.tokenizer, folder / place, max_length=max_length)
        router = {
            "types": query | passage,
            "structure": {"query": list(query), "document": list(passage)},
            "parameters": ROUTER,
        }
        write_plain_json(folder / "router_config.json", router)
        types = {"": CLASSES["Router"]}
    modules = [
        {"idx": number, "name": str(number), "path": place, "type": kind}
        for number, (place, kind) in enumerate(types.items())
    ]
    write_plain_json(folder / "modules.json", modules)
    write_plain_json(folder / "config_sentence_transformers.json", WHOLE)
    card = CARD.format(
        dim=towers.passage.dim,
        query_wordpieces=query_wordpieces,
        passage_wordpieces=passage_wordpieces,
        towers=SHARED_CARD if towers.shared else UNTIED_CARD,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _check(name: str, tower: Embedder, wordpieces: int) -> None:
    """Raise ConfigError where the package could not compute what the tower computes."""
    if not MIN_WORDPIECES <= wordpieces <= tower.max_length:
        raise ConfigError(
            f"found {name}_wordpieces {wordpieces}; expected {MIN_WORDPIECES} to "
            f"{tower.max_length}, as far as this embedder's positions reach"
        )
    if not tower.norm.eps > 0:
        raise ConfigError(
            f"found norm_eps {tower.norm.eps} in the {name} tower; expected more than 0: the layer "
            f"norm of sentence-transformers has {THEIR_NORM_EPS}, and no scale of the projection "
            "makes up for that. Export another run"
        )


def _write_tower(
    tower: Embedder, folder: Path, *, prefix: str, bert_in_root: bool = False
) -> dict[str, str]:
    """Write all modules of a tower but its tokenizer; return the class of each by its folder."""
    types: dict[str, str] = {}
    for number, part in enumerate([_bert(tower), *_head(tower)]):
        place = "" if bert_in_root and number == 0 else f"{prefix}{number}_{part.kind}"
        (folder / place).mkdir(exist_ok=True)
        write_plain_json(folder / place / "config.json", part.settings)
        if part.tensors:
            _write_tensors(part.tensors, folder / place / "model.safetensors")
        types[place] = CLASSES[part.kind]
    return types


def _bert(tower: Embedder) -> _Part:
    settings = {"architectures": ["BertModel"], "model_type": "bert", "dtype": "float32"}
    return _Part(
        kind="Transformer",
        settings=settings | bert_settings(tower.bert),
        tensors=dict(tower.bert.state_dict()),
    )


def _head(tower: Embedder) -> list[_Part]:
    """Return what follows BERT: LayerNorm(W pool(text) + b), scaled for their epsilon."""
    width = int(tower.bert.config.hidden_size)
    pooling = {"embedding_dimension": width, "include_prompt": True}
    scale = tower.projection_scale(THEIR_NORM_EPS)
    projection = _dense(tower.projection, IDENTITY, scale=scale)
    norm: dict[str, Tensor] = {"norm.weight": tower.norm.weight, "norm.bias": tower.norm.bias}
    last = [projection, _Part(kind="LayerNorm", settings={"dimension": tower.dim}, tensors=norm)]
    if tower.pooling == "mean":
        return [_Part(kind="Pooling", settings={**pooling, "pooling_mode": "mean"}), *last]
    # BERT's own pooler as a module: read from BERT it would be wrong where flash attention joins
    # the texts of a batch.
    pooler = cast("nn.Linear", cast("nn.Module", tower.bert.pooler).dense)
    first = _Part(kind="Pooling", settings={**pooling, "pooling_mode": "cls"})
    return [first, _dense(pooler, TANH), *last]


def _dense(linear: nn.Linear, activation: str, *, scale: float = 1.0) -> _Part:
    settings = {
        "in_features": linear.in_features,
        "out_features": linear.out_features,
        "bias": True,
        "activation_function": activation,
        "module_input_name": "sentence_embedding",
        "module_output_name": "sentence_embedding",
    }
    tensors = {
        "linear.weight": linear.weight.double() * scale,
        "linear.bias": linear.bias.double() * scale,
    }
    return _Part(kind="Dense", settings=settings, tensors=tensors)


def _write_tokenizer(
    tokenizer: WordpieceTokenizer, folder: Path, *, max_length: int, query_length: int | None = None
) -> None:
    """Write the tokenizer with BERT's special tokens around texts and pairs, and the lengths."""
    fast = FastTokenizer.from_str(tokenizer.as_json())
    fast.post_processor = BertProcessing(("[SEP]", tokenizer.sep_id), ("[CLS]", tokenizer.cls_id))
    told = fast.to_str(pretty=False)
    (folder / "tokenizer.json").write_text(told, encoding="utf-8")
    special = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS}
    settings = {
        **special,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "model_max_length": max_length,
        "padding_side": "right",
        "truncation_side": "right",
        "split_special_tokens": True,  # "[MASK]" in a text is text
        "clean_up_tokenization_spaces": False,
    }
    write_plain_json(folder / "tokenizer_config.json", settings)
    lengths = {} if query_length is None else {"query_length": query_length}
    write_plain_json(folder / "sentence_bert_config.json", TRANSFORMER | lengths)


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    whole = {name: value.detach().float().cpu().contiguous() for name, value in tensors.items()}
    try:
        save_file(whole, path, metadata={"format": "pt"})
    except SafetensorError as error:  # what the library makes of a full disk
        raise OSError(str(error)) from error
