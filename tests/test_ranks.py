"""What ranks tell each other, with real processes; and that one rank is as none."""

import json
import math
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from realm.errors import ConfigError, CorpusError, RankError
from realm.ranks import ALONE, Ranks
from realm.torchrun import agree_on_session, started_ranks

Torchrun = Callable[..., subprocess.CompletedProcess[str]]
Launch = Callable[..., list[subprocess.Popen[str]]]

EXCHANGE = """
import json, sys
from pathlib import Path
import torch
from torch import nn
from realm import ranks as module
from realm.errors import CorpusError, RankError
from realm.torchrun import started_ranks

module.BUCKET_FLOATS = 5  # several buckets, one parameter larger than any

def net():
    torch.manual_seed(0)
    return nn.ModuleDict({name: nn.Linear(3, 2) for name in ("used", "sometimes", "never")})

def loss_of(parts, x, rank):
    out = parts["used"](x)
    return (parts["sometimes"](x) * out if rank == 1 else out).square().sum()

def failed(action):
    try:
        return action()
    except (CorpusError, RankError) as error:
        return [type(error).__name__, str(error)]

def bad():
    raise CorpusError("no text")

out = {}
with started_ranks() as ranks:
    me = ranks.rank
    part = torch.arange(2.0 * me).view(me, 2) + 10 * me  # 0, 1 and 2 rows
    out["gathered"] = ranks.gather(part).tolist()
    out["nothing"] = list(ranks.gather(torch.zeros(0, 4)).shape)
    out["values"] = ranks.gather_values({"rank": me, "text": "x" * me, "nan": float("nan")})
    out["any"] = [ranks.any(me == 2), ranks.any(False)]
    out["share"] = list(ranks.share(range(8)))

    learnt = part.clone().requires_grad_(me > 0)
    everybody = ranks.gather_with_gradient(learnt)
    weights = torch.arange(3.0)[:, None] + 1
    ((me + 1) * weights * everybody).sum().backward()
    out["gradient"] = None if learnt.grad is None else learnt.grad.tolist()

    xs = [torch.randn(4, 3, generator=torch.Generator().manual_seed(r)) for r in range(3)]
    parts, alone = net(), net()
    loss_of(parts, xs[me], me).backward()
    ranks.sum_gradients(parts.parameters())
    sum(loss_of(alone, x, rank) for rank, x in enumerate(xs)).backward()
    out["as_alone"] = [
        bool(torch.allclose(p.grad, q.grad, atol=1e-6)) if p.grad is not None else q.grad is None
        for p, q in zip(parts.parameters(), alone.parameters(), strict=True)
    ]
    out["never"] = parts["never"].weight.grad is None

    if me == 1:
        parts["used"].weight.grad[0, 0] = torch.inf
    ranks.sum_gradients(parts.parameters())
    out["norm"] = float(nn.utils.clip_grad_norm_(parts.parameters(), 1.0))

    torch.manual_seed(me)
    other = nn.BatchNorm1d(2)
    other.weight.data = torch.full((2,), float(me))
    ranks.copy_from_first([other])
    out["copied"] = other.weight.tolist()

    log = Path(sys.argv[1]) / "order"
    with ranks.first_goes_first():
        with log.open("a") as stream:
            stream.write(str(min(me, 1)))
    out["first"] = ranks.from_first(lambda: {"by": me})
    out["failed"] = failed(lambda: ranks.from_first(bad))
    out["still_there"] = ranks.gather_values(me)
    (Path(sys.argv[1]) / f"{me}.json").write_text(json.dumps(out))
"""


@pytest.fixture(scope="module")
def exchanged(torchrun: Torchrun, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What three ranks found, in rank order."""
    folder = tmp_path_factory.mktemp("exchange")
    ended = torchrun(EXCHANGE, folder, world=3)
    assert ended.returncode == 0, ended.stderr
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]
    return [{**each, "order": (folder / "order").read_text()} for each in found]


def test_parts_of_unequal_length_come_in_rank_order(exchanged: list[dict[str, Any]]) -> None:
    for found in exchanged:
        assert found["gathered"] == [[10, 11], [20, 21], [22, 23]]
        assert found["nothing"] == [0, 4]
        assert [value["rank"] for value in found["values"]] == [0, 1, 2]
        assert [value["text"] for value in found["values"]] == ["", "x", "xx"]
        assert found["any"] == [True, False]
    assert [found["share"] for found in exchanged] == [[0, 1], [2, 3, 4], [5, 6, 7]]


def test_each_rank_gets_the_gradient_of_all_ranks_for_its_own_part(
    exchanged: list[dict[str, Any]],
) -> None:
    """Row r of the gathered three weighs (1 + 2 + 3) * (r + 1) in all losses together."""
    assert [found["gradient"] for found in exchanged] == [None, [[6, 6]], [[12, 12], [18, 18]]]


def test_summed_gradients_are_those_of_one_process(exchanged: list[dict[str, Any]]) -> None:
    """Also where a parameter is used on one rank only; one that nobody used has none."""
    for found in exchanged:
        assert found["as_alone"] == [True] * 6
        assert found["never"]


def test_a_gradient_that_is_not_finite_on_one_rank_is_told_by_the_norm_on_all(
    exchanged: list[dict[str, Any]],
) -> None:
    """So that all of them end at the same step, and none waits for another."""
    assert [math.isfinite(found["norm"]) for found in exchanged] == [False] * 3


def test_all_start_from_the_first_ranks_parameters(exchanged: list[dict[str, Any]]) -> None:
    assert [found["copied"] for found in exchanged] == [[0, 0]] * 3


def test_the_first_rank_acts_for_all_and_its_error_reaches_all(
    exchanged: list[dict[str, Any]],
) -> None:
    assert exchanged[0]["order"] == "011"
    for found in exchanged:
        assert found["first"] == {"by": 0}
        assert found["still_there"] == [0, 1, 2]
    assert exchanged[0]["failed"] == ["CorpusError", "no text"]
    for found in exchanged[1:]:
        kind, message = found["failed"]
        assert kind == "RankError"
        assert "because rank 0 did: no text" in message


LEFT_ALONE = """
import os, signal, sys, time
from realm.torchrun import started_ranks
from realm.errors import RankError

try:
    with started_ranks() as ranks:
        ranks.any(True)
        if ranks.rank == 1:
            if sys.argv[1] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(100)
        began = time.monotonic()
        ranks.any(True)
except RankError as error:
    print(f"{time.monotonic() - began:.0f} seconds: {error}")
    sys.stdout.flush()
    os._exit(2)
"""


def test_a_rank_that_died_or_hangs_ends_in_an_error(launch: Launch) -> None:
    killed = launch(LEFT_ALONE, "killed")
    hung = launch(LEFT_ALONE, "hung", REALM_RANKS_TIMEOUT_SECONDS="3")
    try:
        for processes, longest in ((killed, 60), (hung, 60)):
            told, errors = processes[0].communicate(timeout=100)
            assert processes[0].returncode == 2, errors
            seconds, message = told.strip().split(" seconds: ")
            assert int(seconds) < longest
            assert "rank 0 of 2 could not exchange tensors: another rank died or hung" in message
            assert "--max-restarts" in message
    finally:
        for process in (*killed, *hung):
            process.kill()
            process.communicate()


def test_one_rank_returns_what_it_is_given() -> None:
    part = torch.ones(2, 3, requires_grad=True)
    assert ALONE.gather(part) is part
    assert ALONE.gather_with_gradient(part) is part
    assert ALONE.gather_values("x") == ["x"]
    assert [ALONE.any(flag) for flag in (True, False)] == [True, False]
    assert list(ALONE.share(range(5))) == [0, 1, 2, 3, 4]
    assert ALONE.from_first(lambda: 3) == 3
    assert ALONE.is_first
    assert not ALONE.are_several
    module = nn.Linear(2, 2)
    ALONE.sum_gradients(module.parameters())
    ALONE.copy_from_first([module])
    assert module.weight.grad is None
    with pytest.raises(CorpusError), ALONE.first_goes_first():
        raise CorpusError("as it is")


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_every_item_is_one_ranks(world: int) -> None:
    for count in (0, 1, 5, 21):
        parts = [Ranks(rank=rank, world=world).part(count) for rank in range(world)]
        assert [number for part in parts for number in part] == list(range(count))
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "no RANK, MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0'"),
    ],
)
def test_an_environment_that_torchrun_does_not_make_is_told(
    environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message), started_ranks(environment):
        pass


def test_each_start_agrees_on_a_session_of_its_own() -> None:
    """Three starts in one store, as torchrun's restarts: nobody meets a process that is gone."""
    store = dist.HashStore()
    timeout = timedelta(seconds=60)
    store.set("realm/hello/2", "killed-before-it-was-welcomed")
    sessions = []
    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            meeting = [
                pool.submit(agree_on_session, store, Ranks(rank=rank, world=3), timeout)
                for rank in (2, 0, 1)
            ]
            (session,) = {met.result() for met in meeting}
        sessions.append(session)
    assert len(set(sessions)) == 3


def test_a_rank_that_does_not_come_is_named() -> None:
    first, soon = Ranks(rank=0, world=2), timedelta(seconds=0.1)
    with pytest.raises(RankError, match=r"ranks \[1\] did not come"), first.talking("meet"):
        agree_on_session(dist.HashStore(), first, soon)


def test_without_torchrun_there_is_one_rank() -> None:
    with started_ranks({}) as ranks:
        assert ranks is ALONE
