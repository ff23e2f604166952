"""REALM: pre-train a retriever and a masked language model together, answer with evidence."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from realm.records import Document

if TYPE_CHECKING:
    from realm.library.loading import load as load

try:
    __version__ = version("realm-lm")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

__all__ = ["Document", "__version__", "load"]


def __getattr__(name: str) -> object:
    """Import `load` when it is asked for: it brings torch."""
    if name == "load":
        from realm.library.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
