"""Folders that are whole or absent: written aside, fsynced, renamed into place, never changed.

Every stage publishes one folder with a `manifest.json` that says what made it: format version,
kind, settings, fingerprints of the inputs, and a fingerprint of the content that later stages
name as their input. One process writes a folder at a time. What a folder replaces stays until it
is whole.
"""

from realm.storage.checking import check_file, check_files, checksums
from realm.storage.files import (
    MANIFEST,
    REQUEST,
    SEAL,
    beside,
    children,
    files_below,
    fingerprint,
    fingerprint_of,
    is_plain_name,
    not_read,
    passing_over_damage,
    read_json,
    sealed,
    sync,
    unreadable,
    write_json,
    write_plain_json,
    write_text,
)
from realm.storage.folders import (
    EXTRA,
    FORMAT_VERSION,
    PATIENCE_SECONDS,
    Request,
    finish_together,
    is_done,
    open_folder,
    publish,
    start_together,
    writing,
)
from realm.storage.lines import LinesWriter, lines_done, lines_manifest, read_lines, writing_lines
from realm.storage.locking import claimed, is_locked, lock_touched, locked, touch_lock
from realm.storage.replacing import mend, remove, replaced_folder, scratch_folder, set_aside
from realm.storage.verifying import Verification, VerifiedFile, verify

__all__ = [
    "EXTRA",
    "FORMAT_VERSION",
    "MANIFEST",
    "PATIENCE_SECONDS",
    "REQUEST",
    "SEAL",
    "LinesWriter",
    "Request",
    "Verification",
    "VerifiedFile",
    "beside",
    "check_file",
    "check_files",
    "checksums",
    "children",
    "claimed",
    "files_below",
    "fingerprint",
    "fingerprint_of",
    "finish_together",
    "is_done",
    "is_locked",
    "is_plain_name",
    "lines_done",
    "lines_manifest",
    "lock_touched",
    "locked",
    "mend",
    "not_read",
    "open_folder",
    "passing_over_damage",
    "publish",
    "read_json",
    "read_lines",
    "remove",
    "replaced_folder",
    "scratch_folder",
    "sealed",
    "set_aside",
    "start_together",
    "sync",
    "touch_lock",
    "unreadable",
    "verify",
    "write_json",
    "write_plain_json",
    "write_text",
    "writing",
    "writing_lines",
]
