"""FAISS IVF-PQ beside a snapshot: for corpora that are too large to compare with every query.

The vectors are sorted into lists by direction; a query looks into the nearest lists only, where
vectors stand as short codes. What it finds is scored again with the snapshot's 32-bit vectors:

    approximate/
        ivfpq.faiss         centroids, codes and row numbers (40 bytes a passage at width 128)
        manifest.json       settings, the snapshot's fingerprint, recall@k against exact search

Between two refreshes of a training run the exact search is the cheaper one (docs/scale.md); this
one is for serving and for very many passages.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from realm.config import ApproximateConfig
from realm.errors import ArtifactError
from realm.index.exact import check_k, in_order, rescore
from realm.index.faiss_library import fit_lists, import_faiss, nearest_rows
from realm.index.ivfpq import choose_layout
from realm.index.mapped import MappedRows
from realm.index.snapshot import Snapshot
from realm.index.writing import write_matrix
from realm.records import Progress
from realm.storage import (
    EXTRA,
    MANIFEST,
    Request,
    check_files,
    is_done,
    open_folder,
    publish,
    read_json,
    write_json,
)

KIND = "approximate"
FILE = "ivfpq.faiss"
ROWS_AT_ONCE = 1 << 16
"""Vectors that are read and added at once (32 MiB at width 128)."""


@dataclass(frozen=True, kw_only=True)
class ApproximateIndex:
    """An opened approximate index; searches like a `Snapshot`."""

    folder: Path
    snapshot: Snapshot
    probes: int
    widen: int
    recall: float
    """Share of the exact top `recall_at` that is found, as measured when it was built."""
    recall_at: int
    _lists: Any

    @classmethod
    def open(
        cls,
        folder: Path,
        snapshot: Snapshot,
        *,
        probes: int | None = None,
        widen: int | None = None,
    ) -> "ApproximateIndex":
        """Load the codes into memory; the snapshot's exact vectors stay mapped.

        Args:
            folder: where `build_approximate` published it.
            snapshot: what it was built from.
            probes: lists to look into; None: as it was built, and its recall measured.
            widen: see `ApproximateConfig.widen`; None: as it was built.

        Raises:
            ArtifactError: missing, unfinished, damaged, or of another snapshot.
            ConfigError: faiss is not installed.
        """
        manifest = open_folder(folder, KIND)
        remedy = "make it again with `realm approximate` and --rebuild"
        check_files(folder, manifest, remedy=remedy)
        _check_source(folder, manifest, snapshot)
        faiss = import_faiss()
        try:
            lists = faiss.read_index(str(folder / FILE))
            settings, content = manifest["settings"], manifest["content"]
            opened = cls(
                folder=folder,
                snapshot=snapshot,
                probes=min(probes or int(settings["probes"]), lists.nlist),
                widen=widen or int(settings["widen"]),
                recall=float(content["recall"]),
                recall_at=int(content["recall_at"]),
                _lists=lists,
            )
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{folder / FILE}, or the manifest beside it, is damaged or cannot be read "
                f"({str(error).splitlines()[0][:80]}); mend its permissions, or {remedy}"
            ) from None
        if lists.ntotal != len(snapshot):
            raise ArtifactError(
                f"{folder} holds {lists.ntotal:,} vectors, its snapshot {len(snapshot):,}; make it "
                "again with `realm approximate`"
            )
        lists.nprobe = opened.probes
        return opened

    def __len__(self) -> int:
        return len(self.snapshot)

    @property
    def exact(self) -> MappedRows:
        """[passages, dim] float32: the snapshot's."""
        return self.snapshot.exact

    @property
    def step(self) -> int:
        """Training step of the embedder's parameters."""
        return self.snapshot.step

    def search(
        self, queries: Float[Tensor, "queries dim"], k: int
    ) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
        """Return (scores, rows) of the k best that were found, exact scores, best first.

        Queries whose lists hold fewer than k passages are searched exactly.

        Raises:
            ValueError: k is not between 1 and the number of passages.
        """
        check_k(k, len(self))
        queries = queries.detach().float()
        rows = nearest_rows(self._lists, queries, min(self.widen * k, len(self)))
        is_found = rows >= 0
        scores = rescore(queries, self.snapshot.exact, rows.clamp_min(0))
        scores, rows = in_order(scores.masked_fill(~is_found, float("-inf")), rows)
        scores, rows = scores[:, :k].clone(), rows[:, :k].clone()
        too_few = (is_found.sum(dim=-1) < k).nonzero()[:, 0]
        if len(too_few):
            scores[too_few], rows[too_few] = self.snapshot.search(queries[too_few], k)
        return scores, rows

    def check_passages(self, passages_fingerprint: str) -> None:
        """Refuse a passage store that the snapshot was not built from."""
        self.snapshot.check_passages(passages_fingerprint)


def build_approximate(
    snapshot: Snapshot,
    out: Path,
    *,
    config: ApproximateConfig,
    queries: Float[Tensor, "queries dim"] | None = None,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> ApproximateIndex:
    """Publish an approximate index of a snapshot and open it.

    Lists and codes are fitted to a sample; the vectors are then added as they are read, so that
    memory holds the sample and the codes, never the vectors.

    Args:
        snapshot: whose 32-bit vectors are coded.
        out: folder to publish.
        config: sizes; None among them are chosen by the number of passages.
        queries: to measure the recall with. None: some of the passages' own vectors, each without
            the passage itself, which says how passages find their like, not how questions do.
        rebuild: replace what stands in `out`.
        progress: called with (vectors added, vectors).

    Raises:
        ConfigError: faiss is not installed, or the sizes do not fit the snapshot.
        ArtifactError: `out` was made from something else.
    """
    layout = choose_layout(config, num_passages=len(snapshot), dim=snapshot.exact.dim)
    given = "passages" if queries is None else "given"
    request = Request(
        kind=KIND,
        settings={**config.as_dict(), "queries": given},
        inputs={"snapshot": _fingerprint(snapshot)},
    )
    if is_done(out, request, rebuild=rebuild):
        return ApproximateIndex.open(out, snapshot)
    faiss = import_faiss()
    with publish(out, request, replace=rebuild) as scratch:
        lists = fit_lists(
            faiss, _sample(snapshot, layout.training_rows, config.seed), layout, config
        )
        for start, vectors in _portions(snapshot):
            lists.add(vectors.numpy())
            if progress:
                progress(start + len(vectors), len(snapshot))
        lists.nprobe = min(config.probes, layout.lists)
        # Not FAISS's `write_index`: on a full disk it can leave the end out and say nothing.
        write_matrix(scratch / FILE, torch.from_numpy(faiss.serialize_index(lists)))
        built = ApproximateIndex(
            folder=out,
            snapshot=snapshot,
            probes=lists.nprobe,
            widen=config.widen,
            recall=0.0,
            recall_at=min(config.recall_at, len(snapshot) - 1),
            _lists=lists,
        )
        recall, num_queries = _measure(built, queries, config)
        content = {
            "num_passages": len(snapshot),
            "dim": snapshot.exact.dim,
            **layout.as_dict(),
            "recall": recall,
            "recall_at": built.recall_at,
            "recall_queries": num_queries,
            "recall_queries_are": given,
        }
        write_json(scratch / EXTRA, content)
    return ApproximateIndex.open(out, snapshot)


def recall_against_exact(
    index: ApproximateIndex, queries: Float[Tensor, "queries dim"], k: int
) -> float:
    """Return the share of the exact top k of each query that the index finds."""
    _, found = index.search(queries, k)
    _, wanted = index.snapshot.search(queries, k)
    return float((found[:, :, None] == wanted[:, None, :]).any(dim=1).float().mean())


def _measure(
    index: ApproximateIndex, queries: Tensor | None, config: ApproximateConfig
) -> tuple[float, int]:
    """Return (recall@k against exact search, queries that it was measured with)."""
    if queries is not None:
        sample = queries[: config.recall_queries].float()
        return recall_against_exact(index, sample, index.recall_at), len(sample)
    rows = _sample_rows(len(index), config.recall_queries, config.seed + 2)
    own = index.snapshot.exact[rows]
    k = index.recall_at
    _, found = index.search(own, k + 1)
    _, wanted = index.snapshot.search(own, k + 1)
    shares = [
        len({*_others(f, row, k)} & {*_others(w, row, k)}) / k
        for f, w, row in zip(found.tolist(), wanted.tolist(), rows.tolist(), strict=True)
    ]
    return sum(shares) / len(shares), len(shares)


def _others(rows: list[int], own: int, k: int) -> list[int]:
    return [row for row in rows if row != own][:k]


def _sample(snapshot: Snapshot, count: int, seed: int) -> Float[Tensor, "sample dim"]:
    return snapshot.exact[_sample_rows(len(snapshot), count, seed)].contiguous()


def _sample_rows(total: int, count: int, seed: int) -> Int[Tensor, " sample"]:
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(total, generator=generator)[: min(count, total)]
    return chosen.sort().values  # in the order of the file


def _portions(snapshot: Snapshot) -> Iterator[tuple[int, Shaped[Tensor, "rows dim"]]]:
    for start, rows in snapshot.exact.chunks(ROWS_AT_ONCE):
        yield start, rows.contiguous()


def _fingerprint(snapshot: Snapshot) -> str:
    return str(read_json(snapshot.folder / MANIFEST)["fingerprint"])


def _check_source(folder: Path, manifest: dict[str, Any], snapshot: Snapshot) -> None:
    found = str(manifest.get("inputs", {}).get("snapshot"))
    expected = _fingerprint(snapshot)
    if found != expected:
        raise ArtifactError(
            f"{folder} was built from snapshot {found[:12]}..., but {snapshot.folder} is "
            f"{expected[:12]}...; pass the snapshot it was built from, or make it again with "
            "`realm approximate`"
        )
