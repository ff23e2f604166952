"""REALM: pre-train a retriever and a masked language model together, answer with evidence."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("realm-lm")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"
