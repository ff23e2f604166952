"""REALM: pre-train a retriever and a masked language model together, answer with evidence."""

from typing import TYPE_CHECKING

from realm.records import Document

if TYPE_CHECKING:
    from realm.library.loading import load as load

    __version__: str

__all__ = ["Document", "__version__", "load"]


def __getattr__(name: str) -> object:
    """Import what is asked for: `load` brings torch, `__version__` a parser of metadata."""
    if name == "load":
        from realm.library.loading import load

        return load
    if name == "__version__":
        from realm.versions import realm_version

        return realm_version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return what completes behind `realm.`: `load`, too, which is imported when asked for."""
    return sorted({*globals(), *__all__})
