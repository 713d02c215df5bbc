"""Many trainings of one shape: `fit_replicas`, one after the other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ppl_vae.counts import check_at_least
from ppl_vae.inference.pyro.fitted import Fitted
from ppl_vae.inference.pyro.svi import fit

__all__ = ["fit_replicas"]


def fit_replicas(
    make_program: Callable[[], Any],
    x: Any,
    *args: Any,
    num_replicas: int,
    **options: Any,
) -> list[Fitted]:
    """Train a program several times, from other first weights and with other draws.

    The replicas are trained one after the other; only the NumPyro twin trains them side by side.

    Args:
        make_program: returns a new program that holds its weights, such as
            `lambda: VAE((784,), 50)`.
        x: data, as in `fit`.
        *args: further arguments of model and guide, as in `fit`.
        num_replicas: trainings, at least 1.
        **options: those of `fit`; the checkpoint `run.npz` is `run-0.npz` for the first of them.

    Raises:
        ValueError: if `num_replicas` is below 1; else as `fit`.
        TypeError: an option that `fit` does not have, or a program in place of a function.

    Example:
        >>> import pyro
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.pyro import VAE
        >>> pyro.set_rng_seed(0)
        >>> x = digits(binary=True).x_train
        >>> options = {"num_steps": 3, "progress_bar": False}
        >>> replicas = fit_replicas(lambda: VAE((64,), 4), x, num_replicas=2, **options)
        >>> [fitted.losses.shape for fitted in replicas]
        [(3,), (3,)]
    """
    if not callable(make_program) or hasattr(make_program, "model"):
        raise TypeError("make_program must be a function that returns a new program.")
    check_at_least(1, num_replicas=num_replicas)
    path = options.pop("checkpoint", None)
    replicas = []
    # Seeds are drawn first, so that a replica is the same whether those before it were resumed.
    for i, seed in enumerate(torch.randint(2**62, (num_replicas,)).tolist()):
        torch.manual_seed(seed)
        own_path = None if path is None else Path(path).with_stem(f"{Path(path).stem}-{i}")
        replicas.append(fit(make_program(), x, *args, checkpoint=own_path, **options))
    return replicas
