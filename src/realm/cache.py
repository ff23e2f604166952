"""Where results that can be made again are kept for the next call: the user's cache folder."""

import os
from pathlib import Path

VARIABLE = "REALM_CACHE"
"""Environment variable that names another folder."""


def cache_folder() -> Path:
    """Return $REALM_CACHE, else `realm` in the user's cache folder by the XDG rules.

    That is $XDG_CACHE_HOME if it is an absolute path, else ~/.cache. Nothing is created.
    """
    if own := os.environ.get(VARIABLE):
        return Path(own).expanduser()
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "realm"
