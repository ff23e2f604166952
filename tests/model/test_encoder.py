"""The MLM head and the encoder around it."""

from collections.abc import Callable

import torch

from realm.model.encoder import Encoder, build_encoder
from realm.model.inputs import pad
from realm.tokenizer import WordpieceTokenizer

SEQUENCES = [([2, 7, 4, 9, 3, 8, 3], [0, 0, 0, 0, 0, 1, 1]), ([2, 4, 3, 3], [0, 0, 0, 1])]


def test_the_decoder_is_tied_to_the_input_embeddings(make_encoder: Callable[..., Encoder]) -> None:
    encoder = make_encoder()
    inputs = pad(SEQUENCES, 0)
    logits = encoder(inputs, torch.tensor([0]), torch.tensor([2]))
    logits[0, 11].backward()
    gradient = encoder.bert.embeddings.word_embeddings.weight.grad
    assert gradient[11].abs().sum() > 0  # only the decoder touches a wordpiece that is not read
    assert 11 not in inputs.ids
    assert encoder.head.bias.grad[11] == 1.0


def test_log_probs_are_those_of_the_targets_with_the_most_probable_wordpiece(
    make_encoder: Callable[..., Encoder],
) -> None:
    encoder = make_encoder()
    inputs = pad(SEQUENCES, 0)
    rows, positions = torch.tensor([0, 1]), torch.tensor([2, 1])
    targets = torch.tensor([9, 10])
    with torch.no_grad():
        logits = encoder(inputs, rows, positions)
        log_p, best = encoder.log_probs(inputs, rows, positions, targets)
    torch.testing.assert_close(log_p, logits.log_softmax(dim=-1)[torch.arange(2), targets])
    assert torch.equal(best, logits.argmax(dim=-1))


def test_no_masks_have_no_logits(
    make_encoder: Callable[..., Encoder], tokenizer: WordpieceTokenizer
) -> None:
    none = torch.tensor([], dtype=torch.long)
    assert make_encoder()(pad(SEQUENCES, 0), none, none).shape == (0, tokenizer.vocab_size)


def test_settings_build_an_equal_encoder(make_encoder: Callable[..., Encoder]) -> None:
    encoder = make_encoder()
    again = build_encoder(encoder.settings).eval()
    again.load_state_dict(encoder.state_dict())
    rows, positions = torch.tensor([0, 1]), torch.tensor([2, 1])
    with torch.no_grad():
        logits = [e(pad(SEQUENCES, 0), rows, positions) for e in (encoder, again)]
    assert torch.equal(*logits)
