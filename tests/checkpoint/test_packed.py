"""Weights in 8 bits come back within half a step, equal ones are stored once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from realm.checkpoint.packed import FORMAT, read_packed, to_8_bits, write_packed
from realm.errors import ArtifactError, ConfigError

Make = Callable[..., Any]


def matrix(*, rows: int = 50, columns: int = 40, seed: int = 0) -> torch.Tensor:
    """Return rows of very different sizes, one of them zero."""
    torch.manual_seed(seed)
    values = torch.randn(rows, columns) * torch.logspace(-6, 3, rows)[:, None]
    values[7] = 0.0
    return values


def test_a_matrix_comes_back_within_half_a_step_of_its_row(tmp_path: Path) -> None:
    values = matrix()
    write_packed({"layer.weight": values}, tmp_path / "w")
    found = read_packed(tmp_path / "w")["layer.weight"]
    assert found.dtype == torch.float32
    step = values.abs().amax(dim=1, keepdim=True) / 127
    assert ((found - values).abs() <= step / 2 * (1 + 1e-5)).all()
    assert ((found - values).abs() > step / 4).any()  # else it would not be 8 bits
    torch.testing.assert_close(found.abs().amax(dim=1), values.abs().amax(dim=1))
    assert torch.equal(found[7], torch.zeros(40))


def test_equal_parameters_give_equal_files(tmp_path: Path) -> None:
    """The library writes a header in an order of its own, another one each time."""
    for number in range(8):
        write_packed({"layer.weight": matrix(), "bias": torch.ones(3)}, tmp_path / str(number))
    assert len({(tmp_path / str(number)).read_bytes() for number in range(8)}) == 1


def test_the_largest_value_of_a_row_is_127() -> None:
    numbers, step = to_8_bits(torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]]))
    assert numbers.tolist() == [[64, -127, 32], [0, 0, 0]]
    assert step[0].item() == pytest.approx(2 / 127)


def test_vectors_and_position_embeddings_stay_in_16_bits(tmp_path: Path) -> None:
    values = {
        "bias": torch.randn(9),
        "bert.embeddings.position_embeddings.weight": matrix(),
        "bert.embeddings.token_type_embeddings.weight": matrix(rows=8),
    }
    write_packed(values, tmp_path / "w")
    for name, found in read_packed(tmp_path / "w").items():
        assert torch.equal(found, values[name].half().float())


def test_equal_tensors_are_stored_once(tmp_path: Path) -> None:
    table = matrix(seed=1)
    weights = {"query.words": table, "passage.words": table.clone(), "other": matrix(seed=2)}
    write_packed(weights, tmp_path / "w")
    stored = load_file(tmp_path / "w")
    assert sorted(stored) == ["other", "other.scale", "query.words", "query.words.scale"]
    found = read_packed(tmp_path / "w")
    assert list(found) == list(weights)
    assert torch.equal(found["query.words"], found["passage.words"])
    assert not torch.equal(found["query.words"], found["other"])


@pytest.mark.parametrize(
    "value", [torch.tensor([1.0, float("nan")]), torch.full((2, 2), float("inf"))]
)
def test_what_is_no_number_is_refused(tmp_path: Path, value: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="w holds values that are no numbers"):
        write_packed({"w": value}, tmp_path / "w")


def test_what_does_not_fit_16_bits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bias holds 70000, expected values below 65,504"):
        write_packed({"bias": torch.tensor([70_000.0])}, tmp_path / "w")


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"format": "2", "tensors": "{}"}, "has format '2', this release reads '1'"),
        ({}, "has format None"),
        ({"format": FORMAT}, "is damaged"),
        ({"format": FORMAT, "tensors": json.dumps({"a": "gone"})}, "is damaged"),
        ({"format": FORMAT, "tensors": "no JSON"}, "is damaged"),
    ],
)
def test_another_format_and_damage_are_told(
    tmp_path: Path, about: dict[str, str], told: str
) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "w", about)
    with pytest.raises(ArtifactError, match=told):
        read_packed(tmp_path / "w")


def test_a_cut_file_is_damaged(tmp_path: Path) -> None:
    write_packed({"w": matrix()}, tmp_path / "w")
    (tmp_path / "w").write_bytes((tmp_path / "w").read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="is damaged"):
        read_packed(tmp_path / "w")
