"""The trainer's other thread: finds new snapshots and patches, verifies them, lays them ready.

What is damaged or of another branch of the run is removed, so that it is built again; the trainer
never sees it. What the system does not hand out may be whole: it stays, and is tried again. Between
two steps the trainer takes what is ready, which costs no reading.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from realm.errors import ArtifactError, RealmError, UnreadableError
from realm.index.snapshot import Snapshot, list_snapshots
from realm.refresh.patches import Patch, list_patches, read_patch, versions_of
from realm.storage import remove

POLL_SECONDS = 0.25
RETRY_SECONDS = 5.0
Tell = Callable[[str], None]


@dataclass(kw_only=True)
class Ready:
    """What can be swapped in."""

    snapshot: Snapshot | None = None
    patches: list[Patch] = field(default_factory=list[Patch])


class Watcher:
    """Watches a run's folder for what builders publish."""

    def __init__(
        self,
        run: Path,
        passages_fingerprint: str,
        *,
        is_rolling: bool,
        tell: Tell,
        look_after: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            run: the run's folder.
            passages_fingerprint: of the passages that snapshots must be of.
            is_rolling: look for patches too.
            tell: called with a sentence when something is refused.
            look_after: called at each look (builders are started again).
        """
        self.run = run
        self.passages_fingerprint = passages_fingerprint
        self.is_rolling = is_rolling
        self.tell = tell
        self.look_after = look_after
        self._ready = Ready()
        self._versions: dict[int, str] = {}
        self._newest = -1
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refresh", daemon=True)

    def start(self, newest_step: int) -> None:
        """Begin to look for snapshots newer than one that is in use."""
        self._newest = newest_step
        self._thread.start()

    def allow(self, versions: Mapping[int, str]) -> None:
        """Say which parameters are published: step -> hash. Others' vectors are refused."""
        with self._lock:
            self._versions |= versions

    def allowed(self) -> dict[int, str]:
        """Return step -> hash of all parameters that were published."""
        with self._lock:
            return dict(self._versions)

    def take(self) -> Ready:
        """Return what is ready, and forget it."""
        with self._lock:
            ready, self._ready = self._ready, Ready()
        return ready

    def stop(self) -> None:
        """End the thread; a file that is being read is given up."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)

    def look(self) -> None:
        """Look once: at the newest snapshots first, then at patches.

        Raises:
            UnreadableError: one cannot be read; all others have been looked at.
        """
        withheld: list[UnreadableError] = []
        for step, folder in reversed(list_snapshots(self.run)):
            if step <= self._newest or self._stop.is_set():
                break
            try:
                snapshot = self._verified(folder)
            except UnreadableError as error:
                withheld.append(error)
                continue
            if snapshot is not None:
                with self._lock:
                    self._ready.snapshot = snapshot
                self._newest = step
                break
        for _, folder in list_patches(self.run) if self.is_rolling else ():
            if folder.name in self._seen or self._stop.is_set():
                continue
            try:
                self._take_patch(folder)
            except UnreadableError as error:
                withheld.append(error)
                continue
            self._seen.add(folder.name)
        if withheld:
            raise withheld[0]

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                try:
                    self.look()
                finally:
                    if not self._stop.is_set():
                        self.look_after()
            # Of every kind: a thread that ends finds no snapshot and starts no builder any more.
            except BaseException as error:  # noqa: BLE001
                self.tell(f"cannot look for snapshots: {words_of(error)}; trying again")
                self._stop.wait(RETRY_SECONDS)

    def _verified(self, folder: Path) -> Snapshot | None:
        """Return a snapshot that may be used; remove one that may not.

        Raises:
            UnreadableError: it cannot be read, and may be whole.
        """
        try:
            snapshot = Snapshot.open(folder, verify=True)
            snapshot.check_passages(self.passages_fingerprint)
            self._check_versions(versions_of(snapshot), folder)
        except UnreadableError:
            raise
        except ArtifactError as error:
            self._refuse(folder, error)
            return None
        return snapshot

    def _take_patch(self, folder: Path) -> None:
        try:
            patch = read_patch(folder, self.passages_fingerprint)
            self._check_versions({patch.step: patch.model_hash}, folder)
        except UnreadableError:
            raise
        except ArtifactError as error:
            if folder.exists():  # else it was removed: a newer snapshot holds its rows
                self._refuse(folder, error)
            return
        with self._lock:
            self._ready.patches.append(patch)

    def _check_versions(self, used: Mapping[int, str], folder: Path) -> None:
        known = self.allowed()
        for step, model_hash in used.items():
            if known.get(step) != model_hash:
                raise ArtifactError(
                    f"{folder} was made with parameters of step {step} that this run has not "
                    "published: it was resumed from an earlier step"
                )

    def _refuse(self, folder: Path, error: ArtifactError) -> None:
        if not folder.exists():
            return
        self.tell(f"refused: {error}. The older index stays in use")
        try:
            remove(folder)
        except ArtifactError as failure:
            self.tell(str(failure))


def words_of(error: BaseException) -> str:
    """Return an error for a sentence: with its kind, where its own words are for programmers."""
    told = str(error)
    return told if isinstance(error, (RealmError, OSError)) else f"{type(error).__name__}: {told}"
