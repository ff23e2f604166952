"""Refresh beside the trainer: it publishes parameters, builders publish vectors (section 3.3).

The trainer never waits, except for its first snapshot and beyond the bound on staleness. All
reading, verifying and writing is another thread's.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from realm.checkpoint.parts import tower_hash
from realm.config import IndexConfig, RefreshConfig
from realm.corpus.store import PassageStore
from realm.device import CPU
from realm.errors import ArtifactError, RealmError, StaleIndexError
from realm.index.builder import EmbedderVersion, build_index
from realm.index.live import LiveIndex
from realm.index.opening import known_from
from realm.index.snapshot import Snapshot, snapshot_folder
from realm.model.embedder import Embedder
from realm.readable import counted
from realm.records import Progress
from realm.refresh.drift import Drift
from realm.refresh.housekeeping import forget_after, remove_unusable, remove_what_is_old
from realm.refresh.presence import (
    Presence,
    builders_of,
    furthest,
    present,
    state_of,
    trainer_file,
    whatever_happens,
)
from realm.refresh.processes import BuilderProcesses
from realm.refresh.publishing import Publisher
from realm.refresh.watching import Ready, Watcher

MAX_VERSIONS = 10_000
SECONDS_BETWEEN_MESSAGES = 30.0
Tell = Callable[[str], None]


class AsyncRefresher:
    """Owns the index that a training run searches; builders make it."""

    def __init__(
        self,
        run: Path,
        store: PassageStore,
        *,
        config: RefreshConfig,
        index: IndexConfig,
        num_steps: int = 0,
        start: Snapshot | None = None,
        progress: Progress | None = None,
        tell: Tell = lambda _: None,
        device: torch.device = CPU,
    ) -> None:
        """Prepare; builders start with the first `advance`.

        Args:
            run: the run's folder.
            store: the passages.
            config: when, how old, how many builders.
            index: how passages are embedded.
            num_steps: of the run, for `realm status`.
            start: a snapshot whose vectors the first one takes over, if of the same embedder.
            progress: called while the first snapshot is built.
            tell: called with a sentence when something happens.
            device: where the index is scanned, and its builders embed.
        """
        self.run = run
        self.store = store
        self.config = config
        self.device = device
        self.index_config = index
        self.num_steps = num_steps
        self.start = start
        self.progress = progress
        self.tell = whatever_happens(tell)
        self.drift = Drift(is_rolling=config.is_rolling)
        self._index: LiveIndex | None = None
        self._has_refreshed = False
        self._swap_seconds = 0.0
        self.is_mirrored = False
        """Whether other ranks swap in what this one does, and so ask what it took."""
        self._taken: list[tuple[int, str]] = []
        """Step and folder of what other ranks are still to swap in."""
        self._was_fresh = False
        """The index has been within the bound since this process began: then it may be held to it.
        After a resume it may be as old as its checkpoint is."""
        self._swapped = threading.Event()
        self._stack = ExitStack()
        self._presence: Presence | None = None
        self._builders = BuilderProcesses(
            run,
            config.builders,
            threads=config.builder_threads,
            device=str(device),
            tell=self.tell,
        )
        self._watcher = Watcher(
            run,
            store.fingerprint,
            is_rolling=config.is_rolling,
            tell=self.tell,
            look_after=self._look_after,
        )
        self._publisher = Publisher(
            run,
            store,
            config=config,
            index=index,
            drift=self.drift,
            allow=self._watcher.allow,
            tell=self.tell,
            afterwards=self._clean,
        )

    @property
    def index(self) -> LiveIndex:
        """The index in use.

        Raises:
            ArtifactError: `advance` was never called.
        """
        if self._index is None:
            raise ArtifactError("no snapshot is open yet; expected one after the first step")
        return self._index

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot in use.

        Raises:
            ArtifactError: see `index`.
        """
        return self.index.snapshot

    def advance(self, tower: Embedder, step: int) -> bool:
        """Publish parameters if it is time, take what is ready; return whether there was any.

        Raises:
            StaleIndexError: the index is older than the run allows, and no builder catches up.
        """
        if self._index is None:
            self._begin(tower, step)
            return True
        if self._publisher.is_due(step):
            self._publisher.publish(tower, step)
        self._has_refreshed = self._take(self._watcher.take()) or self._has_refreshed
        if self.staleness(step) > self.config.max_staleness_steps:
            self._wait(tower, step)
            self._has_refreshed = True
        self._was_fresh = True
        self._say("training", step)
        return self._has_refreshed

    def staleness(self, step: int) -> int:
        """Return training step minus step of the index's oldest row."""
        return step - self.index.oldest_step()

    def count(self, rows: Int[Tensor, " seen"], drift: Float[Tensor, " seen"]) -> None:
        """Take in which passages were candidates, and how far their scores had drifted."""
        self._publisher.count(rows, drift)

    def measures(self, step: int) -> dict[str, float]:
        """Return the state of the index before a step; each refresh is told once."""
        has_refreshed, self._has_refreshed = self._has_refreshed, False
        measured = {
            "index/refreshed": float(has_refreshed),
            "index/staleness_steps": float(self.staleness(step)),
            "index/mean_staleness_steps": self.index.mean_staleness(step),
            "index/swap_seconds": self._swap_seconds,
        }
        self._swap_seconds = 0.0
        if (age := self._publisher.age_seconds(self.index.oldest_step())) is not None:
            measured["index/age_seconds"] = age
        return measured

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs: the snapshot, and which parameters were published."""
        versions = sorted(self._watcher.allowed().items())[-MAX_VERSIONS:]
        return {
            "snapshot_step": self.snapshot.step,
            "published": {str(step): used for step, used in versions},
            "drift": self.drift.state(),
        }

    def restore(self, values: Mapping[str, Any], step: int) -> None:
        """Search the newest whole snapshot of this branch of the run; forget what came after.

        A snapshot that is damaged is left for an older one. If there is none, `advance` builds one.

        Raises:
            UnreadableError: one cannot be read, and may be whole.
        """
        published = values.get("published", {})
        versions = {int(made): str(used) for made, used in published.items()}
        self._publisher.newest = max(versions, default=-1)
        if "drift" in values:
            self.drift.restore(values["drift"])
        forget_after(self.run, step, versions)
        self._watcher.allow(versions)
        self._watcher.look()
        ready = self._watcher.take()
        if ready.snapshot is not None:
            self._index = LiveIndex(ready.snapshot, self.device)
            self._taken = [(ready.snapshot.step, str(ready.snapshot.folder))]
            self._take(Ready(patches=ready.patches))
            self._watcher.start(ready.snapshot.step)
        self.tell(
            f"resumed at step {step} with the snapshot of step {ready.snapshot.step}"
            if ready.snapshot
            else f"resumed at step {step}; no snapshot can be used, building one"
        )

    def taken(self) -> list[str]:
        """Return the folders that were swapped in since the last call, for other ranks."""
        taken, self._taken = self._taken, []
        return [folder for _, folder in taken]

    def close(self) -> None:
        """Stop builders and threads; within five seconds whatever they do."""
        self._builders.stop()
        self._watcher.stop()
        self._publisher.wait(1.0)
        if self._index is not None:
            self._clean()
        if self._presence:
            self._presence.tell(state="stopped", now=True)
        self._stack.close()

    def _begin(self, tower: Embedder, step: int) -> None:
        """Build the first snapshot, together with builders that are there already."""
        self._say("building the first snapshot", step)
        folder = snapshot_folder(self.run, step)
        version = EmbedderVersion(model_hash=tower_hash(tower), step=step)
        self._watcher.allow({step: version.model_hash})
        forget_after(self.run, step, self._watcher.allowed())  # a run killed before it saved
        remove_unusable(folder, version, self.store.fingerprint)
        self._publisher.publish_first(tower, version)
        self._builders.look()
        snapshot = build_index(
            tower,
            self.store,
            folder,
            version=version,
            config=self.index_config,
            known=known_from(self.start, version, self.store, self.index_config),
            progress=self.progress,
        )
        self._index = LiveIndex(snapshot, self.device)
        self._taken = [(step, str(folder))]
        self._publisher.note_age(step)
        self._has_refreshed = True
        self._watcher.start(step)

    def _look_after(self) -> None:
        """What the other thread does beside looking: mind the builders, clean up after a swap."""
        self._builders.look()
        if self._swapped.is_set():
            self._swapped.clear()
            self._clean()

    def _clean(self) -> None:
        """Remove what nobody needs any more; what cannot be removed is tried again later."""
        with suppress(RealmError, OSError):
            remove_what_is_old(
                self.run, in_use=self.snapshot.step, keep_snapshots=self.config.keep_snapshots
            )

    def _take(self, ready: Ready) -> bool:
        """Swap in what is ready."""
        if ready.snapshot is None and not ready.patches:
            return False
        began = time.monotonic()
        if ready.snapshot is not None:
            self.index.swap(ready.snapshot)
            self.drift.restart()
            self._swapped.set()
        for patch in ready.patches:
            self.index.write(patch.rows, patch.vectors, patch.step)
        self._swap_seconds += time.monotonic() - began
        if self.is_mirrored:
            self._name(ready)
        return True

    def _name(self, ready: Ready) -> None:
        """Name for the other ranks what they lack: the snapshot in use, and patches as new.

        What is older may be removed before they come to read it, and holds nothing that is newer.
        """
        if ready.snapshot is not None:
            self._taken.insert(0, (ready.snapshot.step, str(ready.snapshot.folder)))
        self._taken += [(patch.step, str(patch.folder)) for patch in ready.patches]
        self._taken = [one for one in self._taken if one[0] >= self.snapshot.step]

    def _wait(self, tower: Embedder, step: int) -> None:
        """Wait for a builder, with a limit on waiting for one that does not move on.

        What counts as moving on is bounded: the last row for the newest parameters ends it.
        """
        limit = self.config.max_staleness_steps
        self._publisher.publish_for(tower, step)
        if self.config.when_stale == "stop" and self._was_fresh:
            raise self._stale(step, "refresh.when_stale is 'stop'")
        began = moved_on = time.monotonic()
        told, done = -math.inf, self._done()
        while self.staleness(step) > limit:
            now = time.monotonic()
            if (further := self._done()) > done:
                moved_on, done = now, further
            if now - moved_on > self.config.max_wait_seconds:
                raise self._stale(step, f"no builder moved on for {now - moved_on:.0f} seconds")
            if now - told >= SECONDS_BETWEEN_MESSAGES:
                told = now
                self.tell(
                    "waiting for a builder: the index is "
                    f"{counted(self.staleness(step), 'step')} old at step {step:,}, limit "
                    f"{limit:,} ({self._state_of_builders()})"
                )
            self._say("waiting for a builder", step)
            time.sleep(0.1)
            self._publisher.publish_for(tower, step)
            self._take(self._watcher.take())
        self.tell(f"waited {time.monotonic() - began:.0f} s for a builder at step {step:,}")

    def _stale(self, step: int, reason: str) -> StaleIndexError:
        if self._publisher.failure:
            reason += f"; its parameters could not be published: {self._publisher.failure}"
        return StaleIndexError(
            index_step=self.index.oldest_step(),
            train_step=step,
            limit_steps=self.config.max_staleness_steps,
            reason=f"{reason}; {self._state_of_builders()}",
            remedy=(
                "The same command goes on, also with more builders (`--set refresh.builders=N`, or "
                f"`realm index --follow {self.run}` beside it)"
            ),
        )

    def _done(self) -> tuple[int, tuple[int, int]]:
        """Return how far the index and the builders are: it grows when one moves on."""
        return self.index.oldest_step(), furthest(self.run, newest_step=self._publisher.newest)

    def _state_of_builders(self) -> str:
        seen = builders_of(self.run)
        found = [f"{one.name}: {state_of(one)}" for one in seen]
        told = "; ".join(found) or "no builder has come up"
        words = "" if any(one.is_alive for one in seen) else self._builders.last_words()
        return f"{told}; its last words: {words}" if words else told

    def _say(self, state: str, step: int) -> None:
        if self._presence is None:
            self._presence = self._stack.enter_context(present(trainer_file(self.run)))
        told: dict[str, Any] = {"step": step, "steps": self.num_steps}
        if self._index is not None:
            told |= {"snapshot_step": self.snapshot.step, "staleness_steps": self.staleness(step)}
        self._presence.tell(state=state, **told)
