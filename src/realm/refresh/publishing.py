"""A trainer's parameters for the builders: when they are due, and another thread that writes them.

The trainer hands over a copy and goes on. What could not be written is due again at the next step.
"""

import copy
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor

from realm.checkpoint.parts import tower_hash
from realm.config import IndexConfig, RefreshConfig
from realm.corpus.store import PassageStore
from realm.index.builder import EmbedderVersion
from realm.model.embedder import Embedder
from realm.refresh.drift import Drift
from realm.refresh.parameters import publish_parameters
from realm.refresh.priority import Demand, DemandCounter, nothing_retrieved
from realm.refresh.watching import words_of

SECONDS_BETWEEN_TRIES = 1.0
"""Between two tries to publish parameters, when the disk is full."""


class Publisher:
    """Publishes the parameters of Embed_doc, and which passages are in demand."""

    def __init__(
        self,
        run: Path,
        store: PassageStore,
        *,
        config: RefreshConfig,
        index: IndexConfig,
        drift: Drift,
        allow: Callable[[Mapping[int, str]], None],
        tell: Callable[[str], None],
        afterwards: Callable[[], None],
    ) -> None:
        """Prepare; nothing is written yet.

        Args:
            run: the run's folder.
            store: the passages.
            config: when parameters are due.
            index: how builders embed passages with them.
            drift: of the index in use; begins anew with each publication.
            allow: called with step -> hash of parameters before builders can see them.
            tell: called with a sentence when they cannot be published.
            afterwards: called in the other thread after each try.
        """
        self.run = run
        self.store = store
        self.config = config
        self.index_config = index
        self.drift = drift
        self.newest = -1
        """Step of the newest parameters that were published, or are being."""
        self.failure = ""
        """Why parameters could not be published at the last try; '': they could."""
        self._allow = allow
        self._tell = tell
        self._afterwards = afterwards
        self._demand = DemandCounter(len(store))
        self._since: dict[int, float] = {}
        """Step of parameters -> when they were handed over."""
        self._thread: threading.Thread | None = None

    def count(self, rows: Int[Tensor, " seen"], drift: Float[Tensor, " seen"]) -> None:
        """Take in which passages were candidates, and how far their scores had drifted."""
        self._demand.count(rows, drift)

    def is_due(self, step: int) -> bool:
        """Return whether parameters are to be published before this step."""
        if step <= self.newest or self._is_busy:
            return False
        if self.failure:
            return True
        age = step - self.newest
        if self.config.drift_bound is not None:
            # Also in time for the bound on staleness, however little the embedder drifts.
            too_old = 2 * age >= self.config.max_staleness_steps
            return too_old or self.drift.fall > self.config.drift_bound
        return age >= self.config.publish_every_steps

    def publish_first(self, tower: Embedder, version: EmbedderVersion) -> None:
        """Publish the parameters of the first snapshot at once, in this thread.

        Raises:
            ArtifactError: they cannot be written.
        """
        self.newest = version.step
        self._write(copy.deepcopy(tower), version, nothing_retrieved())

    def publish(self, tower: Embedder, step: int) -> None:
        """Hand a copy of the parameters to a thread that writes them."""
        frozen = copy.deepcopy(tower).eval()
        age = step - max(0, self.newest)
        demand = self._demand.take(keep=0.5 ** (age / self.config.every_steps))
        self.drift.restart()
        self.newest = step
        self._thread = threading.Thread(
            target=self._write_safely, args=(frozen, step, demand), name="publish", daemon=True
        )
        self.note_age(step)
        self._thread.start()

    def publish_for(self, tower: Embedder, step: int) -> None:
        """Publish the parameters of this step, unless they are, or are being."""
        if not self._is_busy and (self.newest < step or self.failure):
            self.publish(tower, step)

    def note_age(self, step: int) -> None:
        """Count the age of what is made with the parameters of a step from now on."""
        self._since[step] = time.monotonic()

    def age_seconds(self, step: int) -> float | None:
        """Return how old what was made with the parameters of a step is; None: nobody knows."""
        known = [since for made, since in self._since.items() if made <= step]
        return time.monotonic() - max(known) if known else None

    def wait(self, seconds: float) -> None:
        """Wait for what is being published, at most so long."""
        if self._thread:
            self._thread.join(timeout=seconds)

    @property
    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _write_safely(self, tower: Embedder, step: int, demand: Demand) -> None:
        try:
            version = EmbedderVersion(model_hash=tower_hash(tower), step=step)
            self._allow({step: version.model_hash})
            self._write(tower, version, demand)
            self.failure = ""
        # Of every kind, as memory that is short: else the trainer would wait for what never comes.
        except BaseException as error:  # noqa: BLE001
            self.failure = words_of(error)  # due again at the next step
            self._tell(f"cannot publish parameters of step {step}: {self.failure}; trying again")
            time.sleep(SECONDS_BETWEEN_TRIES)
        self._afterwards()

    def _write(self, tower: Embedder, version: EmbedderVersion, demand: Demand) -> None:
        publish_parameters(
            self.run,
            tower,
            version=version,
            tokenizer=self.store.tokenizer,
            index=self.index_config,
            passages_fingerprint=self.store.fingerprint,
            demand=demand,
        )
