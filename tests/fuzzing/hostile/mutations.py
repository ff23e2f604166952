"""What inputs are changed by: pieces that break readers, put into seeds."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

PIECES: tuple[bytes, ...] = (
    b"\0",
    b"\xff",
    b"\xc3",  # half a letter
    b"\xed\xa0\x80",  # half a surrogate pair in UTF-8
    b"\\ud800",  # and as JSON and TOML write it
    b"\\u0000",
    b"\\",
    b'"',
    b"'",
    b"\n",
    b"\r",
    b"\t",
    b"\x1b[31m",
    b"\xef\xbb\xbf",
    "\u2028".encode(),
    "\u202eabc\u202c".encode(),
    "\u0635\u0641\u062d\u0629".encode(),
    "e\u0301".encode(),
    "\U0001f469\u200d\U0001f467".encode(),
    "\u1112\u1161\u11ab \u0130 \u00df \ufb01".encode(),
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-1",
    b"0",
    b"true",
    b"null",
    b"{}",
    b"[]",
    b'""',
    b"9" * 5_000,
    b"18446744073709551616",
    b"[" * 3_000,
    b'{"a":' * 3_000,
    b"{{" * 400,
    b"<a>" * 2_000,
    b"[[" * 400,
    b"(" * 500,
    b"a" * 4_000,
    b'"id": 1, "id": "x", ',
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
    b"&b;&#0;&#xD800;&lt;",
    b"../../etc/passwd",
)
"""Nesting, huge numbers, duplicate keys, entities, bytes that are no text, letters of all kinds."""


TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*"|-?\d[\d.eE+-]*|\b(?:true|false|null)\b|\[\]|\{\}')
"""A value of JSON or TOML, or a key."""
VALUES: tuple[bytes, ...] = (
    *(b'""', b'"x"', b'"\\ud800"', b'"\\u0000"', b'"../x"', b'"' + b"a" * 300 + b'"'),
    '"e\u0301 \U0001f469\u200d\U0001f467 \u202e\u05e9"'.encode(),
    *(b"0", b"-1", b"1", b"0.5", b"1e999", b"NaN", b"-Infinity", b"9" * 18, b"9" * 400, b"1e400"),
    *(
        b"true",
        b"null",
        b"[]",
        b"{}",
        b"[[]]",
        b'{"a": 1}',
        b"[1, 2]",
        b'["x"]',
        b"[" * 80 + b"]" * 80,
    ),
)
"""What stands in the place of another value, so that a file is still JSON, or TOML."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Some bytes in the place of others."""

    place: float
    """From 0 (the beginning) to 1 (the end)."""
    num_removed: int
    added: bytes


def edited(data: bytes, edits: Sequence[Edit]) -> bytes:
    """Return an input with some places changed, one after the other."""
    for edit in edits:
        at = round(edit.place * len(data))
        data = data[:at] + edit.added + data[at + edit.num_removed :]
    return data


def random_input(rng: random.Random, seeds: Sequence[bytes], max_bytes: int) -> bytes:
    """Return a seed with a few random changes."""
    data = rng.choice(seeds)
    if rng.random() < 0.1:
        data += rng.choice(seeds)
    if rng.random() < 0.5:
        return _swapped(rng, data)[:max_bytes]
    edits: list[Edit] = []
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        added = rng.choice((b"", rng.choice(PIECES), rng.randbytes(rng.randint(1, 8))))
        removed = rng.choice((0, 0, 1, 2, len(added), rng.randint(0, 64)))
        edits.append(Edit(rng.random(), removed, added))
    return edited(data, edits)[:max_bytes]


def _swapped(rng: random.Random, data: bytes) -> bytes:
    """Return an input with some of its values in the place of others, or of hostile ones."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        tokens = list(TOKEN.finditer(data))
        if not tokens:
            return data
        chosen = rng.choice(tokens)
        value = rng.choice(VALUES) if rng.random() < 0.8 else rng.choice(tokens).group()
        data = data[: chosen.start()] + value + data[chosen.end() :]
    return data
