"""The VAE given labels as a Pyro program, with any number of stochastic layers.

Sohn, Lee and Yan (2015), Learning structured output representation using deep conditional
generative models, https://papers.nips.cc/paper/5775; as a chain like `HierarchicalVAE`:
    zL | y ~ Normal(p_zL(y)) or Normal(0, I),  x | z1, y ~ likelihood(p_x(z1, y))
    q(z1 | x, y) = Normal(q_z1(x, y)),  between the layers as without labels
Shapes: B rows, C classes, event = shape of one row. Other axes may lead the rows of x.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppl_vae.inference.pyro.compiled import is_recording
from ppl_vae.models.layered import LayeredArchitecture, check_labels
from ppl_vae.models.pyro.layered import LayeredProgram
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
        >>> vae = ConditionalVAE((64,), (8,), num_classes=10, hidden=((32, 32),))
        >>> labels = torch.tensor([3, 3, 7])
        >>> x = vae.model(None, labels)
        >>> (z1,) = vae.guide(x, labels)
        >>> x.shape, z1.shape
        (torch.Size([3, 64]), torch.Size([3, 8]))
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

    def model(self, x: Tensor | None, labels: Tensor) -> Tensor:
        """p(x, z1, ..., zL | y) of rows x, (B, *event), of classes (B,); draw the rows for None."""
        num_rows = len(labels) if x is None else self._num_rows(x)
        return self._run_model(x, num_rows, self._classes(labels, num_rows))

    def guide(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """q(z1, ..., zL | x, y) of rows x, (B, *event), of classes (B,); return z1, ..., zL."""
        return self._run_guide(x, self._classes(labels, self._num_rows(x)))

    def check_rows(self, x: Tensor, labels: Tensor | None = None) -> None:
        """Raise unless rows x have values that the likelihood can give, and labels within range.

        Model and guide check the same.

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

    def _classes(self, labels: Any, num_rows: int) -> Tensor:
        """The labels in one-hot form, (B, C), after their check."""
        labels = torch.as_tensor(labels, device=self.prior_loc.device)
        if not is_recording():
            check_labels(labels.cpu().numpy(), num_rows, self.num_classes)
        one_hot = labels[:, None] == torch.arange(self.num_classes, device=labels.device)
        return one_hot.to(self.prior_loc.dtype)
