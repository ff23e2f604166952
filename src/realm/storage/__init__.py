"""Folders that are whole or absent: written aside, fsynced, renamed into place, never changed.

Every stage publishes one folder with a `manifest.json` that says what made it: format version,
kind, settings, fingerprints of the inputs, and a fingerprint of the content that later stages
name as their input. One process writes a folder at a time. What a folder replaces stays until it
is whole.
"""

from realm.storage.files import (
    MANIFEST,
    REQUEST,
    fingerprint,
    fingerprint_of,
    read_json,
    sync,
    write_json,
)
from realm.storage.folders import (
    EXTRA,
    FORMAT_VERSION,
    Request,
    is_done,
    open_folder,
    publish,
)
from realm.storage.locking import locked
from realm.storage.replacing import mend, remove, replaced_folder, scratch_folder, set_aside

__all__ = [
    "EXTRA",
    "FORMAT_VERSION",
    "MANIFEST",
    "REQUEST",
    "Request",
    "fingerprint",
    "fingerprint_of",
    "is_done",
    "locked",
    "mend",
    "open_folder",
    "publish",
    "read_json",
    "remove",
    "replaced_folder",
    "scratch_folder",
    "set_aside",
    "sync",
    "write_json",
]
