"""Imported checkpoints give the numbers of the code that published them (transformers 4.57.6).

float32 within 2e-5, float64 within 1e-10, relative to the largest number; gradients too.
Recorded there but without a meaning here: attention maps (never formed), `inputs_embeds` and
`position_ids` as inputs, logits where nothing is masked, losses averaged over unmasked places.
"""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

from realm.checkpoint.parts import Model
from realm.exchange.layout import EMBEDDER_NAMES, ENCODER_NAMES, READER_NAMES, their_name
from realm.model.bert import hidden_states, pooled
from realm.model.encoder import Encoder
from realm.model.inputs import Inputs
from realm.model.likelihood import (
    correct_log_likelihood,
    marginal_log_likelihood,
    token_marginal_log_likelihood,
)
from realm.model.reader import Reader

FLOAT32, FLOAT64 = 2e-5, 1e-10

# What a fixture of conftest.py returns; its class cannot be imported from there.
Imported = Callable[[str], tuple[Model, "Recorded"]]
Recorded = object


def assert_same(found: Tensor, expected: Tensor, tolerance: float = FLOAT32) -> None:
    scale = max(1.0, float(expected.abs().max()))
    assert found.shape == expected.shape
    assert float((found.detach() - expected).abs().max()) <= tolerance * scale


def assert_same_gradients(
    parts: Mapping[str, tuple[nn.Module, Mapping[str, str]]], expected: Mapping[str, float]
) -> None:
    """Compare norms under the old names; both sides have a gradient for the same parameters."""
    found = {
        prefix + their_name(name, names): float(parameter.grad.norm())
        for prefix, (module, names) in parts.items()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }
    assert found.keys() == expected.keys()
    largest = max(expected.values())
    for name, norm in expected.items():
        assert found[name] == pytest.approx(norm, rel=1e-4, abs=FLOAT32 * largest), name


def test_embedder(imported: Imported) -> None:
    model, old = imported("embedder")
    tower = model.need_towers().query
    scores = tower(old.inputs())
    assert_same(scores, old["projected_score"])
    (scores * old["grad/w"]).sum().backward()
    assert_same_gradients({"": (tower, EMBEDDER_NAMES)}, old.gradient_norms)
    assert_same(tower.double()(old.inputs()), old["f64/projected_score"], FLOAT64)


def test_embedder_from_the_inside(imported: Imported) -> None:
    """The layers below the projection, and a call without mask and segments (outside set)."""
    model, old = imported("embedder")
    if not old.has("hidden_states"):
        pytest.skip("recorded in the outside set only")
    tower, inputs = model.need_towers().query, old.inputs()
    hidden = hidden_states(tower.bert, inputs)
    assert_same(hidden[inputs.token_is_real], old["hidden_states"][-1][inputs.token_is_real])
    assert_same(pooled(tower.bert, hidden, inputs), old["pooler_output"])
    bare = Inputs(
        inputs.ids, torch.zeros_like(inputs.segments), torch.ones_like(inputs.token_is_real)
    )
    assert_same(tower(bare), old["projected_score_ids_only"])


@pytest.mark.parametrize("name", ["scorer_shared", "scorer_two_tower"])
def test_scorer(imported: Imported, name: str) -> None:
    model, old = imported(name)
    towers = model.need_towers()
    assert towers.shared == (name == "scorer_shared")
    shape = old["candidate_score"].shape
    queries = towers.query(old.inputs())
    passages = towers.passage(old.inputs("candidate_")).view(shape)
    scores = torch.einsum("qd,qcd->qc", queries, passages)
    assert_same(queries, old["query_score"])
    assert_same(passages, old["candidate_score"])
    assert_same(scores, old["relevance_score"])
    (scores.log_softmax(dim=-1) * old["grad/w"]).sum().backward()
    parts = {"query_embedder.": (towers.query, EMBEDDER_NAMES)}
    if towers.shared:  # listed once, under its first name
        parts = {"embedder.": (towers.query, EMBEDDER_NAMES)}
    else:
        parts["embedder."] = (towers.passage, EMBEDDER_NAMES)
    assert_same_gradients(parts, old.gradient_norms)
    towers.double()
    exact = torch.einsum(
        "qd,qcd->qc",
        towers.query(old.inputs()),
        towers.passage(old.inputs("candidate_")).view(shape),
    )
    assert_same(exact, old["f64/relevance_score"], FLOAT64)


def _encoder_numbers(
    encoder: Encoder, old: Recorded, scores: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (logits at masks, gold log-probs [B, N, masks], which masks are real, the loss)."""
    mask = old["mlm_mask"].bool()
    batch, candidates = old["relevance_score"].shape
    most = int(mask.sum(dim=1).max())
    is_real = torch.arange(most) < mask.sum(dim=1, keepdim=True)
    rows, positions, targets = [], [], []
    for query in range(batch):
        places = mask[query].nonzero()[:, 0]
        for candidate in range(candidates):
            rows += [query * candidates + candidate] * len(places)
            positions += places.tolist()
            targets += old["labels"][query, places].tolist()
    read = (torch.tensor(rows), torch.tensor(positions))
    logits = encoder(old.inputs(), *read)
    gold, _ = encoder.log_probs(old.inputs(), *read, torch.tensor(targets))
    log_probs = torch.zeros(batch, candidates, most, dtype=gold.dtype)
    log_probs = log_probs.masked_scatter(is_real[:, None].expand_as(log_probs), gold)
    likelihood = token_marginal_log_likelihood(scores, log_probs, is_real)
    return logits, log_probs, is_real, -likelihood.sum() / is_real.sum()


@pytest.mark.parametrize("name", ["encoder", "encoder_legacy_bin"])
def test_encoder(imported: Imported, name: str, request: pytest.FixtureRequest) -> None:
    if name == "encoder_legacy_bin" and "ours" in request.node.callspec.id:
        pytest.skip("ours has one encoder; the old upload format is that of its reader")
    model, old = imported(name)
    encoder = model.need_encoder()
    scores = old["relevance_score"].clone().requires_grad_()
    logits, log_probs, is_real, loss = _encoder_numbers(encoder, old, scores)
    if old.has("mask_positions"):
        expected = old["logits"].flatten(0, 2)
    else:
        at_masks = old["mlm_mask"].bool()[:, None].expand(-1, scores.shape[1], -1).flatten(0, 1)
        expected = old["logits"][at_masks]
    assert_same(logits, expected)
    assert_same(loss, old.any_of("loss", "loss_mlm_mask"))
    loss.backward()
    assert_same(scores.grad, old["grad/relevance_score"])
    assert_same_gradients({"": (encoder, ENCODER_NAMES)}, old.gradient_norms)
    exact = _encoder_numbers(encoder.double(), old, old["relevance_score"].double())[-1]
    assert_same(exact, old.any_of("f64/loss", "f64/loss_mlm_mask"), FLOAT64)
    # Eq. 1 takes the product over masks inside the sum over passages: another number.
    span = -marginal_log_likelihood(scores, log_probs, is_real).sum() / is_real.sum()
    assert abs(float(span.detach() - loss.detach())) > 1e-4


def _width_major(logits: Tensor) -> Tensor:
    """Return [rows, starts, widths] in the old order: all spans of width 1, then 2, ..."""
    length, widths = logits.shape[1:]
    return torch.cat([logits[:, : length - w, w] for w in range(widths)], dim=1)


def _correct(starts: Tensor, ends: Tensor, shape: torch.Size) -> Tensor:
    """Return which [rows, starts, widths] are answers; wider ones are none."""
    correct = torch.zeros(shape, dtype=torch.bool)
    for row in range(shape[0]):
        for first, last in zip(starts[row].tolist(), ends[row].tolist(), strict=True):
            if first >= 0 and last - first < shape[2]:
                correct[row, first, last - first] = True
    return correct


def _reader_losses(
    logits: Tensor, scores: Tensor, has_answers: Tensor, correct: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (retriever's loss, reader's loss) of one question, as `realm finetune` has them."""
    early = -correct_log_likelihood(scores[None], has_answers[None])[0]
    raised = (logits + scores[: len(logits), None, None]).reshape(1, -1)
    return early, -correct_log_likelihood(raised, correct.reshape(1, -1))[0]


def test_reader(imported: Imported) -> None:
    model, old = imported("reader")
    reader = model.need_reader()
    num_read = len(old["input_ids"])
    in_passage = old["block_mask"][:num_read].bool()
    logits = reader(old.inputs(), in_passage)
    flat = _width_major(logits)
    expected = old.any_of("reader_logits", "reader_logits_without_relevance")
    assert torch.equal(flat.isinf(), expected < -1e30)
    assert_same(flat[~flat.isinf()], expected[~flat.isinf()])
    scores = old["relevance_score"].clone().requires_grad_()
    for case in "ABCD":
        starts, ends = old[f"{case}/start_positions"], old[f"{case}/end_positions"]
        correct = _correct(starts, ends, logits.shape)
        assert torch.equal(_width_major(correct), old[f"{case}/reader_correct"].bool())
        early, reading = _reader_losses(logits, scores, old[f"{case}/has_answers"].bool(), correct)
        for found, expected in zip(
            (early + reading, early, reading), _losses(old, case), strict=True
        ):
            assert_same(found, expected)
        if case == "A":
            (early + reading).backward(retain_graph=True)
            assert_same(scores.grad, old["grad/relevance_score"])
            assert_same_gradients({"": (reader, READER_NAMES)}, old.gradient_norms)
    exact = reader.double()(old.inputs(), in_passage)
    correct = _correct(old["A/start_positions"], old["A/end_positions"], logits.shape)
    losses = _reader_losses(
        exact, old["relevance_score"].double(), old["A/has_answers"].bool(), correct
    )
    expected = old["f64/A/losses"][0] if old.has("f64/A/losses") else old["f64/A/loss"]
    assert_same(sum(losses), expected, FLOAT64)


def _losses(old: Recorded, case: str) -> list[Tensor]:
    if old.has(f"{case}/losses"):
        return list(old[f"{case}/losses"])
    return [old[f"{case}/{name}"] for name in ("loss", "retriever_loss", "reader_loss")]


def test_reader_predicts_the_same_span(imported: Imported) -> None:
    model, old = imported("reader")
    reader: Reader = model.need_reader()
    num_read = len(old["input_ids"])
    logits = reader(old.inputs(), old["block_mask"][:num_read].bool())
    raised = logits + old["relevance_score"][:num_read, None, None]
    block, start, width = torch.unravel_index(raised.argmax(), raised.shape)
    if old.has("prediction"):
        expected = old["prediction"].tolist()
    else:
        names = ("block_idx", "candidate", "start_pos", "end_pos")
        expected = [int(old[f"nolabel/{name}"]) for name in names]
    assert [int(block), int(start), int(start + width)] == [expected[0], *expected[2:]]
