"""Who lives, and what it said; told by locks, never by clocks."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import realm
from realm.errors import LockedError
from realm.refresh.presence import (
    builder_file,
    builders_of,
    furthest,
    present,
    see,
    share_of,
    state_of,
    trainer_file,
)
from realm.storage import claimed, is_locked, locked, write_json


def test_a_process_is_seen_while_it_lives_and_what_it_said_afterwards(tmp_path: Path) -> None:
    file = trainer_file(tmp_path)
    assert see(file) is None
    with present(file) as presence:
        presence.tell(state="training", step=3)
        seen = see(file)  # by itself, too
        assert seen is not None
        assert seen.is_alive
        assert (seen.name, seen.values["step"], seen.values["pid"]) == ("trainer", 3, os.getpid())
        assert state_of(seen) == "training"
        with ThreadPoolExecutor() as pool:
            assert pool.submit(is_locked, file).result()
            with pytest.raises(LockedError):
                pool.submit(lambda: present(file).__enter__()).result()
    seen = see(file)
    assert seen is not None
    assert not seen.is_alive
    assert state_of(seen) == "dead (was training)"


def test_news_are_written_at_once_and_numbers_once_a_second(tmp_path: Path) -> None:
    with present(trainer_file(tmp_path)) as presence:
        presence.tell(state="training", step=1)
        presence.tell(state="training", step=2)
        assert see(trainer_file(tmp_path)).values["step"] == 1  # type: ignore[union-attr]
        presence.tell(state="waiting", step=3)
        assert see(trainer_file(tmp_path)).values["step"] == 3  # type: ignore[union-attr]
        presence.tell(state="waiting", step=4, now=True)
        assert see(trainer_file(tmp_path)).values["step"] == 4  # type: ignore[union-attr]


def test_a_killed_process_is_dead_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from realm.refresh.presence import builder_file, present\n"
        "with present(builder_file(Path(sys.argv[1]), 0)) as presence:\n"
        "    presence.tell(state='embedding', done=3, total=9)\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(realm.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGSTOP)  # stopped is not dead
        assert [state_of(seen) for seen in builders_of(tmp_path)] == ["embedding, 3 of 9 passages"]
        process.kill()
        process.wait()
    assert [state_of(seen) for seen in builders_of(tmp_path)] == ["dead (was embedding)"]


def test_what_is_half_written_or_unwritable_stops_nobody(tmp_path: Path) -> None:
    with present(builder_file(tmp_path, 0)) as presence:
        builder_file(tmp_path, 0).write_text('{"state": "emb')
        assert builders_of(tmp_path)[0].is_alive
        assert state_of(builders_of(tmp_path)[0]) == "starting"
        (tmp_path / "processes").rename(tmp_path / "gone")
        presence.tell(state="training")
    assert builders_of(tmp_path) == []


def test_who_only_looks_keeps_nobody_from_a_lock(tmp_path: Path) -> None:
    """A trainer that starts, while builders look whether it has, must not be told of another."""
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            is_locked(tmp_path / "out")

    (tmp_path / ".out.lock").touch()
    with ThreadPoolExecutor() as pool:
        looking = [pool.submit(look) for _ in range(3)]
        try:
            for _ in range(300):
                with locked(tmp_path / "out"):
                    assert is_locked(tmp_path / "out")
        finally:
            stop.set()
        for one in looking:
            one.result()
    assert not is_locked(tmp_path / "out")


def test_a_part_of_what_is_gone_is_not_to_be_had_and_does_not_come_back(tmp_path: Path) -> None:
    with claimed(tmp_path / "scratch" / "shard-0") as is_mine:
        assert not is_mine
    assert not (tmp_path / "scratch").exists()


def test_living_builders_share_the_rows_among_them(tmp_path: Path) -> None:
    """Whatever their numbers are: a dead one's rows would never be embedded."""
    assert share_of(tmp_path, 5) == (0, 1)
    write_json_of(tmp_path, 0)  # dead
    with present(builder_file(tmp_path, 2)) as two, present(builder_file(tmp_path, 10)) as ten:
        two.tell(state="embedding")
        ten.tell(state="embedding")
        assert share_of(tmp_path, 2) == (0, 2)
        assert share_of(tmp_path, 10) == (1, 2)
    assert share_of(tmp_path, 10) == (0, 1)


def test_how_far_builders_are_counts_for_published_parameters_only(tmp_path: Path) -> None:
    assert furthest(tmp_path, newest_step=9) == (-1, -1)
    write_json_of(tmp_path, 0, for_step=9, done=24)  # dead
    with present(builder_file(tmp_path, 1)) as one, present(builder_file(tmp_path, 2)) as two:
        one.tell(state="embedding", for_step=5, done=7)
        two.tell(state="embedding", for_step=12, done=7)
        assert furthest(tmp_path, newest_step=9) == (5, 7)
        assert furthest(tmp_path, newest_step=12) == (12, 7)


def write_json_of(run: Path, number: int, **values: object) -> None:
    builder_file(run, number).parent.mkdir(exist_ok=True)
    write_json(builder_file(run, number), {"state": "embedding", **values})
