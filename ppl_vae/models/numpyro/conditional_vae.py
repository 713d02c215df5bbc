"""The VAE given labels as a NumPyro program, with any number of stochastic layers.

Sohn, Lee and Yan (2015), Learning structured output representation using deep conditional
generative models, https://papers.nips.cc/paper/5775; as a chain like `HierarchicalVAE`:
    zL | y ~ Normal(p_zL(y)) or Normal(0, I),  x | z1, y ~ likelihood(p_x(z1, y))
    q(z1 | x, y) = Normal(q_z1(x, y)),  between the layers as without labels
Shapes: B rows, C classes, event = shape of one row. Other axes may lead the rows of x.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from ppl_vae.models.layered import LayeredArchitecture, check_labels
from ppl_vae.models.numpyro.layered import LayeredProgram
from ppl_vae.models.record import positive_integers

__all__ = ["ConditionalVAE"]


class ConditionalVAE(LayeredProgram):
    """A chain of stochastic layers given labels: sites `z1`, ..., `zL` and `x`.

    The labels, in one-hot form, are appended to x in q(z1 | x, y) and to z1 in p(x | z1, y), and
    decide p(zL | y) where that is learned. The nets are those of `HierarchicalVAE`; the learned
    prior has the hidden widths `hidden[-1]`, backwards.

    Arguments:
        event_shape: shape of one row.
        latent_dims: sizes of z1, ..., zL, such as (50,).
        num_classes: number C of labels 0, 1, ..., C - 1.
        hidden: for each layer the widths of its block, as for `HierarchicalVAE`.
        likelihood: as for `VAE`.
        prior: `"learned"`, p(zL | y) normal with location and scale by an MLP, or `"standard"`,
            the same N(0, I) for all labels.
        output_bias: first bias of p(x | z1, y), in the shape of its output; by default zeros.

    Raises:
        TypeError: a size or a label that is no whole number.
        ValueError: as `HierarchicalVAE`; an unknown prior; when run, labels of another shape than
            (B,) or out of range.

    Example:
        >>> import numpyro
        >>> vae = ConditionalVAE((64,), (8,), num_classes=10, hidden=((32, 32),))
        >>> labels = jnp.array([3, 3, 7])
        >>> x = numpyro.handlers.seed(vae.model, 0)(None, labels)
        >>> (z1,) = numpyro.handlers.seed(vae.guide, 0)(x, labels)
        >>> x.shape, z1.shape
        ((3, 64), (3, 8))
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dims: Sequence[int],
        num_classes: int,
        hidden: Sequence[Sequence[int]] | None = None,
        likelihood: str | tuple[str, float] = "bernoulli",
        *,
        prior: str = "learned",
        output_bias: Any = None,
    ) -> None:
        sizes = (event_shape, latent_dims, hidden, likelihood, num_classes, prior)
        super().__init__(LayeredArchitecture.parse("ConditionalVAE", *sizes), output_bias)
        (self.num_classes,) = positive_integers("num_classes", (num_classes,))

    def model(self, x: Array | None, labels: Array) -> Array:
        """p(x, z1, ..., zL | y) of rows x, (B, *event), of classes (B,); draw the rows for None."""
        num_rows = len(labels) if x is None else self._num_rows(x)
        return self._run_model(x, num_rows, self._classes(labels, num_rows))

    def guide(self, x: Array, labels: Array) -> tuple[Array, ...]:
        """q(z1, ..., zL | x, y) of rows x, (B, *event), of classes (B,); return z1, ..., zL."""
        return self._run_guide(x, self._classes(labels, self._num_rows(x)))

    def check_rows(self, x: Array, labels: Array | None = None) -> None:
        """Raise unless rows x have values that the likelihood can give, and labels within range.

        Model and guide check the same, but for values that are not known while they are compiled.

        Raises:
            TypeError: no labels, or labels that are not whole numbers.
            ValueError: values outside the likelihood's support, labels of another shape than
                (B,), or out of range; names row and value.
        """
        if labels is None:
            raise TypeError("A ConditionalVAE is given labels, one a row: `fit(..., x, labels)`.")
        super().check_rows(x)
        self._classes(labels, self._num_rows(x))

    @classmethod
    def from_architecture(cls, architecture: Mapping[str, Any]) -> "ConditionalVAE":
        """Build the program that `architecture()` describes."""
        record = LayeredArchitecture.from_dict(architecture)
        return cls(
            record.event_shape,
            record.latent_dims,
            record.num_classes or 0,
            record.hidden,
            record.likelihood_argument,
            prior=record.prior,
        )

    def _classes(self, labels: Any, num_rows: int) -> Array:
        """The labels in one-hot form, (B, C), after their check."""
        known = labels
        if isinstance(labels, Tracer):  # its values are not known yet: class 0 stands for them
            known = np.zeros(labels.shape, labels.dtype)
        check_labels(np.asarray(known), num_rows, self.num_classes)
        one_hot = jnp.asarray(labels)[:, None] == jnp.arange(self.num_classes)
        return one_hot.astype(jnp.result_type(float))
