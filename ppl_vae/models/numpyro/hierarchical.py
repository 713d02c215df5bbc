"""The VAE with several stochastic layers as a NumPyro program: `model` and `guide`.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders,
https://arxiv.org/abs/1509.00519.
    zL ~ Normal(0, I),  zi | zi+1 ~ Normal(p_zi(zi+1)),  x | z1 ~ likelihood(p_x(z1))
    q(z1 | x) = Normal(q_z1(x)),  q(zi+1 | zi) = Normal(q_zi+1(zi))
Shapes: B rows, event = shape of one row. Other axes may lead the rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jax import Array

from ppl_vae.models.layered import LayeredArchitecture
from ppl_vae.models.numpyro.layered import LayeredProgram

__all__ = ["HierarchicalVAE"]


class HierarchicalVAE(LayeredProgram):
    """A chain of stochastic layers `z1`, ..., `zL`, `z1` next to the data `x`, any number of them.

    Each density has a tanh MLP of its own with scale = exp(linear), first weights by Glorot and
    Bengio (2010), each from a random key of its own. The guide draws upwards, one z2 for each z1.
    Images are taken as vectors. The defaults are the two-layer model of Burda et al. (2016).

    The weights are the NumPyro parameters `q_z1$params`, ..., `p_z1$params`, ..., `p_x$params` (and
    `likelihood$params` for the normal likelihood), drawn from the key of the seeded run.

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
        >>> import numpyro
        >>> vae = HierarchicalVAE((64,), latent_dims=(8, 4), hidden=((32, 32), (16, 16)))
        >>> x = numpyro.handlers.seed(vae.model, 0)(num_rows=5)
        >>> z1, z2 = numpyro.handlers.seed(vae.guide, 0)(x)
        >>> x.shape, z1.shape, z2.shape
        ((5, 64), (5, 8), (5, 4))
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

    def model(self, x: Array | None = None, *, num_rows: int = 1) -> Array:
        """p(x, z1, ..., zL) of the rows of x, (B, *event); without x, draw `num_rows` rows."""
        return self._run_model(x, num_rows if x is None else self._num_rows(x))

    def guide(self, x: Array) -> tuple[Array, ...]:
        """q(z1, ..., zL | x) of the rows of x, (B, *event); return z1, ..., zL."""
        return self._run_guide(x)

    @classmethod
    def from_architecture(cls, architecture: Mapping[str, Any]) -> "HierarchicalVAE":
        """Build the program that `architecture()` describes."""
        record = LayeredArchitecture.from_dict(architecture)
        likelihood = record.likelihood_argument
        return cls(record.event_shape, record.latent_dims, record.hidden, likelihood)
