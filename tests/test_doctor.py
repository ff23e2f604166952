"""What realm doctor finds: whole, missing, broken, and how to get it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from realm import doctor
from realm.checkpoint import folders
from realm.cli.main import build_app
from realm.doctor import Checkup, Finding, check_up
from realm.mini import has_default_model, model_folder


def test_this_installation_is_fit_for_use(tmp_path: Path) -> None:
    checkup = check_up(tmp_path)
    assert checkup.is_usable, [one for one in checkup.findings if one.state == "broken"]
    assert {one.group for one in checkup.findings} >= {"packages", "machine", "models", "cache"}
    names = {one.name for one in checkup.findings}
    assert names >= {"python", "realm", "torch", "transformers", "numpy", "cores", "memory", "cpu"}


def test_a_package_that_is_gone_old_or_does_not_import_is_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = [("numpy", ">=999"), ("no-such-package", ">=1"), ("torch", "")]

    def import_module(name: str) -> Any:
        raise OSError(f"{name}: libgomp.so.1: no such file")

    monkeypatch.setattr(doctor, "requirements", lambda extra="": [] if extra else asked)
    monkeypatch.setattr(doctor.importlib, "import_module", import_module)
    found = {one.name: one for one in doctor.look_at_packages()}
    assert "expected >=999" in found["numpy"].found
    assert found["numpy"].advice == 'pip install --upgrade "numpy>=999"'
    assert found["no-such-package"].found == "not installed"
    assert "libgomp.so.1" in found["torch"].found
    assert found["torch"].state == "broken"


def test_an_extra_that_is_missing_says_what_for_and_how(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "extras", lambda: ["ann"])
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "faiss-cpu" else "1.0")
    (told,) = doctor.look_at_extras()
    assert (told.state, told.advice) == ("missing", 'pip install "realm-lm[ann]"')
    assert "no faiss-cpu (approximate search" in told.found


def test_an_extra_of_another_release_is_not_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter of mcp 2 cannot even be imported with mcp 1."""
    releases = {"mcp": "1.9.0", "fastapi": "0.100", "uvicorn": "1.0"}
    monkeypatch.setattr(doctor, "extras", lambda: ["mcp", "serve"])
    monkeypatch.setattr(doctor, "installed", releases.get)
    mcp, serve = doctor.look_at_extras()
    assert mcp.found.startswith("mcp 1.9.0, expected ")
    assert (mcp.state, mcp.advice) == ("missing", 'pip install "realm-lm[mcp]"')
    assert serve.found.startswith("no p")
    assert "; fastapi 0.100, expected >=" in serve.found
    monkeypatch.setitem(releases, "mcp", "2.5.0")
    assert (doctor.look_at_extras()[0].state, doctor.look_at_extras()[0].found) == (
        "good",
        "mcp 2.5.0",
    )


@pytest.mark.skipif(not has_default_model(), reason="this source tree has no weights")
def test_a_damaged_model_is_broken_and_an_absent_one_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.look_at_mini().found.startswith("whole, ")
    copy = tmp_path / "realm-mini"
    shutil.copytree(model_folder(), copy)
    with (copy / "packed.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"!")
    monkeypatch.setattr(doctor, "model_folder", lambda: copy)
    assert doctor.look_at_mini().state == "broken"
    assert "packed.safetensors is damaged" in doctor.look_at_mini().found
    monkeypatch.setattr(doctor, "has_default_model", lambda: False)
    assert doctor.look_at_mini().state == "missing"


def test_minilm_that_is_not_installed_is_missing_and_another_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "MINILM_PACKAGE", "no_such_package")
    told = doctor.look_at_minilm()
    assert (told.state, told.advice) == ("missing", 'pip install "realm-lm[demo]"')
    (tmp_path / "fake_minilm").mkdir()
    (tmp_path / "fake_minilm" / "__init__.py").write_text("raise SystemExit  # never run")
    monkeypatch.syspath_prepend(tmp_path)
    for module in (doctor, folders):
        monkeypatch.setattr(module, "MINILM_PACKAGE", "fake_minilm")
    told = doctor.look_at_minilm()
    assert told.state == "broken"
    assert "model.safetensors in the package" in told.found


def test_a_cache_has_its_size_and_one_that_cannot_be_is_broken(tmp_path: Path) -> None:
    (tmp_path / "cache" / "deep").mkdir(parents=True)
    (tmp_path / "cache" / "deep" / "file").write_bytes(b"x" * 2_500_000)
    assert doctor.look_at_cache(tmp_path / "cache").found.startswith("2.5 MB, ")
    assert doctor.look_at_cache(tmp_path / "none").found.startswith("nothing yet, ")
    broken = doctor.look_at_cache(tmp_path / "cache" / "deep" / "file" / "below")
    assert broken.state == "broken"
    assert not Checkup(findings=(broken,)).is_usable


@pytest.mark.parametrize(("state", "code"), [("good", 0), ("missing", 0), ("broken", 1)])
def test_the_exit_code_says_whether_it_can_be_used(
    state: Any, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Finding(group="packages", name="a[b]", state=state, found="f", advice="do this")
    monkeypatch.setattr(doctor, "check_up", lambda: Checkup(findings=(one,)))
    assert (build_app()(["doctor"], standalone_mode=False) or 0) == code
    shown = capsys.readouterr().out
    assert "a[b]" in shown
    assert "do this" in shown
    assert ("broken: a[b]" in shown) == (state == "broken")
