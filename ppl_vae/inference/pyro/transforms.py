"""What `fit(transform=...)` does to the rows of every mini-batch before the program sees them.

A transform is a function `transform(x)` of rows x, (B, *event), NaN where missing, that returns
rows of the same shape.  Its draws follow `pyro.set_rng_seed`, as all others.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Transform", "dynamic_binarisation"]

Transform = Callable[[Tensor], Tensor]


def dynamic_binarisation(x: Tensor) -> Tensor:
    """Draw black and white pixels anew, with the grey values as probabilities.

        x_d ~ Bernoulli(grey_d), independently; what is missing stays missing

    Burda et al. (2016), section 5, https://arxiv.org/abs/1509.00519; Salakhutdinov and Murray
    (2008). For one draw that stays use `ppl_vae.datasets.binarise_stochastic`.

    Args:
        x: grey values in [0, 1], any shape, NaN where missing.

    Raises:
        ValueError: if a grey value lies outside [0, 1].

    Example:
        >>> dynamic_binarisation(torch.tensor([[0.0, 1.0, torch.nan]]))
        tensor([[0., 1., nan]])
    """
    x = torch.as_tensor(x)
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    missing = None if _in_unit_interval(x) else torch.isnan(x)
    if missing is not None and not bool(((x >= 0) & (x <= 1) | missing).all()):
        seen = x[~missing]
        raise ValueError(
            f"dynamic_binarisation takes grey values in [0, 1], got {seen.min().item():g} to "
            f"{seen.max().item():g}; divide bytes by 255."
        )
    pixels = torch.rand_like(x).lt_(x)  # torch.bernoulli takes several times as long
    return pixels if missing is None else pixels.masked_fill_(missing, torch.nan)


def _in_unit_interval(x: Tensor) -> bool:
    """Whether all entries lie in [0, 1], none of them missing."""
    if x.numel() == 0:
        return True
    low, high = x.aminmax()
    return bool(low >= 0) and bool(high <= 1)
