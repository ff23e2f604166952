"""Wordpieces with character offsets, and the joined inputs of BERT."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import normalizers, pre_tokenizers
from tokenizers.models import WordPiece

from realm.errors import ConfigError
from realm.storage import read_json, unreadable

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_VOCABULARY = 1 << 22
"""Eight times the largest BERT's; one number in a file is to take no memory without end."""
NORMALISATION = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
"""What of a tokenizer_config.json decides the wordpieces, with the old tokenizer's defaults."""


class Wordpieces(NamedTuple):
    """A text as wordpieces, without [CLS] and [SEP]."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    """Characters (start, end) of each wordpiece in the text."""


class WordpieceTokenizer:
    """BERT's tokenizer, from a `tokenizer.json` or a `vocab.txt`."""

    def __init__(self, fast: FastTokenizer) -> None:
        fast.no_truncation()
        fast.no_padding()
        fast.encode_special_tokens = True  # "[MASK]" in a text is text
        self._fast = fast
        found = {token: fast.token_to_id(token) for token in SPECIAL_TOKENS}
        ids = [number for number in found.values() if number is not None]
        if missing := [token for token, number in found.items() if number is None]:
            raise ConfigError(f"tokenizer lacks {missing}; expected a BERT vocabulary")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = ids
        self.vocab_size = 1 + max(fast.get_vocab().values())
        """Rows that an embedding of all ids has: also of ids that stand for no wordpiece."""
        if self.vocab_size > MAX_VOCABULARY:
            raise ConfigError(
                f"found the wordpiece id {self.vocab_size - 1:,}, expected fewer than "
                f"{MAX_VOCABULARY:,} wordpieces"
            )

    @classmethod
    def load(cls, path: Path) -> "WordpieceTokenizer":
        """Read `tokenizer.json`, `vocab.txt`, or a folder that holds one of them.

        Of a vocab.txt, a tokenizer_config.json beside it decides upper case, accents and Chinese
        characters; without one, or where it does not say, they are those of BERT's uncased models.

        Raises:
            ConfigError: there is neither, or the file is damaged.
            DamagedError: the tokenizer_config.json is.
            UnreadableError: one cannot be read.
        """
        if path.is_dir():
            found = [path / n for n in ("tokenizer.json", "vocab.txt") if (path / n).is_file()]
            if not found:
                raise ConfigError(f"{path} has no tokenizer.json or vocab.txt; expected one")
            path = found[0]
        if not path.is_file():
            raise ConfigError(f"found no tokenizer at {path}")
        if path.suffix == ".txt":
            return cls.from_vocabulary(read_vocabulary(path), **_normalisation(path.parent))
        content = _content(path)
        try:
            return cls(FastTokenizer.from_buffer(content))
        except Exception as error:  # the library raises bare Exception
            raise ConfigError(f"{path} is not a tokenizer.json: {error}") from error

    @classmethod
    def from_vocabulary(
        cls,
        tokens: Sequence[str],
        *,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        split_chinese: bool = True,
    ) -> "WordpieceTokenizer":
        """Build BERT's tokenizer from a list of wordpieces (`##` marks continuations).

        Args:
            tokens: the vocabulary; the place of a wordpiece is its id.
            lowercase: as BERT's uncased models.
            strip_accents: None: as `lowercase`.
            split_chinese: each Chinese character is a word.

        Raises:
            ConfigError: a wordpiece stands twice, or a special token is missing.
        """
        vocabulary = {token: number for number, token in enumerate(tokens)}
        if len(vocabulary) < len(tokens):
            twice = next(token for n, token in enumerate(tokens) if vocabulary[token] != n)
            raise ConfigError(f"found the wordpiece {twice!r} twice; expected each once")
        fast = FastTokenizer(WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
        fast.normalizer = normalizers.BertNormalizer(
            lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=split_chinese
        )
        fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        present = [token for token in SPECIAL_TOKENS if token in vocabulary]
        fast.add_special_tokens(present)
        return cls(fast)

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`."""
        # Not its own `save`: on a full disk that raises a bare Exception.
        path.write_text(self.as_json(), encoding="utf-8")

    def as_json(self) -> str:
        """Return what stands in `tokenizer.json`."""
        return self._fast.to_str(pretty=False)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the wordpieces."""
        return hashlib.sha256(self._fast.to_str().encode()).hexdigest()

    def vocabulary(self) -> list[str]:
        """Return the wordpieces in the order of their ids: the lines of a vocab.txt.

        Raises:
            ConfigError: an id stands for no wordpiece, so that no vocab.txt can hold them.
        """
        by_id = {number: token for token, number in self._fast.get_vocab().items()}
        missing = next((n for n in range(self.vocab_size) if n not in by_id), None)
        if missing is not None:
            raise ConfigError(f"the tokenizer has no wordpiece {missing}; expected one for each id")
        return [by_id[number] for number in range(self.vocab_size)]

    @property
    def normalisation(self) -> dict[str, bool | None]:
        """How texts are changed before they are cut, as `from_vocabulary` takes it.

        Raises:
            ConfigError: not BERT's normaliser.
        """
        told: dict[str, Any] = json.loads(self._fast.to_str())["normalizer"] or {}
        if told.get("type") != "BertNormalizer":
            raise ConfigError(
                f"the tokenizer normalises by {told.get('type')}, expected BERT's way"
            )
        return {
            "lowercase": told["lowercase"],
            "strip_accents": told["strip_accents"],
            "split_chinese": told["handle_chinese_chars"],
        }

    def encode(self, text: str) -> Wordpieces:
        """Return the wordpieces of `text`; special tokens written in it stay ordinary text."""
        encoding = self._fast.encode(_encodable(text), add_special_tokens=False)
        return Wordpieces(encoding.ids, encoding.offsets)

    def encode_batch(self, texts: Sequence[str]) -> list[Wordpieces]:
        """Return the wordpieces of many texts, in parallel threads."""
        whole = [_encodable(text) for text in texts]
        encodings = self._fast.encode_batch(whole, add_special_tokens=False)
        return [Wordpieces(encoding.ids, encoding.offsets) for encoding in encodings]

    def encode_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return only the ids of many texts: twice as fast as `encode_batch`."""
        whole = [_encodable(text) for text in texts]
        encodings = self._fast.encode_batch_fast(whole, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    @property
    def splits_at_spaces(self) -> bool:
        """Whether texts joined by a space have the wordpieces of each, one after the other.

        True of BERT's own normaliser and pre-tokenizer; anything else is not taken for granted.
        """
        added = self._fast.get_added_tokens_decoder().values()
        return (
            isinstance(self._fast.normalizer, normalizers.BertNormalizer)
            and isinstance(self._fast.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
            and all(token.special for token in added)
        )

    def token(self, number: int) -> str:
        """Return the wordpiece with this id."""
        return self._fast.id_to_token(number) or "[UNK]"

    def decode(self, ids: Sequence[int]) -> str:
        """Return wordpieces joined for display; never used for answers."""
        words: list[str] = []
        for number in ids:
            token = self.token(number)
            if token.startswith("##") and words:
                words[-1] += token[2:]
            else:
                words.append(token)
        return " ".join(words)

    def passage_input(
        self, title: Sequence[int], body: Sequence[int], max_length: int
    ) -> tuple[list[int], list[int]]:
        """Return ([CLS] title [SEP] body [SEP], segment ids): Embed_doc's input (section 3.2).

        The title is cut first, at max_length - 3; the body gets the rest. The null passage is
        the empty title and body.
        """
        title = title[: max_length - 3]
        body = body[: max_length - 3 - len(title)]
        ids = [self.cls_id, *title, self.sep_id, *body, self.sep_id]
        return ids, [0] * (len(title) + 2) + [1] * (len(body) + 1)

    def query_input(self, query: Sequence[int], max_length: int) -> tuple[list[int], list[int]]:
        """Return ([CLS] query [SEP], segment ids): Embed_input's input (section 3.2)."""
        ids = [self.cls_id, *query[: max_length - 2], self.sep_id]
        return ids, [0] * len(ids)

    def joint_input(
        self, query: Sequence[int], body: Sequence[int], max_length: int
    ) -> tuple[list[int], list[int]]:
        """Return ([CLS] query [SEP] body [SEP], segment ids): what encoder and reader read.

        The query keeps priority; the body is cut. No title, as in the released code.
        """
        query = query[: max_length - 3]
        body = body[: max_length - 3 - len(query)]
        ids = [self.cls_id, *query, self.sep_id, *body, self.sep_id]
        return ids, [0] * (len(query) + 2) + [1] * (len(body) + 1)


def _encodable(text: str) -> str:
    """Return the text with half surrogate pairs (undecodable bytes of a command line) replaced.

    Character for character, so that offsets stay true.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text)
    return text


def _normalisation(folder: Path) -> dict[str, Any]:
    """Return how the texts of a vocab.txt are changed, as `from_vocabulary` takes it."""
    told: dict[str, Any] = dict(NORMALISATION)
    if (settings := folder / "tokenizer_config.json").is_file():
        told |= read_json(settings)
    for name, usual in NORMALISATION.items():
        if not (isinstance(told[name], bool) or (usual is None and told[name] is None)):
            raise ConfigError(f"{settings}: found {name} = {told[name]!r}, expected true or false")
    return {
        "lowercase": told["do_lower_case"],
        "strip_accents": told["strip_accents"],
        "split_chinese": told["tokenize_chinese_chars"],
    }


def read_vocabulary(path: Path) -> list[str]:
    """Return the lines of a vocab.txt; a line separator other than a newline is a wordpiece.

    Lines may end as on Windows, as in the published open-QA checkpoints.

    Raises:
        ConfigError: the file is no text.
        UnreadableError: it is missing or cannot be read.
    """
    try:
        lines = _content(path).decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a vocab.txt: {error}") from None
    return [line.removesuffix("\r") for line in lines]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
