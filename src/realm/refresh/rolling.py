"""A builder of a rolling refresh: a few passages at a time, each with the newest parameters.

What it publishes are patches. Once every row is newer than the newest snapshot, it publishes a
snapshot of them all, so that a resumed trainer finds one and old patches can go.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from realm.corpus.store import PassageStore
from realm.errors import ArtifactError
from realm.index.builder import PassageEmbedder
from realm.index.live import LiveIndex
from realm.index.snapshot import STEPS, Snapshot, list_snapshots, snapshot_folder
from realm.index.writing import snapshot_content, split_into_shards, write_matrix, write_shard
from realm.records import Progress
from realm.refresh.parameters import Loaded, Published, list_parameters, load_parameters
from realm.refresh.patches import list_patches, publish_patch, read_patch, versions_of
from realm.refresh.presence import Presence
from realm.refresh.priority import Order, next_rows
from realm.storage import EXTRA, Request, publish, write_json


class RollingBuilder:
    """Knows how old each row is, from what lies in the run's folder."""

    def __init__(
        self,
        run: Path,
        store: PassageStore,
        load: Callable[[Published], Loaded | None] = load_parameters,
    ) -> None:
        """Prepare; `look` reads.

        Args:
            run: the run's folder.
            store: the passages.
            load: returns parameters, None if they were removed meanwhile.
        """
        self.run = run
        self.store = store
        self.load = load
        self._live: LiveIndex | None = None
        self._loaded: Loaded | None = None
        self._seen: set[str] = set()
        self._versions: dict[int, str] = {}
        """Step -> hash of the parameters that made rows of this builder's copy."""

    def look(self) -> None:
        """Take in snapshots and patches of this and other builders.

        A trainer that went back to an older checkpoint publishes other parameters for the same
        steps: then everything is read anew.

        Raises:
            ArtifactError: there is no readable snapshot.
        """
        known = {one.step: one.model_hash for one in list_parameters(self.run)}
        newest = max(known, default=-1)
        went_back = bool(known) and any(
            step > newest or known.get(step, used) != used for step, used in self._versions.items()
        )
        if self._live is None or went_back:
            snapshot = self._newest_snapshot(after=-1)
            if snapshot is None:
                raise ArtifactError(f"{self.run} has no snapshot that can be read")
            self._live, self._seen, self._versions = LiveIndex(snapshot), set(), {}
            self._loaded = None
            self._versions = versions_of(snapshot)
        elif (snapshot := self._newest_snapshot(after=self._live.snapshot.step)) is not None:
            self._live.swap(snapshot)
            self._versions = versions_of(snapshot) | self._versions
        for _, folder in list_patches(self.run):
            if folder.name not in self._seen:
                self._seen.add(folder.name)
                self._take(folder, known)

    def work(
        self,
        newest: Published,
        *,
        order: str,
        presence: Presence,
        share: tuple[int, int],
        progress: Progress,
    ) -> bool:
        """Embed and publish the next rows; return False if all have the newest parameters.

        Args:
            newest: the parameters to use.
            order: see `next_rows`.
            presence: where progress is told.
            share: (number of this builder, builders): it embeds every so many rows only.
            progress: called with (rows that have the newest parameters, all); may raise.

        Raises:
            ArtifactError: something cannot be read or written.
        """
        live = self._need_live()
        if self._loaded is None or self._loaded.published != newest:
            presence.tell(state=f"loading parameters of step {newest.step}")
            self._loaded = self.load(newest)
        if (loaded := self._loaded) is None:
            return True
        steps = live.row_steps.clone()
        others = torch.arange(len(steps)) % share[1] != share[0]
        steps[others] = newest.step
        rows = next_rows(steps, newest.step, loaded.demand, loaded.index.shard_rows, _order(order))
        if not len(rows):
            return False
        began = time.monotonic()
        embed = PassageEmbedder(loaded.tower, self.store, loaded.index)
        done = int((live.row_steps >= newest.step).sum())

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(done, len(live))

        progress(done, len(live))
        vectors = embed(rows.tolist(), advance)
        folder = publish_patch(
            self.run,
            rows,
            vectors,
            version=newest.version,
            passages_fingerprint=self.store.fingerprint,
        )
        self._seen.add(folder.name)
        live.write(rows, vectors, newest.step)
        self._versions[newest.step] = newest.model_hash
        presence.tell(passages_per_second=len(rows) / max(1e-9, time.monotonic() - began))
        if live.oldest_step() > live.snapshot.step:
            self._publish_whole(live, loaded)
        return True

    def _publish_whole(self, live: LiveIndex, loaded: Loaded) -> None:
        """Publish a snapshot of the whole copy, called by its oldest row's step."""
        step = live.oldest_step()
        folder = snapshot_folder(self.run, step)
        if folder.exists():
            return
        model_hash = self._versions.get(step, loaded.published.model_hash)
        request = Request(
            kind="index",
            settings={**loaded.index.as_dict(), "step": step, "rolling": True},
            inputs={"passages": self.store.fingerprint, "embedder": model_hash},
        )
        shards = split_into_shards(len(live), loaded.index.shard_rows)
        with publish(folder, request) as scratch:
            for number, rows in enumerate(shards):
                write_shard(scratch, number, live.vectors(torch.tensor(rows)))
            write_matrix(scratch / STEPS, live.row_steps)
            content = snapshot_content(scratch, request, shards, loaded.tower.dim)
            versions = {str(step): used for step, used in sorted(self._versions.items())}
            write_json(scratch / EXTRA, {**content, "versions": versions})
        live.swap(Snapshot.open(folder))
        oldest = live.oldest_step()
        self._versions = {s: used for s, used in self._versions.items() if s >= oldest}

    def _newest_snapshot(self, *, after: int) -> Snapshot | None:
        """Return the newest snapshot that is whole; one that is damaged is left to the trainer."""
        for step, folder in reversed(list_snapshots(self.run)):
            if step <= after:
                return None
            try:
                snapshot = Snapshot.open(folder, verify=True)
                snapshot.check_passages(self.store.fingerprint)
            except ArtifactError:
                continue
            return snapshot
        return None

    def _take(self, folder: Path, known: dict[int, str]) -> None:
        try:
            patch = read_patch(folder, self.store.fingerprint)
        except ArtifactError:
            return  # removed meanwhile, or damaged: its rows count as old and come again
        if known.get(patch.step, patch.model_hash) == patch.model_hash:
            self._need_live().write(patch.rows, patch.vectors, patch.step)
            self._versions[patch.step] = patch.model_hash

    def _need_live(self) -> LiveIndex:
        if self._live is None:
            raise ArtifactError(f"{self.run} has no snapshot yet")
        return self._live


def _order(name: str) -> Order:
    orders: dict[str, Order] = {"oldest": "oldest", "hottest": "hottest", "drifted": "drifted"}
    return orders[name]
