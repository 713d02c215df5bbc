"""What a VAE is made of: plain numbers and names, checked once for both twins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.models.record import Record, parse_data, positive_integers

__all__ = ["Architecture"]

MLP_HIDDEN = (200, 200)
CONV_HIDDEN = (32, 64)


@dataclass(frozen=True, kw_only=True)
class Architecture(Record):
    """Shapes, likelihood and kind of nets of a VAE; equal records have interchangeable weights.

    Arguments:
        event_shape: shape of one row of data.
        latent_dim: number of latent dimensions.
        hidden: widths of the hidden layers, or channels for images; empty when both nets are own.
        likelihood: `"bernoulli"`, `"normal"` or `"categorical"`.
        num_categories: number of classes, for `"categorical"` only.
        scale_floor: smallest scale, for `"normal"` only.
        own_encoder: whether the encoder is the user's module.
        own_decoder: whether the decoder is the user's module.

    Example:
        >>> Architecture.parse((64,), 8, None, ("categorical", 5)).parameter_shape
        (64, 5)
    """

    latent_dim: int
    hidden: tuple[int, ...]
    own_encoder: bool = False
    own_decoder: bool = False

    @classmethod
    def parse(
        cls,
        event_shape: Sequence[int],
        latent_dim: int,
        hidden: Sequence[int] | None,
        likelihood: str | tuple[str, float],
        own_encoder: bool = False,
        own_decoder: bool = False,
    ) -> "Architecture":
        """Check the arguments of a `VAE` and return them as a record.

        Raises:
            TypeError: an argument of a wrong type.
            ValueError: a value out of range, or an unknown likelihood.
        """
        data = parse_data(event_shape, likelihood)
        if hidden is None:
            hidden = CONV_HIDDEN if len(data["event_shape"]) == 3 else MLP_HIDDEN
        hidden = positive_integers("hidden", hidden)
        return cls(
            **data,
            latent_dim=positive_integers("latent_dim", (latent_dim,))[0],
            hidden=() if own_encoder and own_decoder else hidden,
            own_encoder=own_encoder,
            own_decoder=own_decoder,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Architecture":
        """Read back what `to_dict` gave, or the header of a weight file."""
        record = cls(**cls.fields_of(values))
        return cls.parse(
            record.event_shape,
            record.latent_dim,
            record.hidden,
            record.likelihood_argument,
            record.own_encoder,
            record.own_decoder,
        )

    @property
    def image_channels(self) -> int:
        """Channels that the convolutions see: one per class for the categorical likelihood."""
        return self.event_shape[0] * (self.num_categories or 1)

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width before and after each halving, which rounds up."""
        _, height, width = self.event_shape
        factors = [2**level for level in range(len(self.hidden) + 1)]
        return tuple((-(-height // factor), -(-width // factor)) for factor in factors)

    def require_own(self, encoder: bool, decoder: bool) -> None:
        """Raise a `ValueError` where own nets are recorded and none was given."""
        own = [("encoder", self.own_encoder, encoder), ("decoder", self.own_decoder, decoder)]
        missing = [name for name, recorded, given in own if recorded and not given]
        if missing:
            raise ValueError(
                f"These weights belong to your own {' and '.join(missing)}, which no file holds; "
                "build the same VAE again and give it: load(path, vae=vae)."
            )

    def check_output_bias(self, bias: Any) -> NDArray[np.float64] | None:
        """Return the first bias of a built-in MLP decoder, or raise a `ValueError`."""
        if bias is not None and (self.own_decoder or len(self.event_shape) == 3):
            which = "your own decoder" if self.own_decoder else "the convolutional decoder"
            raise ValueError(
                f"output_bias sets one bias for each entry of a row, got one for {which}, which "
                "need not have such biases; leave it out, or flatten the images: (D,) gets MLPs."
            )
        return super().check_output_bias(bias)
