"""A peer over a pipe: its own seconds, its own memory, its failures."""

import sys
from pathlib import Path

import pytest
from harness import interleaved
from peer import Peer, PeerError, environment_of

WORKER = """
import os, sys
from peer import serve

held = []

def spin(times):
    for _ in range(times * 100_000):
        pass
    print("noise that is no answer")
    return times

def hold(megabytes):
    held.append(b"x" * (megabytes << 20))

serve({
    "spin": spin, "hold": hold, "fail": lambda: 1 / 0, "die": lambda: os._exit(3),
    "variable": lambda name: os.environ.get(name),
})
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "worker.py"
    path.write_text(WORKER, encoding="utf-8")
    return path


def test_a_peer_measures_itself_over_the_pipe(script: Path) -> None:
    with Peer(script) as peer:
        assert peer.call("spin", times=1).result == 1
        timings = interleaved({"peer": peer.action("spin", times=30), "ours": list}, rounds=3)
    assert min(timings["peer"].cpu) > 10 * max(timings["ours"].cpu)


def test_a_peer_tells_its_peak_memory_and_takes_variables(script: Path) -> None:
    with Peer(script, environment={"SHAPE": "round"}) as peer:
        assert 64 << 20 <= peer.call("hold", megabytes=64).peak_bytes < 80 << 20
        assert peer.call("spin", times=1).peak_bytes < 8 << 20, "each call starts anew"
        assert peer.call("variable", name="SHAPE").result == "round"


def test_a_failing_peer_says_so_and_goes_on(script: Path) -> None:
    with Peer(script) as peer:
        with pytest.raises(PeerError, match=r"worker.py: fail failed: ZeroDivisionError"):
            peer.call("fail")
        assert peer.call("spin", times=2).result == 2
        with pytest.raises(PeerError, match=r"worker.py ended with code 3 during die"):
            peer.call("die")


def test_an_environment_that_lacks_what_is_wanted_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peer.ROOT", tmp_path)
    assert environment_of("old") is None
    python = tmp_path / ".venv-old" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert environment_of("old", "json") == python
    assert environment_of("old", "no_such_module") is None
