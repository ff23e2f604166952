"""Which releases are installed: what a run notes of itself, and what `realm doctor` looks at."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

PROJECT = "realm-lm"
DECISIVE = ("torch", "transformers", "tokenizers", "numpy")
"""Packages whose release can change what a run computes."""


def installed(package: str) -> str | None:
    """Return a package's release without importing it, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def realm_version() -> str:
    """Return the release of this package; "0+unknown" in a source tree that is not installed."""
    return installed(PROJECT) or "0+unknown"


def versions(packages: Sequence[str] = DECISIVE) -> dict[str, str | None]:
    """Return the releases of Python, realm and the packages, by name."""
    known = {"python": platform.python_version(), "realm": realm_version()}
    return known | {package: installed(package) for package in packages}
