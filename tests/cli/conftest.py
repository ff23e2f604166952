"""The made-up world, made once by the command line."""

import pytest

from tests.towns import NUM_PLACES, Run, World, articles, call_realm, write_lines, write_world


@pytest.fixture(scope="session")
def call() -> Run:
    """Return a function that runs the entry point in this process, with patched sys.argv."""
    return call_realm


@pytest.fixture(scope="session")
def world(call: Run, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return the made-up world after every stage, and a second corpus beside it."""
    made = World(write_world(tmp_path_factory.mktemp("world"))).make(call)
    other = write_lines(made / "other.jsonl", articles(NUM_PLACES // 2))
    assert call(*made.command("split", made / "other", articles=other)).code == 0
    return made
