"""What can be searched: a snapshot, a live index, one that re-ranks, one in parts."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from realm.index.mapped import MappedRows


@runtime_checkable
class Searchable(Protocol):
    """Maximum inner product search over the passages."""

    def __len__(self) -> int:
        """Return the number of passages."""
        ...

    def search(
        self, queries: Float[Tensor, "queries dim"], k: int
    ) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
        """Return the k best (scores, rows) of each query, best first."""
        ...


@runtime_checkable
class VectorIndex(Searchable, Protocol):
    """A searchable whose vectors can be read."""

    @property
    def exact(self) -> MappedRows:
        """[passages, dim] float32."""
        ...
