"""The VAE with several stochastic layers as a Pyro program: `model` and `guide`.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders,
https://arxiv.org/abs/1509.00519.
    zL ~ Normal(0, I),  zi | zi+1 ~ Normal(p_zi(zi+1)),  x | z1 ~ likelihood(p_x(z1))
    q(z1 | x) = Normal(q_z1(x)),  q(zi+1 | zi) = Normal(q_zi+1(zi))
Shapes: B rows, event = shape of one row. Other axes may lead the rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ppl_vae.models.layered import LayeredArchitecture
from ppl_vae.models.pyro.layered import LayeredProgram

__all__ = ["HierarchicalVAE"]


class HierarchicalVAE(LayeredProgram):
    """A chain of stochastic layers `z1`, ..., `zL`, `z1` next to the data `x`, any number of them.

    Each density has a tanh MLP of its own with scale = exp(linear), first weights by Glorot and
    Bengio (2010), each from a random key of its own. The guide draws upwards, one z2 for each z1.
    Images are taken as vectors. The defaults are the two-layer model of Burda et al. (2016).

    Arguments:
        event_shape: shape of one row.
        latent_dims: sizes of z1, ..., zL.
        hidden: for each layer the widths of its block, from data to latents: `hidden[0]` of
            q(z1 | x) and, backwards, of p(x | z1), `hidden[1]` of q(z2 | z1) and p(z1 | z2), and
            so on; by default (200, 200) next to the data and (100, 100) above.
        likelihood: `"bernoulli"`, `"normal"`, `("normal", scale_floor)` or
            `("categorical", num_categories)`, as for `VAE`.
        output_bias: first bias of p(x | z1), in the shape of its output, such as
            `ppl_vae.pixels.pixel_logits(x_train)`; by default zeros.

    Raises:
        TypeError: a size that is no whole number.
        ValueError: sizes below 1, not one block of `hidden` for each layer, an unknown likelihood,
            an output_bias that does not fit, or, when run, a wrong shape.

    Example:
        >>> vae = HierarchicalVAE((64,), latent_dims=(8, 4), hidden=((32, 32), (16, 16)))
        >>> x = vae.model(num_rows=5)
        >>> z1, z2 = vae.guide(x)
        >>> x.shape, z1.shape, z2.shape
        (torch.Size([5, 64]), torch.Size([5, 8]), torch.Size([5, 4]))
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dims: Sequence[int] = (100, 50),
        hidden: Sequence[Sequence[int]] | None = None,
        likelihood: str | tuple[str, float] = "bernoulli",
        *,
        output_bias: Any = None,
    ) -> None:
        name = "HierarchicalVAE"
        record = LayeredArchitecture.parse(name, event_shape, latent_dims, hidden, likelihood)
        super().__init__(record, output_bias)

    def model(self, x: Tensor | None = None, *, num_rows: int = 1) -> Tensor:
        """p(x, z1, ..., zL) of the rows of x, (B, *event); without x, draw `num_rows` rows."""
        return self._run_model(x, num_rows if x is None else self._num_rows(x))

    def guide(self, x: Tensor) -> tuple[Tensor, ...]:
        """q(z1, ..., zL | x) of the rows of x, (B, *event); return z1, ..., zL."""
        return self._run_guide(x)

    @classmethod
    def from_architecture(cls, architecture: Mapping[str, Any]) -> "HierarchicalVAE":
        """Build the program that `architecture()` describes."""
        record = LayeredArchitecture.from_dict(architecture)
        likelihood = record.likelihood_argument
        return cls(record.event_shape, record.latent_dims, record.hidden, likelihood)
