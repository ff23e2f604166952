"""A flipped bit or a cut in any file that realm writes is told, with the file's name."""

import shutil
import zlib
from pathlib import Path

import pytest

from realm.storage import verify
from tests.faults.damage import (
    KINDS,
    Damage,
    Tally,
    check_file,
    damages,
    files_of,
    kind_of,
    restore,
)
from tests.towns import World

NUM_FLIPS = 3


@pytest.fixture(scope="module")
def kept(made: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return a copy that stays whole: damage is done where the world was made."""
    return World(shutil.copytree(made.folder, tmp_path_factory.mktemp("kept") / "world"))


def seed_of(place: str) -> int:
    """Return a number that is the same in every run."""
    return zlib.crc32(place.encode())


def one_of_each(world: World) -> list[str]:
    """Return one file of each name in each kind of folder."""
    chosen: dict[object, str] = {}
    for place in files_of(world):
        chosen.setdefault((kind_of(place).pattern, Path(place).name), place)
    return list(chosen.values())


def test_every_file_is_of_a_kind_that_somebody_reads(made: World) -> None:
    known = {kind_of(place).pattern for place in files_of(made)}
    assert known == {kind.pattern for kind in KINDS}
    assert all(kind.why for kind in KINDS if kind.expected != "told")


def test_damage_to_one_file_of_each_kind_is_told(made: World, kept: World) -> None:
    tally = Tally()
    for place in one_of_each(made):
        size = (made / place).stat().st_size
        check_file(made, kept, place, damages(size, seed_of(place), NUM_FLIPS), tally)
    assert tally.told > 200
    assert tally.rebuilt > 20


def test_verify_names_a_flipped_bit_in_every_file_that_says_what_was_written(
    made: World, kept: World
) -> None:
    """Also of a folder too large to be read through whenever it is opened."""
    whole = {one.path for one in verify(made.folder).of("whole")}
    must = [place for place in one_of_each(made) if kind_of(place).expected == "told"]
    told = [place for place in one_of_each(made) if made / place in whole]
    assert set(must) <= set(told)
    for place in told:
        path, top = made / place, place.split("/")[0]
        if not path.stat().st_size:
            continue
        Damage(kind="flip", place=path.stat().st_size * 4).do(path)
        bad = verify(made / top if "/" in place else made.folder).bad
        restore(made, kept, top)
        assert [one.path for one in bad] == [path]


@pytest.mark.slow
def test_damage_to_any_file_is_told(made: World, kept: World) -> None:
    tally = Tally()
    for place in files_of(made):
        size = (made / place).stat().st_size
        check_file(made, kept, place, damages(size, 1 + seed_of(place), 10), tally)
    assert tally.told > 1_000
