"""realm mcp: what it refuses before it speaks the protocol."""

import sys
from pathlib import Path

import pytest

from realm.cli.main import run


def refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["realm", "mcp", *arguments])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "found nothing to answer from"),
        (["--docs", "a", "--library", "b"], "found --docs beside --library"),
        (["--docs", "nowhere"], "found no folder nowhere"),
    ],
)
def test_sources_that_do_not_fit_are_refused(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refused(arguments, monkeypatch)
    assert message in capsys.readouterr().err


def test_a_client_that_leaves_early_leaves_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python ends a thread amid torch with an abort: the process leaves before that."""
    pytest.importorskip("mcp", reason="needs the extra: mcp")
    monkeypatch.setattr("realm.adapters.mcp.serve", lambda *_, **__: False)

    def leave(code: int) -> None:
        raise SystemExit(f"left with {code}")

    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setattr(sys, "argv", ["realm", "mcp", "--library", str(tmp_path)])
    with pytest.raises(SystemExit, match="left with 0"):
        run()


def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in {"mcp", "mcp_types"}]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "realm.adapters.mcp", raising=False)
    monkeypatch.setitem(sys.modules, "mcp", None)
    refused(["--library", str(tmp_path)], monkeypatch)
    assert 'pip install "realm-lm[mcp]"' in capsys.readouterr().err
