"""A builder: follow a run, embed its passages with the newest parameters, publish.

It waits for parameters with a limit, takes the newest (those in between are skipped), goes on with
the shards that a killed builder has finished, and shares a sweep with other builders of the run.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from realm.checkpoint.sources import passages_of
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, ConfigError, LockedError
from realm.index.builder import build_index
from realm.index.snapshot import Snapshot, list_snapshots, snapshot_folder
from realm.refresh.parameters import Loaded, Published, list_parameters, load_parameters
from realm.refresh.presence import (
    Presence,
    builder_file,
    builders_of,
    present,
    see,
    trainer_file,
)
from realm.refresh.rolling import RollingBuilder
from realm.storage import MANIFEST, REQUEST, is_locked, read_json, remove, scratch_folder

MAX_BUILDERS = 64
RETRY_SECONDS = 5.0
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowConfig:
    """How a builder follows."""

    patience_seconds: float = 3_600.0
    """Longest wait for a sign of the trainer."""
    poll_seconds: float = 1.0
    """Between two looks at the folders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowReport:
    """What a builder has done."""

    sweeps: int
    """Snapshots that it helped to build."""
    reason: str
    """Why it ended."""


def follow(
    run: Path,
    *,
    passages: Path | None = None,
    config: FollowConfig | None = None,
    tell: Tell = lambda _: None,
    is_parent_alive: Callable[[], bool] = lambda: True,
) -> FollowReport:
    """Build snapshots for a run until it is finished.

    Args:
        run: the run's folder; it may not have started yet.
        passages: where they lie on this machine (None: where the run says).
        config: limits.
        tell: called with a sentence when something happens.
        is_parent_alive: for a builder that is to end with the trainer that started it.

    Raises:
        ArtifactError: no sign of the trainer within the limit, or unreadable passages.
        ConfigError: as many builders as there is room for.
    """
    builder = Follower(run, config or FollowConfig(), tell, is_parent_alive, passages)
    builder.wait_for_start()
    with ExitStack() as stack:
        presence, number = _take_place(run, stack)
        return builder.run_to_end(presence, number)


class Follower:
    """The loop of one builder."""

    def __init__(
        self,
        run: Path,
        config: FollowConfig,
        tell: Tell,
        is_parent_alive: Callable[[], bool],
        passages: Path | None,
    ) -> None:
        self.run = run
        self.config = config
        self.tell = tell
        self.is_parent_alive = is_parent_alive
        self.passages = passages
        self._store: PassageStore | None = None
        self._rolling: RollingBuilder | None = None
        self._sweeps = 0
        self._sign: object = None
        self._signed = time.monotonic()

    @property
    def store(self) -> PassageStore:
        """The passages that the run retrieves from."""
        if self._store is None:
            self._store = PassageStore.open(self.passages or passages_of(self.run))
        return self._store

    def wait_for_start(self) -> None:
        """Wait until the run's folder is there.

        Raises:
            ConfigError: it is not within the limit.
        """
        self._signed = time.monotonic()
        while not ((self.run / REQUEST).is_file() or (self.run / MANIFEST).is_file()):
            self._check_patience()
            time.sleep(self.config.poll_seconds)

    def run_to_end(self, presence: Presence, number: int) -> FollowReport:
        """Work until the run is finished, or the parent is gone."""
        presence.tell(state="waiting for parameters", now=True, shards_done=0)
        while True:
            if (self.run / MANIFEST).is_file():
                return self._ended(presence, "the run is finished")
            if not self.is_parent_alive():
                return self._ended(presence, "the trainer that started this builder is gone")
            try:
                has_worked = self._work(presence, number)
            except LockedError:
                has_worked = False
            except ArtifactError as error:
                has_worked = False
                if self.is_parent_alive() and self.run.exists():
                    presence.tell(state=f"failed: {error}", now=True)
                    self.tell(f"cannot build: {error}; trying again in {RETRY_SECONDS:.0f} s")
                    time.sleep(RETRY_SECONDS)
            if not has_worked:
                self._wait(presence)

    def _work(self, presence: Presence, number: int) -> bool:
        """Do what is next; return False when there is nothing to do."""
        newest = next_version(self.run)
        if newest is None:
            return False
        settings = run_settings(self.run)
        presence.tell(state=f"loading parameters of step {newest.step}")
        if settings.get("order", "sweep") != "sweep" and list_snapshots(self.run):
            return self._roll(newest, str(settings["order"]), presence, number)
        return self._sweep(load_parameters(newest), presence, number)

    def _sweep(self, loaded: Loaded, presence: Presence, number: int) -> bool:
        version = loaded.published.version
        folder = snapshot_folder(self.run, version.step)
        clear_unfinished(folder)
        began = time.monotonic()

        def progress(done: int, total: int) -> None:
            presence.tell(state=f"embedding for step {version.step}", done=done, total=total)
            if not self.is_parent_alive():
                raise ArtifactError("the trainer that started this builder is gone")

        build_index(
            loaded.tower,
            self.store,
            folder,
            version=version,
            config=loaded.index,
            share=(number, self._num_builders(number)),
            progress=progress,
        )
        self._sweeps += 1
        seconds = time.monotonic() - began
        presence.tell(state="waiting for parameters", snapshot_step=version.step, seconds=seconds)
        self.tell(f"snapshot of step {version.step} after {seconds:.0f} s")
        return True

    def _roll(self, newest: Published, order: str, presence: Presence, number: int) -> bool:
        if self._rolling is None:
            self._rolling = RollingBuilder(self.run, self.store)
        self._rolling.look()
        share = (number, self._num_builders(number))
        return self._rolling.work(newest, order=order, presence=presence, share=share)

    def _num_builders(self, number: int) -> int:
        return max(number + 1, sum(seen.is_alive for seen in builders_of(self.run)))

    def _wait(self, presence: Presence) -> None:
        """Wait a little; give up after the limit without a sign of the trainer."""
        trainer = see(trainer_file(self.run))
        sign = (trainer and trainer.values.get("beat"), len(list_parameters(self.run)))
        if sign != self._sign or (trainer and trainer.is_alive):
            self._sign, self._signed = sign, time.monotonic()
        silent = self._check_patience()
        presence.tell(state="waiting for parameters", silent_seconds=round(silent))
        time.sleep(self.config.poll_seconds)

    def _check_patience(self) -> float:
        """Return how long there has been no sign of a trainer, in seconds."""
        silent = time.monotonic() - self._signed
        if silent > self.config.patience_seconds:
            raise ConfigError(
                f"{self.run}: no sign of a trainer for {silent:.0f} seconds (limit "
                f"{self.config.patience_seconds:.0f}); start `realm pretrain`, then this again, or "
                "raise --patience"
            )
        return silent

    def _ended(self, presence: Presence, reason: str) -> FollowReport:
        presence.tell(state=f"ended: {reason}", now=True)
        return FollowReport(sweeps=self._sweeps, reason=reason)


def next_version(run: Path) -> Published | None:
    """Return the parameters to embed with: those of a sweep that was begun, or the newest.

    None if there are none, or a snapshot of the newest ones is there.
    """
    published = list_parameters(run)
    if not published:
        return None
    snapshots = list_snapshots(run)
    newest_snapshot = snapshots[-1][0] if snapshots else -1
    for one in published:
        if one.step > newest_snapshot and _is_begun(run, one):
            return one
    newest = published[-1]
    if newest.step < newest_snapshot:
        return None
    if newest.step == newest_snapshot and _is_of(snapshots[-1][1], newest):
        return None
    return newest


def run_settings(run: Path) -> dict[str, object]:
    """Return the refresh settings of a run that has started.

    Raises:
        ArtifactError: it has not, or does not refresh an index.
    """
    settings = read_json(run / REQUEST).get("settings", {}).get("refresh")
    if not isinstance(settings, dict):
        raise ArtifactError(f"{run} is not a pre-training run: nothing to follow")
    return settings


def clear_unfinished(folder: Path) -> None:
    """Remove a snapshot's folder that has no manifest: somebody copied it, or lost a part."""
    if folder.is_dir() and not (folder / MANIFEST).is_file() and not is_locked(folder):
        remove(folder)


def _is_begun(run: Path, published: Published) -> bool:
    scratch = scratch_folder(snapshot_folder(run, published.step))
    try:
        inputs = read_json(scratch / REQUEST)["inputs"]
    except (ArtifactError, KeyError):
        return False
    return inputs.get("embedder") == published.model_hash


def _is_of(folder: Path, published: Published) -> bool:
    try:
        return Snapshot.open(folder).model_hash == published.model_hash
    except ArtifactError:
        return False


def _take_place(run: Path, stack: ExitStack) -> tuple[Presence, int]:
    """Take the first free builder's place of a run."""
    for number in range(MAX_BUILDERS):
        file = builder_file(run, number)
        for _ in range(3):  # who looks whether a builder lives holds its lock for a moment
            try:
                return stack.enter_context(present(file)), number
            except LockedError:
                time.sleep(0.02)
    raise ConfigError(f"{run} has {MAX_BUILDERS} builders already; there is no place for more")
