"""Where what can be made again is kept."""

from pathlib import Path

import pytest

from realm.cache import cache_folder


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("REALM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "/home/ada/.cache/realm"),
        ({"XDG_CACHE_HOME": "/var/cache/ada"}, "/var/cache/ada/realm"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/ada/.cache/realm"),  # the rules: to be ignored
        ({"XDG_CACHE_HOME": "/var", "REALM_CACHE": "/srv/mine"}, "/srv/mine"),
        ({"REALM_CACHE": "~/mine"}, "/home/ada/mine"),
    ],
)
def test_the_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)
