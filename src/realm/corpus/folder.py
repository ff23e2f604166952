"""A folder of somebody's own files -> articles, for answers that can be found again.

Unlike `read_articles`, which reads a corpus, nothing here stops at a file that cannot be used:
it is counted by reason. An article's id is the file's path in the folder, for a record of JSON
lines with its own id (or its line) behind it; a text file's characters are the article's.
"""

import errno
import hashlib
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from realm.config import SplitConfig
from realm.corpus.articles import DUMP, JSONL, TEXT_FILES, check_name, heading_of, parse_line
from realm.corpus.places import PlaceNotes
from realm.corpus.reading import (
    BAD_NAME,
    NOT_READ,
    NOWHERE,
    NUM_PLACES,
    OTHER_IN_FOLDER,
    OUTSIDE,
    TEXT_LIMIT,
    TOO_LONG,
    Found,
    Place,
    Reading,
    leads_out,
    written_name,
)
from realm.corpus.shards import open_shard
from realm.corpus.split import SplitReport, store_found
from realm.corpus.streams import read_blocks, read_lines
from realm.corpus.whole_files import text_of
from realm.errors import ArtifactError, CorpusError, WithheldError
from realm.records import Article, Progress, Skipped
from realm.storage import MANIFEST, REQUEST, fingerprint_of, read_json, unreadable
from realm.tokenizer import WordpieceTokenizer

READ = (
    ".txt and .md files and JSON lines with id, title and text (.jsonl, also .gz, .bz2 or .zst), "
    "in UTF-8, in a folder at any depth, or one such file"
)
OFFICE = {".docx", ".epub", ".htm", ".html", ".odt", ".org", ".pptx", ".rst", ".rtf", ".tex"}
PACKED = {".7z", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip"}
HASHED_BYTES = 1 << 20
MADE_WITH = {"format_version", "kind", "settings", "inputs"}
"""What the manifest of every folder that realm makes holds, and the request before it."""
NOTHING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
"""What the system says of a path that leads to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFile:
    """A file of a folder."""

    name: str
    """Its path in the folder, with slashes; the file's own name where it was given itself."""
    path: Path


def list_files(docs: Path, skipped: Skipped) -> list[TextFile]:
    """Return the files that are read, by name; hidden ones are passed over, others counted.

    So are folders that realm made: runs, passages, what is kept of an earlier question. A link is
    followed to another place in the folder, never out of it.

    Args:
        docs: a folder, or one file.
        skipped: counts files of other kinds, and folders that cannot be opened.

    Raises:
        CorpusError: there is nothing at `docs`, or nothing in it that is read.
        WithheldError: it is a folder that cannot be listed.
    """
    found = find_files(docs, skipped)
    if not found:
        raise CorpusError(f"found no text in {docs}{_left_out(skipped)}; expected {READ}")
    return found


def find_files(
    docs: Path, skipped: Skipped, *, not_listed: list[str] | None = None
) -> list[TextFile]:
    """Return the same, also where there is nothing yet that is read.

    Args:
        docs: a folder, or one file.
        skipped: see `list_files`.
        not_listed: gets the names of folders in it that cannot be opened, and of what the system
            does not tell what it is, with slashes.

    Raises:
        CorpusError: there is nothing at `docs`, or one file that is not read.
        WithheldError: it is a folder that cannot be listed, or the system does not tell what it is.
    """
    try:
        mode = _mode(docs)
    except OSError as error:
        raise WithheldError(str(unreadable(docs, error))) from None
    if stat.S_ISREG(mode):
        check_name(docs)
        if not _is_read(docs.name):
            raise CorpusError(
                f"{docs} is of no kind that is read; expected {READ}. {_how_to_read(docs)}"
            )
        return [TextFile(name=docs.name, path=docs)]
    if not stat.S_ISDIR(mode):
        raise CorpusError(f"found no file or folder {docs}; expected {READ}")
    found: list[TextFile] = []
    withheld = _Withheld(docs, skipped, not_listed)
    for folder, inner, names in os.walk(docs, onerror=withheld.folder):
        if _is_made_by_us(Path(folder), names):
            inner.clear()
            continue
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        paths = (Path(folder, name) for name in inner)
        # No link is followed; `islink` says no, too, where the system does not tell.
        links = [path.name for path in paths if os.path.islink(path) and leads_out(path, docs)]  # noqa: PTH114
        for file in (Path(folder, name) for name in sorted(names + links) if name[0] != "."):
            name = file.relative_to(docs).as_posix()
            try:
                reason = _left_out_for(file, name, docs)
            except OSError:
                withheld.add(name)
                continue
            if reason:
                skipped.add(reason, str(Place(written_name(name), 1)))
            else:
                found.append(TextFile(name=name, path=file))
    return sorted(found, key=lambda file: file.name)


def _how_to_read(file: Path) -> str:
    """Return how a file of another kind becomes one that is read."""
    kind, name = file.suffix.lower(), shlex.quote(file.name)
    if kind == ".parquet" or DUMP.search(file.name.lower()):
        return "`realm split` reads Parquet and Wikipedia dumps; pass what it makes as --passages"
    if kind == ".pdf":
        return f"Make it text first, with `pdftotext {name}`"
    if kind in OFFICE:
        return f"Make it text first, with `pandoc {name} -o {shlex.quote(file.stem + '.md')}`"
    return "Unpack it first" if kind in PACKED else "Make it text first"


def _is_made_by_us(folder: Path, names: list[str]) -> bool:
    """Return whether a stage made a folder, or is at it: its logs are nobody's documents."""
    for name in {MANIFEST, REQUEST}.intersection(names):
        with suppress(ArtifactError):  # somebody else's file of that name
            return read_json(folder / name).keys() >= MADE_WITH
    return False


def _left_out_for(file: Path, name: str, docs: Path) -> str:
    """Return the reason why a file of a folder is not read, '' for one that is.

    Raises:
        OSError: the system does not tell what it is.
    """
    if written_name(name) != name:
        return BAD_NAME
    if leads_out(file, docs):
        return OUTSIDE
    if not (mode := _mode(file)) and file.is_symlink():
        return NOWHERE
    return "" if stat.S_ISREG(mode) and _is_read(name) else OTHER_IN_FOLDER


def _mode(path: Path) -> int:
    """Return type and permissions of what is at a path, 0 for nothing.

    Path.is_file does not tell nothing from what cannot be seen now, as on a network disk.

    Raises:
        OSError: the system does not tell.
    """
    try:
        return path.stat().st_mode
    except ValueError:  # no path: it holds a zero byte
        return 0
    except OSError as error:
        if error.errno in NOTHING:
            return 0
        raise


@dataclass(frozen=True, slots=True)
class _Withheld:
    """What is done with what the system does not show."""

    docs: Path
    skipped: Skipped
    names: list[str] | None

    def folder(self, error: OSError) -> None:
        """Count a folder that cannot be listed, or raise where it is the whole."""
        if isinstance(error, FileNotFoundError):
            return  # gone since it was listed
        path = Path(str(error.filename))
        if path == self.docs:
            raise WithheldError(str(unreadable(path, error)))
        self.add(path.relative_to(self.docs).as_posix())

    def add(self, name: str) -> None:
        """Count something in it, by its name."""
        self.skipped.add(NOT_READ, str(Place(written_name(name), 1)))
        if self.names is not None:
            self.names.append(name)


def hash_files(files: list[TextFile]) -> dict[str, str]:
    """Return the sha256 of each file's content by its name; of one that cannot be read, ''."""
    return {file.name: _hash(file.path) for file in files}


def read_files(files: list[TextFile], skipped: Skipped) -> Iterator[tuple[Found, bool]]:
    """Yield (article, whether it is a text file) of files, one article at a time.

    Args:
        files: of `list_files`.
        skipped: counts what is left out, by reason, with its place.
    """
    reading = Reading(drop_titles=(), on_error="skip", skipped=skipped)
    for file in files:
        is_text = not JSONL.search(file.name.lower())
        read = _read_text if is_text else _read_records
        try:
            for found in read(file, reading):
                if reading.admits(found):
                    yield found, is_text
        except CorpusError:  # it cannot be opened, or is damaged from here on
            skipped.add(NOT_READ, str(Place(file.name, 1)))


def split_files(
    docs: Path,
    files: list[TextFile],
    out: Path,
    *,
    hashes: dict[str, str],
    config: SplitConfig,
    tokenizer: WordpieceTokenizer,
    skipped: Skipped,
    progress: Progress | None = None,
) -> SplitReport:
    """Publish the passages of files, and where each stands, as the folder `out`.

    Args:
        docs: what the user named.
        files: of `list_files`.
        out: must not exist.
        hashes: of `hash_files`, taken before.
        config: how to cut.
        tokenizer: the model's.
        skipped: counts what is left out.
        progress: called with the number of articles split so far, and 0.

    Raises:
        CorpusError: no file holds text, or one changed meanwhile; nothing is published.
        ArtifactError: `out` cannot be written.
    """
    notes = PlaceNotes()
    skipped.keep = NUM_PLACES

    def noted() -> Iterator[Found]:
        for found, is_text in read_files(files, skipped):
            notes.note(found, is_text=is_text)
            yield found

    def finish(scratch: Path, report: SplitReport) -> None:
        if not report.num_passages:
            raise CorpusError(f"found no text in {docs}{_left_out(skipped)}; expected {READ}")
        now = hash_files(files)
        if changed := [file for file in files if now[file.name] != hashes[file.name]]:
            raise CorpusError(
                f"{changed[0].path} changed, or could not be read, while {docs} was read; mend it "
                "if it stays so, and ask again"
            )
        batches = [open_shard(path)[0] for path in sorted(scratch.glob("passages-*.arrow"))]
        notes.write(
            scratch,
            [value for batch in batches for value in batch.column("article_id").to_pylist()],
            [value for batch in batches for value in batch.column("start").to_pylist()],
        )

    return store_found(
        noted(),
        out,
        inputs={"files": fingerprint_of(hashes)},
        skipped=skipped,
        finish=finish,
        config=config,
        tokenizer=tokenizer,
        progress=progress,
    )


def _is_read(name: str) -> bool:
    return Path(name).suffix.lower() in TEXT_FILES or bool(JSONL.search(name.lower()))


def _left_out(skipped: Skipped) -> str:
    """Return what to say of what was left out where nothing is left."""
    told = ", ".join(f"{count:,} {reason}" for reason, count in skipped.counts.items())
    places = ", ".join(skipped.examples.get(NOT_READ, [])[:3])
    mend = f"; mend the permissions or the disk of {places}" if places else ""
    return f" (left out: {told}{mend})" if told else ""


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(HASHED_BYTES):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


def _read_text(file: TextFile, reading: Reading) -> Iterator[Found]:
    if (text := text_of(file.path, file.name, reading.skipped)) is not None:
        title = heading_of(text) if file.path.suffix.lower() == ".md" else ""
        article = Article(id=file.name, title=title or file.path.stem, text=text)
        yield Found(article, Place(file.name, 1))


def _read_records(file: TextFile, reading: Reading) -> Iterator[Found]:
    for number, line in read_lines(read_blocks(file.path), TEXT_LIMIT):
        place = Place(file.name, number)
        if line is None:
            reading.skipped.add(TOO_LONG, str(place))
        elif line.strip() and (article := parse_line(line, place, str(number), reading)):
            named = Article(id=f"{file.name}/{article.id}", title=article.title, text=article.text)
            yield Found(named, place)
