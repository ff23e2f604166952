"""What whoever searches needs to know of an index, a snapshot or an approximate one."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from realm.index.mapped import MappedRows


@runtime_checkable
class Searchable(Protocol):
    """Passages that can be searched by inner product."""

    @property
    def exact(self) -> MappedRows:
        """[passages, dim] float32."""
        ...

    def __len__(self) -> int: ...

    def search(
        self, queries: Float[Tensor, "queries dim"], k: int
    ) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
        """Return (scores, rows) of k passages for each query, best first."""
        ...
