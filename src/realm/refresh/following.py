"""A builder: follow a run, embed its passages with the newest parameters, publish.

It waits for parameters with a limit, takes the newest (those in between are skipped), goes on with
the shards that a killed builder has finished, and shares a sweep with other builders of the run.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from realm.checkpoint.sources import SOURCES, passages_of
from realm.corpus.store import PassageStore
from realm.device import AUTO, choose_device
from realm.errors import ArtifactError, ConfigError, LockedError
from realm.index.builder import build_index
from realm.index.snapshot import list_snapshots, snapshot_folder
from realm.model.bert import import_bert
from realm.records import Progress
from realm.refresh.choosing import clear_unfinished, next_version, run_settings
from realm.refresh.parameters import Loaded, Published, list_parameters, load_parameters
from realm.refresh.presence import (
    Presence,
    builder_file,
    present,
    see,
    share_of,
    trainer_file,
    whatever_happens,
)
from realm.refresh.rolling import RollingBuilder
from realm.storage import MANIFEST, REQUEST, read_json

MAX_BUILDERS = 64
RETRY_SECONDS = 5.0
TELL_SECONDS = 60.0
"""Between two lines about a run that is not there yet."""
PARENT_GONE = "the trainer that started this builder is gone"
FINISHED = "the run is finished"
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowConfig:
    """How a builder follows."""

    patience_seconds: float = 3_600.0
    """Longest wait for a sign of the trainer."""
    poll_seconds: float = 1.0
    """Between two looks at the folders."""
    device: str = AUTO
    """Where to embed."""


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
        ArtifactError: the passages cannot be read.
        ConfigError: no sign of the trainer within the limit, or as many builders as there is room
            for, or a run that needs none, or other passages than the run's.
    """
    import_bert()  # takes seconds, in which the trainer may remove parameters chosen before
    builder = Follower(run, config or FollowConfig(), tell, is_parent_alive, passages)
    if not builder.wait_for_start():
        return FollowReport(sweeps=0, reason=PARENT_GONE)
    builder.check()
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
        self.tell = whatever_happens(tell)
        self.is_parent_alive = is_parent_alive
        self.passages = passages
        self.device = choose_device(config.device)
        self._store: PassageStore | None = None
        self._rolling: RollingBuilder | None = None
        self._unreadable: set[Published] = set()
        """Parameters that were tried in vain: taken again only if there are no others."""
        self._sweeps = 0
        self._sign: object = None
        self._signed = time.monotonic()

    @property
    def store(self) -> PassageStore:
        """The passages that the run retrieves from."""
        if self._store is None:
            self._store = PassageStore.open(self.passages or passages_of(self.run))
        return self._store

    def wait_for_start(self) -> bool:
        """Wait until the run's folder is there; return False if the parent is gone.

        Raises:
            ConfigError: it is not within the limit.
        """
        self._signed = time.monotonic()
        told = -TELL_SECONDS
        while not self._has_started():
            if not self.is_parent_alive():
                return False
            silent = self._check_patience()
            if silent - told >= TELL_SECONDS:
                told = silent
                self.tell(
                    f"waiting for a trainer: no run in {self.run} yet, for {silent:.0f} of at "
                    f"most {self.config.patience_seconds:.0f} s (--patience)"
                )
            time.sleep(self.config.poll_seconds)
        return True

    def check(self) -> None:
        """Refuse what no waiting mends.

        Raises:
            ArtifactError: it refreshes no index, or its passages cannot be read.
            ConfigError: it needs no builder, or the passages are not the run's.
        """
        if (self.run / MANIFEST).is_file():
            return
        mode = run_settings(self.run).get("mode")
        if mode != "async":
            raise ConfigError(
                f"{self.run} refreshes its index by itself (refresh.mode={mode}); builders help "
                "runs with refresh.mode=async only"
            )
        inputs = read_json(self.run / REQUEST).get("inputs", {})
        if inputs.get("passages") != self.store.fingerprint:
            raise ConfigError(
                f"{self.store.folder} holds other passages than {self.run} retrieves from; pass "
                "a copy of the run's own: realm index --follow RUN PASSAGES"
            )

    def run_to_end(self, presence: Presence, number: int) -> FollowReport:
        """Work until the run is finished, or the parent is gone."""
        presence.tell(state="waiting for parameters", now=True, shards_done=0)
        while True:
            if (self.run / MANIFEST).is_file():
                return self._ended(presence, FINISHED)
            if not self.is_parent_alive():
                return self._ended(presence, PARENT_GONE)
            try:
                has_worked = self._work(presence, number)
            except LockedError:
                has_worked = False
            except ArtifactError as error:
                has_worked = False
                if self.is_parent_alive() and self.run.exists():
                    presence.tell(state=f"failed: {error}", now=True)
                    self.tell(f"cannot build: {error}; trying again in {RETRY_SECONDS:.0f} s")
                    self._pause(RETRY_SECONDS)
            if not has_worked:
                self._wait(presence)

    def _work(self, presence: Presence, number: int) -> bool:
        """Do what is next; return False when there is nothing to do."""
        settings = run_settings(self.run)
        order = str(settings.get("order", "sweep"))
        is_rolling = order != "sweep" and bool(list_snapshots(self.run))
        chosen = next_version(self.run, finish_begun=not is_rolling, avoid=self._unreadable)
        if chosen is None:
            return False
        if is_rolling:
            return self._roll(chosen, order, presence, number)
        presence.tell(state=f"loading parameters of step {chosen.step}")
        loaded = self._load(chosen)
        return loaded is None or self._sweep(loaded, presence, number)

    def _load(self, chosen: Published) -> Loaded | None:
        """Return parameters, None if the trainer has removed them meanwhile: newer ones are there.

        Raises:
            ArtifactError, ConfigError: they are damaged. Others are tried first from here on.
        """
        try:
            return load_parameters(chosen, self.device)
        except (ArtifactError, ConfigError):  # the latter where its tokenizer is gone
            if not (chosen.folder / MANIFEST).is_file():
                return None
            self._unreadable.add(chosen)
            raise

    def _sweep(self, loaded: Loaded, presence: Presence, number: int) -> bool:
        version = loaded.published.version
        folder = snapshot_folder(self.run, version.step)
        clear_unfinished(folder)
        began = time.monotonic()

        build_index(
            loaded.tower,
            self.store,
            folder,
            version=version,
            config=loaded.index,
            share=share_of(self.run, number),
            progress=self._progress(presence, version.step),
        )
        self._sweeps += 1
        seconds = time.monotonic() - began
        presence.tell(state="waiting for parameters", snapshot_step=version.step, seconds=seconds)
        self.tell(f"snapshot of step {version.step} after {seconds:.0f} s")
        return True

    def _roll(self, newest: Published, order: str, presence: Presence, number: int) -> bool:
        if self._rolling is None:
            self._rolling = RollingBuilder(self.run, self.store, self._load)
        self._rolling.look()
        return self._rolling.work(
            newest,
            order=order,
            presence=presence,
            share=share_of(self.run, number),
            progress=self._progress(presence, newest.step),
        )

    def _progress(self, presence: Presence, step: int) -> Progress:
        """Return what is called as passages are embedded: tells it, ends when the parent has."""

        def progress(done: int, total: int) -> None:
            presence.tell(state=f"embedding for step {step}", for_step=step, done=done, total=total)
            if not self.is_parent_alive():
                raise ArtifactError(PARENT_GONE)

        return progress

    def _has_started(self) -> bool:
        known = self.passages is not None or (self.run / SOURCES).is_file()
        return (self.run / MANIFEST).is_file() or ((self.run / REQUEST).is_file() and known)

    def _pause(self, seconds: float) -> None:
        """Sleep, but not longer than the parent lives."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.is_parent_alive():
            time.sleep(min(self.config.poll_seconds, seconds))

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
                f"{self.config.patience_seconds:.0f}); start the trainer, then this again, or "
                "raise --patience"
            )
        return silent

    def _ended(self, presence: Presence, reason: str) -> FollowReport:
        presence.tell(state=f"ended: {reason}", now=True)
        return FollowReport(sweeps=self._sweeps, reason=reason)


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
