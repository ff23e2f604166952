"""Parameters and FLOPs of a BERT, counted from its shape; nothing is built."""

from dataclasses import dataclass

from realm.errors import ConfigError

VOCABULARY = 30_522
"""Of bert-base-uncased."""
POSITIONS = 512
SEGMENTS = 2
BACKWARD = 2.0
"""FLOPs of a backward pass relative to its forward pass: one product for the gradient of the
input, one for that of the weights. What attention computes again is not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderShape:
    """A BERT: L layers of width w, h heads, inner width f, V wordpieces."""

    name: str
    layers: int
    width: int
    heads: int
    inner: int
    vocabulary: int = VOCABULARY

    @property
    def parameters(self) -> int:
        """Parameters of the BertModel: embeddings and their layer norm, layers, pooler.

        (V + 512 + 2) w + 2 w + L (4 (w^2 + w) + 2 w f + f + w + 4 w) + w^2 + w
        """
        w, f = self.width, self.inner
        embeddings = (self.vocabulary + POSITIONS + SEGMENTS) * w + 2 * w
        layer = 4 * (w * w + w) + 2 * w * f + f + w + 4 * w
        return embeddings + self.layers * layer + w * w + w

    def embedder_parameters(self, dim: int) -> int:
        """Parameters of a tower: BERT, the projection to `dim` and its layer norm."""
        return self.parameters + self.width * dim + dim + 2 * dim

    @property
    def encoder_parameters(self) -> int:
        """Parameters of the knowledge-augmented encoder: BERT and the MLM head (decoder tied)."""
        w = self.width
        return self.parameters + w * w + w + 2 * w + self.vocabulary

    def reader_parameters(self, span_hidden: int) -> int:
        """Parameters of the span reader: BERT, start and end projections, layer norm, score."""
        return self.parameters + 2 * span_hidden * (self.width + 1) + 3 * span_hidden + 1

    def forward_flops(self, wordpieces: float, *, spread: float = 1.0) -> float:
        """FLOPs of one text of n wordpieces: matrix products only, two for each multiply-add.

        L (8 n w^2 + 4 n w f + 4 n^2 w) + 2 w^2: query, key, value and output; the two inner
        layers; the two products of attention; the pooler. Of texts of n wordpieces on average,
        `spread` is the mean of n^2 over n squared: attention costs so much more.
        """
        n, w = wordpieces, self.width
        layer = 8 * n * w * w + 4 * n * w * self.inner + 4 * n * n * w * spread
        return self.layers * layer + 2 * w * w

    def embed_flops(self, wordpieces: float, dim: int, *, spread: float = 1.0) -> float:
        """FLOPs of one embedding."""
        return self.forward_flops(wordpieces, spread=spread) + 2 * self.width * dim

    def head_flops(self, masks: float) -> float:
        """FLOPs of the MLM head at so many masks: a dense layer and the vocabulary."""
        return masks * (2 * self.width * self.width + 2 * self.width * self.vocabulary)

    def span_flops(self, wordpieces: float, span_hidden: int, widths: int) -> float:
        """FLOPs of the reader's head over all spans of up to `widths` wordpieces."""
        return wordpieces * (4 * self.width * span_hidden + 2 * widths * span_hidden)

    def saved_bytes(self, wordpieces: float, *, half: bool, keeps_attention: bool) -> float:
        """Bytes that one wordpiece of a text of n leaves for the backward pass.

        L (54 w + 12 h n) under bfloat16 autocast, L (77 w + 12 h n) without; counted by hooks on
        the saved tensors of BertModel. The second term is attention's weights (with dropout), kept
        where the kernel does not recompute them: on a CPU.
        """
        attention = 12 * self.heads * wordpieces if keeps_attention else 0.0
        return self.layers * ((54 if half else 77) * self.width + attention)


SHAPES = {
    one.name: one
    for one in (
        EncoderShape(name="minilm", layers=6, width=384, heads=12, inner=1_536),
        EncoderShape(name="bert-base", layers=12, width=768, heads=12, inner=3_072),
        EncoderShape(name="bert-large", layers=24, width=1_024, heads=16, inner=4_096),
    )
}


def parse_encoder(text: str) -> EncoderShape:
    """Return the shape that a name or LAYERSxWIDTH stands for.

    Raises:
        ConfigError: neither.
    """
    name = text.strip().lower().removeprefix("scratch:")
    if name in SHAPES:
        return SHAPES[name]
    layers, _, width = name.partition("x")
    if not (layers.isdecimal() and width.isdecimal() and int(layers) and int(width)):
        raise ConfigError(
            f"found encoder {text!r}, expected {', '.join(SHAPES)} or LAYERSxWIDTH, e.g. 2x128"
        )
    if int(width) % 32:
        raise ConfigError(f"found encoder {text!r}, expected a width that is a multiple of 32")
    return EncoderShape(
        name=name,
        layers=int(layers),
        width=int(width),
        heads=int(width) // 32,
        inner=4 * int(width),
    )
