"""Many trainings of one shape at once: `fit_replicas`, a batch axis over keys."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, random

from ppl_vae.counts import check_at_least
from ppl_vae.inference.numpyro.epochs import Keys
from ppl_vae.inference.numpyro.fitted import Fitted
from ppl_vae.inference.numpyro.random_keys import check_key
from ppl_vae.inference.numpyro.svi import check_first_batch, descend, prepare
from ppl_vae.run_settings import TrainingOptions

__all__ = ["fit_replicas"]


def fit_replicas(
    key: Array,
    make_program: Callable[[], Any],
    x: Any,
    *args: Any,
    num_replicas: int,
    **options: Any,
) -> list[Fitted]:
    """Train a program several times, from other first weights and with other draws.

    All replicas are trained side by side in one compiled loop, and replica i is what
    `fit(random.split(key, num_replicas)[i], ...)` gives, but for rounding.

    Args:
        key: random key.
        make_program: returns the program, such as `lambda: VAE((784,), 50)`.
        x: data, as in `fit`.
        *args: further arguments of model and guide, as in `fit`.
        num_replicas: trainings, at least 1.
        **options: those of `fit`; the checkpoint is one file for all of them.

    Raises:
        ValueError: if `num_replicas` is below 1; else as `fit`.
        TypeError: an option that `fit` does not have, or a program in place of a function.

    Example:
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import VAE
        >>> x = digits(binary=True).x_train
        >>> options = {"num_steps": 3, "progress_bar": False}
        >>> replicas = fit_replicas(
        ...     random.key(0), lambda: VAE((64,), 4), x, num_replicas=2, **options)
        >>> [fitted.losses.shape for fitted in replicas]
        [(3,), (3,)]
    """
    if not callable(make_program) or hasattr(make_program, "model"):
        raise TypeError("make_program must be a function that returns a new program.")
    check_key(key)
    check_at_least(1, num_replicas=num_replicas)
    unknown = sorted(set(options) - set(TrainingOptions.__dataclass_fields__))
    if unknown:
        raise TypeError(f"fit_replicas() got an unexpected keyword argument {unknown[0]!r}.")
    all_options = TrainingOptions(**options)
    training = prepare(make_program(), x, args, all_options)
    epochs, seeds = training.epochs, random.split(key, num_replicas)
    keys = Keys(*jax.vmap(lambda key: random.split(key, 4), out_axes=1)(seeds))
    state = jax.vmap(lambda keys: epochs.start(keys, training.params, training.rows))(keys)
    first_keys, first_state = jax.tree.map(lambda leaf: leaf[0], (keys, state))
    check_first_batch(training, first_keys, first_state, all_options)
    run = jax.jit(jax.vmap(epochs.run, in_axes=(0, 0, None, None, None)))
    loss_of = jax.jit(jax.vmap(epochs.loss, in_axes=(0, 0, None, None)))
    words = all_options.words(training.program, x, args, seed=str(random.key_data(seeds)))
    progress = training.progress(all_options.num_steps, num_replicas)
    state = descend(training, run, loss_of, state, keys, progress, all_options, words)
    params = epochs.params_of(state)
    losses = zip(progress.losses, progress.validation_losses, strict=True)
    return [
        Fitted(training.program, jax.tree.map(lambda leaf, i=i: leaf[i], params), *of_one)
        for i, of_one in enumerate(losses)
    ]
