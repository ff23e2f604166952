"""What a server allows, as one record."""

from dataclasses import dataclass

from realm.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names under which only this machine reaches a server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request, one client and all of them together may ask for."""

    body_bytes: int = 1 << 20
    """Of a request, unless it brings documents."""
    upload_bytes: int = 64 << 20
    """Of a request that brings documents."""
    body_seconds: float = 30.0
    """Longest wait for the next piece of a body, and for all of it where it comes too slowly."""
    head_seconds: float = 10.0
    """Until a connection, or one whose response is out, has brought a request's whole head."""
    take_seconds: float = 20.0
    """Within which a client has to take something of its response."""
    bytes_per_second: float = 4_096.0
    """Slowest pace, in the long run, of a body that comes and of a response that is taken."""
    max_connections: int = 1_000
    """At once, of all clients together; fewer where the process may open fewer files."""
    uploads_at_once: int = 4
    """Whole ones of the largest size that all bodies together may take in memory."""
    requests_per_second: float = 50.0
    """Of one client, for long."""
    burst: int = 100
    """Requests that a client may make at once after a pause."""
    max_waiting: int = 64
    """Questions that wait for their turn; also changes of documents, and searches, each."""
    graceful_seconds: float = 30.0
    """Given to what is in flight when the server is told to stop."""

    def __post_init__(self) -> None:
        """Refuse limits that let nothing through.

        Raises:
            ConfigError: it is so.
        """
        for name in (
            "body_bytes",
            "upload_bytes",
            "body_seconds",
            "head_seconds",
            "take_seconds",
            "bytes_per_second",
            "max_connections",
            "uploads_at_once",
            "burst",
            "max_waiting",
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f"found {name}={getattr(self, name)}, expected more than 0")
        if self.requests_per_second <= 0 or self.graceful_seconds < 0:
            raise ConfigError(
                f"found requests_per_second={self.requests_per_second}, "
                f"graceful_seconds={self.graceful_seconds}; expected more than 0, at least 0"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How concurrent questions are put together."""

    max_questions: int = 8
    """Answered together at most; 1: one question at a time, each with all cores."""
    max_passages: int = 80
    """Read in one batch at most, all its questions together; a single question may read more."""
    wait_seconds: float = 0.003
    """How long a batch waits for more questions while others are in flight."""
    num_lanes: int | None = None
    """Batches answered at once, each on its share of the cores; None: one for each core, at most
    MAX_LANES (on a GPU: one)."""

    def __post_init__(self) -> None:
        """Refuse sizes that answer nothing.

        Raises:
            ConfigError: it is so.
        """
        if self.max_questions < 1 or self.wait_seconds < 0 or (self.num_lanes or 1) < 1:
            raise ConfigError(
                f"found max_questions={self.max_questions}, wait_seconds={self.wait_seconds}, "
                f"num_lanes={self.num_lanes}; expected at least 1, 0 and 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may ask."""

    token: str | None = None
    """What clients send as `Authorization: Bearer TOKEN`; None: anyone who reaches the server."""
    origins: tuple[str, ...] = ()
    """Other web pages that may call (CORS); `*`: all."""
    hosts: tuple[str, ...] = LOOPBACK
    """Names that a request may have for this server (`Host`), against DNS rebinding; `*`: all."""
