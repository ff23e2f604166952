"""`realm verify` at the command line: what is damaged is told, with exit code 2."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from realm.storage import Request, publish

Run = Callable[..., Any]
World = Any


def test_the_verb_names_what_is_damaged(world: World, call: Run, tmp_path: Path) -> None:
    place = tmp_path / "index"
    with publish(place, Request(kind="index")) as scratch:
        (scratch / "rows.f32").write_bytes(bytes(1_000_000))
        (scratch / "words.txt").write_text("a word", encoding="utf-8")
    (place / "metrics.jsonl").write_text("{}", encoding="utf-8")
    whole = call("verify", world / "passages", place)
    assert whole.code == 0
    assert f"{place}: 3 files whole, 1.0 MB; 1 without a checksum" in whole.out
    (place / "words.txt").write_text("A word", encoding="utf-8")
    told = call("verify", world / "passages", place)
    total = 4 + sum(path.is_file() for path in (world / "passages").iterdir())
    assert told.message.startswith(f"1 of {total} files not as written: {place / 'words.txt'}.")
    assert f"{place / 'words.txt'} is damaged: its checksum" in told.out
    as_json = call("verify", place, "--json")
    assert as_json.code == 2
    assert list(json.loads(as_json.out)["places"][0]["bad"]) == [str(place / "words.txt")]


def test_many_damaged_files_are_counted(call: Run, tmp_path: Path) -> None:
    with publish(tmp_path / "index", Request(kind="index")) as scratch:
        for number in range(25):
            (scratch / f"part-{number:02}").write_bytes(b"part")
    for path in (tmp_path / "index").glob("part-*"):
        path.unlink()
    message = call("verify", tmp_path / "index").message
    assert message.startswith("25 of 26 files not as written: ")
    assert "part-19 and 5 more. Make their folders again" in message
