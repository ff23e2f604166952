"""Whatever is read, nothing but our own errors comes out, in bounded time and memory.

A few inputs for each target, the same every time; `tests/fuzzing/run.py` tries for as long as it is
told to.
"""

import gzip
import json

import pytest
import torch
from hostile.catalogue import TARGETS
from hostile.folders import CALIBRATED
from hostile.mutations import PIECES, Edit, edited
from hostile.target import Target, attack
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

NUM_EXAMPLES = 50
EDITS = st.lists(
    st.builds(
        Edit,
        place=st.floats(0, 1),
        num_removed=st.integers(0, 40),
        added=st.sampled_from(PIECES)
        | st.binary(max_size=6)
        | st.text(max_size=4).map(lambda text: text.encode(errors="surrogatepass")),
    ),
    min_size=1,
    max_size=4,
)


# starlette lets a form that ends within a file to the collector, who closes it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", TARGETS)
def test_an_input_is_taken_or_refused(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    assert sum(attack(target, seed) for seed in seeds) >= len(seeds) / 2, "few seeds are right"

    @settings(
        max_examples=NUM_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.sampled_from(seeds), edits=EDITS)
    def try_one(seed: bytes, edits: list[Edit]) -> None:
        attack(target, edited(seed, edits)[: target.max_bytes])

    try_one()


def _packed(tensors: str) -> bytes:
    return save({"a": torch.zeros(2)}, {"format": "1", "tensors": tensors})


LONG = b"x" * (1 << 20)
BY_HAND: dict[str, tuple[bytes, ...]] = {
    "articles": (
        b'{"text": "' + LONG + b'"}',
        b'{"text": "a\\u0000b"}',
        b'{"id": "\\udfff", "text": "a"}',
        b'{"text": "a", "' + LONG + b'": 1}',
        b"\0" * 4_096,
    ),
    "article-files": (b"\1" + gzip.compress(b'{"text": "a"}\n' * 999, mtime=0)[:-9], b"\2BZh9"),
    "dump": (
        b"<mediawiki><page>" + b"<a>" * 300_000,
        b"<mediawiki><page>" + b"".join(b"<a%d/>" % n for n in range(50_000)),
        b"<mediawiki><page><id>1</id><revision><text>a &amp;#xD800; b</text></revision></page>"
        b"</mediawiki>",
        b"<!DOCTYPE m [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><mediawiki>&b;</mediawiki>",
    ),
    "wikitext": (b"&#xD800; &#0; &#xdfff;", b"[[a|" * 5_000, b"'" * 50_000),
    "split": (LONG, "e\u0301".encode() * 20_000, "\u65e5".encode() * 20_000),
    "questions": (b'{"question": "' + LONG + b'"}', b'{"question": "a", "answers": ["\\ud800"]}'),
    "sentences": (
        b'{"sentence": "a [MASK]", "answer": "\\udfff"}',
        b'{"sentence": "\\ud800 [MASK]", "answer": "a"}',
    ),
    "pretagged": (
        b'{"id": "\\ud800", "spans": []}',
        b'{"id": "12#0", "spans": [[0, ' + b"9" * 5_000 + b', "A"]]}',
        b'{"id": "12#0", "spans": ' + b"[" * 100_000,
    ),
    "config": (
        b"a = " + b"[" * 50_000,
        b"[split]\nmax_wordpieces = " + b"9" * 5_000,
        b'[split]\nlanguage = "' + LONG + b'"',
        b"a.b.c.d.e.f.g = 1\n" * 100,
        b"\xff",
    ),
    "override": (b"steps=" + b"9" * 5_000, b"steps=" + b"[" * 50_000, b"\xff=1", b"a" * 60_000),
    "study": (
        b"[rows.a]\nlabel = " + b"[" * 50_000,
        b"rows = 3",
        b"[study]\ncompare = [[1, 2, 3]]",
    ),
    "run": (
        b"\0" + b"[" * 100_000,
        b"\0" + json.dumps({"kind": "run", "settings": {"steps": "x"}}).encode(),
        b"\0" + json.dumps({"kind": "run", "settings": {}, "inputs": [1]}).encode(),
        b"\1" + json.dumps({"kind": "run", "settings": {"steps": 1e400}}).encode(),
        b"\2" + b'{"step": 3, "loss": ' + b"9" * 400 + b"}\n",
        b"\2" + b'{"step": ' + b"9" * 400 + b"}\n{" + b'"a":{' * 90_000,
        b"\2" + b'{"step": true, "loss": NaN}\n{"step": 1, "loss": Infinity}\n',
    ),
    "calibration": (
        json.dumps({**CALIBRATED.as_json(), "num_passages": 1e400}).encode(),
        json.dumps({**CALIBRATED.as_json(), "min_probability": 10**400}).encode(),
        b"{" + b'"a":{' * 90_000,
    ),
    "library-head": (
        b'{"kind": "library", "format_version": 1, "version": Infinity}',
        b'{"kind": "library", "format_version": 1, "version": 1, "model": "", "made_with": {}, '
        b'"segments": [{"name": "../x", "removed": []}]}',
    ),
    "sources": (b"{}", b'{"passages": "' + b"a" * 5_000 + b'"}', b'{"passages": "a\\u0000b"}'),
    "checkpoint": (
        b'\0{"embedder": {"bert": {"vocab_size": 1, "hidden_size": 1, "hidden_act": 0}}}',
        b"\0{}",
        b'\0{"embedder": 3}',
        b'\0{"x": {"bert": {}}}',
        b'\3{"step": "x"}',
    ),
    "manifest": (
        b'{"format_version": 1, "kind": "passages", "settings": 3}',
        b'{"format_version": 1, "kind": "passages", "x": ' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"format_version": "' + b"9" * 50_000 + b'"}',
    ),
    "alignment": (b"{\n", b"[" * 50_000, b"3\n", b'{"a": ' + b"9" * 5_000 + b"}"),
    "report": (
        b'{"kind": "report", "questions": [3]}',
        b'{"kind": "' + b"a" * 50_000 + b'"}',
    ),
    "machine": (b'{"rates": ' + b"[" * 50_000, b'{"rates": {"a": ' + b"9" * 400 + b"}}"),
    "packed": (
        _packed("[]"),
        _packed('{"a": ["b"]}'),
        _packed("[" * 50_000),
        _packed('{"a": "z"}'),
    ),
    "weights": (
        b"\0" + b"\xff" * 8,
        b"\0" + (1 << 40).to_bytes(8, "little") + b"{}",
        b'\2{"weight_map": {"a": "../x.safetensors"}}',
        b'\2{"weight_map": {"a": "' + b"a" * 5_000 + b'.bin"}}',
    ),
    "http-ask": (
        b'\0{"\\ud800": 1}',
        b'\0{"question": "\\ud800"}',
        b"\0" + b"[" * 50_000,
        b'\0{"question": "a", "num_answers": ' + b"9" * 5_000 + b"}",
        b'\0{"question": "a", "min_probability": NaN}',
        b'\0{"' + b"a" * 50_000 + b'": 1}',
        b'\0{"question": "a", "question": "b"}',
        b"\0\xff\xfe",
    ),
    "http-question": (b"\0", b"\xff", b"\x1b[31m", "\u202e".encode(), LONG, b"[MASK]" * 9_000),
    "http-upload": (
        b"\2multipart/form-data; boundary=X; charset=undefined\n--X\r\n"
        b'Content-Disposition: form-data; name="f"; filename="a.md"\r\n\r\na\r\n--X--\r\n',
        b"\2multipart/form-data\n",
        b"\2multipart/form-data; boundary=" + b"X" * 9_000 + b"\n--X",
        b'\0{"id": "a\\u0000b", "text": "a"}',
        b'\0{"id": "../a", "text": "a"}',
        b'\0{"id": "a.jsonl", "text": "' + b"[" * 50_000 + b'", "format": "jsonl"}',
    ),
    "http-request": (
        b"POST /answer\norigin: http://[::1\n\n{}",
        b"POST /answer\ncontent-length: " + b"9" * 5_000 + b"\n\n{}",
        b"POST /answer\ncontent-type: application/json; charset=x\n\n{}",
        b"GET /documents/%ff%fe%00",
        b"GET /training/x?after=" + b"9" * 5_000,
        b"GET /documents/" + b"a" * 50_000,
        b"\xff \xff\n\xff: \xff",
        b"GET /answer\nhost: [",
        b"GET /status\nauthorization: Bearer \xff",
    ),
}
"""Inputs that broke something once, or would where a reader is naive."""


@pytest.mark.parametrize(
    ("target", "data"),
    [
        pytest.param(TARGETS[name], data, id=f"{name}-{number}")
        for name, some in BY_HAND.items()
        for number, data in enumerate(some)
    ],
)
def test_inputs_by_hand_are_taken_or_refused(target: Target, data: bytes) -> None:
    attack(target, data)
