"""The network of the trained tagger: word features -> convolutions over a sentence -> BIO tags."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from realm.masking.trained.features import NUM_BUCKETS, NUM_FLAGS, SHAPES

DILATIONS = (1, 1, 2, 1, 4, 1)
"""Distance in words to each neighbour that a layer reads: 10 words to each side in all."""


class WordEncoder(nn.Module):
    """Makes one vector of a word: a function of its spelling only, so that equal words share it."""

    def __init__(self, num_pieces: int, *, piece_width: int, affix_width: int, width: int) -> None:
        super().__init__()
        self.pieces = nn.Embedding(num_pieces, piece_width, padding_idx=0)
        self.affixes = nn.Embedding(NUM_BUCKETS, affix_width, padding_idx=0)
        self.shapes = nn.Embedding(len(SHAPES), 16)
        joined = 2 * piece_width + affix_width + 16
        self.project = nn.Sequential(
            nn.Linear(joined, 384), nn.GELU(approximate="tanh"), nn.Linear(384, width)
        )

    def forward(
        self,
        pieces: Int[Tensor, "words pieces"],
        affixes: Int[Tensor, "words affixes"],
        shapes: Int[Tensor, " words"],
    ) -> Float[Tensor, "words width"]:
        """Return the vector of each word.

        Args:
            pieces: Its wordpieces, 0 behind the last.
            affixes: Its hashed affixes, 0 for none.
            shapes: Number of its kind of spelling.
        """
        rest = (pieces[:, 1:] > 0).sum(1, keepdim=True).clamp(min=1)
        embedded = self.pieces(pieces)
        parts = [
            embedded[:, 0],
            embedded[:, 1:].sum(1) / rest,
            self.affixes(affixes).sum(1),
            self.shapes(shapes),
        ]
        return self.project(torch.cat(parts, dim=-1))


class Convolution(nn.Module):
    """Adds to each word what it and its two neighbours at a distance say: h + GELU(W LN(h))."""

    def __init__(self, width: int, *, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(3 * width, width)
        self.dropout = nn.Dropout(dropout)
        self._dilation = dilation

    def forward(
        self,
        hidden: Float[Tensor, "sentences words width"],
        is_word: Float[Tensor, "sentences words 1"],
    ) -> Float[Tensor, "sentences words width"]:
        """Return the words' new vectors.

        Args:
            hidden: Vectors of the words.
            is_word: 1 for a word, 0 for padding.
        """
        length, gap = hidden.shape[1], self._dilation
        padded = nn.functional.pad(self.norm(hidden) * is_word, (0, 0, gap, gap))
        joined = torch.cat([padded[:, i * gap : i * gap + length] for i in range(3)], dim=-1)
        mixed = nn.functional.gelu(self.mix(joined), approximate="tanh")
        return hidden + self.dropout(mixed)


class TaggerNetwork(nn.Module):
    """Scores BIO tags for each word of a sentence, once for each convention of annotation."""

    def __init__(
        self,
        tags: Mapping[str, int],
        *,
        num_pieces: int,
        piece_width: int = 96,
        affix_width: int = 64,
        width: int = 256,
        dropout: float = 0.1,
    ) -> None:
        """Build the network with random weights.

        Args:
            tags: Number of tags of each convention, by its name.
            num_pieces: Size of the vocabulary of wordpieces.
            piece_width: Width of a wordpiece's embedding.
            affix_width: Width of an affix's embedding.
            width: Width of everything else.
            dropout: Of word vectors and of each layer, in training.
        """
        super().__init__()
        self.words = WordEncoder(
            num_pieces, piece_width=piece_width, affix_width=affix_width, width=width
        )
        self.flags = nn.Embedding(NUM_FLAGS, width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            [Convolution(width, dilation=gap, dropout=dropout) for gap in DILATIONS]
        )
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in tags.items()})

    def contextualise(
        self,
        vectors: Float[Tensor, "sentences words width"],
        flags: Int[Tensor, "sentences words"],
        is_word: Float[Tensor, "sentences words 1"],
    ) -> Float[Tensor, "sentences words width"]:
        """Return the vector of each word in its sentence.

        Args:
            vectors: What `words` makes of each word.
            flags: Of each word, from `flags_of`.
            is_word: 1 for a word, 0 for padding.
        """
        hidden = self.dropout(vectors + self.flags(flags))
        for layer in self.layers:
            hidden = layer(hidden, is_word)
        return self.norm(hidden)
