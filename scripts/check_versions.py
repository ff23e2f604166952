"""Fail when CHANGELOG.md does not start with the version in pyproject.toml."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    """Return 1 and say why when the two differ."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    match = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    found = match[1] if match else None
    if found == version:
        return 0
    sys.stderr.write(f"CHANGELOG.md starts with {found}, pyproject.toml says {version}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
