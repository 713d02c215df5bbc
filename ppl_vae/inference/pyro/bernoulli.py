"""Binary entries, fast on a CPU: the numbers of `torch.distributions`, with fewer temporaries.

New memory costs more than the arithmetic in it.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["fixed_log_prob", "log_prob", "sample", "uniform", "varying_log_prob"]

FEW = 2**16  # entries for which one call of torch.rand is quicker than several of anything
STEPS_FIT = (torch.float32, torch.float64)


def log_prob(logits: Tensor, x: Tensor) -> Tensor:
    """Return log p(x) of each entry."""
    logits, x = torch.broadcast_tensors(logits, x)
    if torch.is_grad_enabled():  # it needs what would be overwritten below
        return softplus(logits, threshold=40.0).neg_().addcmul_(x, logits)
    return fixed_log_prob(logits).add_(varying_log_prob(logits, x))


def fixed_log_prob(logits: Tensor) -> Tensor:
    """Return log p of each entry's likelier value; log1p would be the slow part."""
    return logits.abs().neg_().exp_().add_(1).log_().neg_()


def varying_log_prob(logits: Tensor, x: Tensor) -> Tensor:
    """Return log p(x) less log p of the likelier value: 0 or -|logits|."""
    return (x * logits).sub_(logits.clamp_min(0))


def sample(probs: Tensor, shape: torch.Size) -> Tensor:
    """Draw 0 or 1 in the dtype of `probs`; torch.bernoulli is several times slower on a CPU."""
    return uniform(shape, probs).lt_(probs)


def uniform(shape: torch.Size, like: Tensor) -> Tensor:
    """Draw from U[0, 1) in the dtype and on the device of `like`, many on CPU in steps of 2^-24.

    There torch draws 32 or 64 bits an entry, one after the other. Here each entry has 15 bits of
    its own, and shares the lowest 9 with the others along the last axis, so that no two comparisons
    with probabilities have a covariance above 2^-32.
    """
    if like.device.type != "cpu" or like.dtype not in STEPS_FIT or prod(shape) < FEW:
        return torch.rand(shape, dtype=like.dtype, device=like.device)
    return torch.ops.ppl_vae.uniform(shape, like.dtype)


def _uniform(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    size = prod(shape)
    words = torch.empty(-(-size // 4), dtype=torch.int64).random_()  # 63 bits each
    own = words.view(torch.int16).bitwise_and_(2**15 - 1)[:size].view(shape).to(dtype)
    shared = torch.randint(2**9, (*shape[:-1], 1)).to(dtype).mul_(2.0**-9)
    return own.add_(shared).mul_(2.0**-15)


# One operation to a recorder: torch's compiler is slow with 16-bit numbers.
_OPERATIONS = torch.library.Library("ppl_vae", "DEF")
_OPERATIONS.define(
    "uniform(int[] shape, ScalarType dtype) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,)
)
_OPERATIONS.impl("uniform", _uniform, "CompositeExplicitAutograd")


@torch.library.register_fake("ppl_vae::uniform")
def _uniform_without_numbers(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype)
