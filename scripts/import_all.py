"""Import every module of realm, silently; the light ones must not import the heavy libraries."""

import importlib
import pkgutil
import subprocess
import sys

HEAVY = ("torch", "transformers", "pyarrow")
LIGHT = ("realm", "realm.cli.main", "realm.config", "realm.records", "realm.errors")


def main() -> int:
    """Return 1 and say why when a module prints, fails, or imports what it should not."""
    failures: list[str] = []
    code = "import sys, {0}; print(','.join(m for m in {1!r} if m in sys.modules))"
    for name in LIGHT:
        found = subprocess.run(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", code.format(name, HEAVY)],
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode or found.stdout.strip():
            failures.append(f"{name} imports {found.stdout.strip()} {found.stderr.strip()}")
    package = importlib.import_module("realm")
    for module in pkgutil.walk_packages(package.__path__, "realm."):
        if module.name != "realm.__main__":
            importlib.import_module(module.name)
    for failure in failures:
        sys.stderr.write(failure + "\n")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
