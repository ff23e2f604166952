"""A trainer job and a builder job, each under its own torchrun on a host of its own, one folder."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

World = Any
TIMEOUT_SECONDS = 120


def host(name: str, *command: object) -> list[str]:
    """Return a command in a network and a host name of its own: nothing but files is shared."""
    script = f'hostname {name} && ip link set lo up && exec "$@"'
    return ["unshare", "--net", "--uts", "sh", "-c", script, name, *map(str, command)]


def job(num_processes: int, *arguments: object) -> list[object]:
    options = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={num_processes}"]
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", "realm", *arguments]


@pytest.fixture
def two_hosts() -> Callable[..., subprocess.Popen[str]]:
    try:
        tried = subprocess.run(host("tried", "true"), check=False, capture_output=True)
    except FileNotFoundError:
        pytest.skip("two hosts need the commands unshare and ip")
    if tried.returncode:
        pytest.skip(f"two hosts need network namespaces: {tried.stderr.decode().strip()}")
    environment = {k: v for k, v in os.environ.items() if k not in {"RANK", "WORLD_SIZE"}}
    environment |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}

    def start(name: str, *command: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            host(name, *command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )

    return start


def test_a_trainer_job_and_a_builder_job_meet_in_a_folder_only(
    two_hosts: Callable[..., subprocess.Popen[str]], world: World, tmp_path: Path
) -> None:
    """Two trainers, two builders; the bound on staleness makes the trainers need the builders."""
    run = tmp_path / "run"
    refresh = {"mode": "async", "builders": 0, "every_steps": 2, "max_staleness_steps": 3}
    sets = [f"refresh.{name}={json.dumps(value)}" for name, value in refresh.items()]
    settings = ["steps=12", "refresh.shard_rows=16", "refresh.max_wait_seconds=120", *sets]
    chosen = [part for setting in settings for part in ("--set", setting)]
    trainer = two_hosts("trainer", *job(2, *world.command("pretrain", run), *chosen))
    builder = two_hosts("builder", *job(2, "index", "--follow", run, "--patience", "120"))
    try:
        ended = {
            name: (process.communicate(timeout=TIMEOUT_SECONDS)[0], process.returncode)
            for name, process in (("trainer", trainer), ("builder", builder))
        }
    finally:
        trainer.kill()
        builder.kill()
    said = "\n".join(f"{name}, exit code {code}:\n{told}" for name, (told, code) in ended.items())
    if any(code for _, code in ended.values()):
        pytest.fail(said, pytrace=False)  # whole, where an assertion would cut it
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == 12
    assert max(line["index/staleness_steps"] for line in steps) <= 3
    assert sum(line["index/refreshed"] for line in steps) >= 3
    hosts = [json.loads(f.read_text())["host"] for f in (run / "processes").glob("*.json")]
    assert sorted(hosts) == ["builder", "builder", "trainer"]
