"""Rows are scored as is quickest where they lie, never further off than the bound says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realm.index import scoring
from realm.index.mapped import MappedRows
from realm.index.scoring import ManyQueries, OneQuery, Widened, quickest_product


@pytest.mark.parametrize(
    ("is_quick", "num_queries", "product"),
    [(True, 1, OneQuery), (True, 2, ManyQueries), (False, 1, Widened), (False, 2, Widened)],
)
def test_16_bit_rows_are_multiplied_as_is_quickest_there(
    monkeypatch: pytest.MonkeyPatch, *, is_quick: bool, num_queries: int, product: type
) -> None:
    monkeypatch.setattr(scoring, "has_quick_bfloat16", lambda _: is_quick)
    rows = MappedRows([torch.zeros(8, 128, dtype=torch.bfloat16)])
    assert quickest_product(num_queries, rows) is product


@pytest.mark.parametrize("product", [ManyQueries, Widened, OneQuery])
@settings(max_examples=60)
@given(dim=st.integers(1, 32), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 10_000))
def test_the_bound_holds_for_every_row(
    product: type[ManyQueries | Widened | OneQuery], dim: int, scale: float, seed: int
) -> None:
    """|q.x - scanned| never exceeds the error that the floor allows for."""
    chance = torch.Generator().manual_seed(seed)
    query = scale * torch.randn(1, 2 * dim, generator=chance)
    passages = torch.randn(200, 2 * dim, generator=chance)
    passages *= 1 + torch.rand(200, 1, generator=chance)
    rounded = passages.bfloat16()
    scan = product(query)
    scanned = torch.empty(200, 1, dtype=scan.dtype)
    scan.score(rounded, scanned)
    truth = query.double() @ passages.double().T
    errors = scan.errors(
        query,
        max_norm=float(passages.norm(dim=-1).max()),
        max_rounding=float((passages - rounded.float()).norm(dim=-1).max()),
    )
    allowed = errors.absolute[:, None] + errors.relative * scanned.T.abs()
    assert ((truth - scanned.T.double()).abs() <= allowed).all()
