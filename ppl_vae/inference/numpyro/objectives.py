"""Training objectives with NumPyro's own ELBO interface, right for partially observed rows.

An objective is one equation, `value(key, program)`: what training maximises, per row, shape (B,),
in nats; the loss is minus its sum over the rows of the batch, times the scale of a subsampled
plate.  It runs in `numpyro.infer.SVI` and in `fit(objective=...)`.  Shapes: K particles, B rows.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
from jax import Array, lax, random
from numpyro import infer

from ppl_vae.counts import check_at_least
from ppl_vae.inference.numpyro.network_state import updated_state
from ppl_vae.inference.numpyro.particles import (
    Sites,
    decode,
    draw_particle,
    log_prob,
    times,
    values,
)
from ppl_vae.inference.numpyro.program import Latents, Program, split_data
from ppl_vae.inference.numpyro.training_batch import take_batch
from ppl_vae.schedules import Schedule, at_step, check_weight

__all__ = ["ELBO", "STL", "Objective"]

# Folded into a key that is split for the particles: far from the numbers of its splits.
BATCH, NETS, STATE = 0x62617463, 0x6E657473, 0x73746174


class Objective(infer.elbo.ELBO):
    """What training maximises; a subclass with an equation of its own is a new objective.

    With missing entries the guide sees zeros where x is missing, and the mask if it has a
    parameter of that name. The keywords `mask` and `step` of `svi.update` are the objective's; all
    others go to model and guide. Attributes that are schedules have their values at `step` in
    `value`.

    Args:
        site: name of the data site.
    """

    least_particles = 1
    scales_plates = True  # whether a row in a plate over S of N rows counts N / S times

    def __init__(self, *, site: str = "x") -> None:
        super().__init__()
        self.site = site

    def value(self, key: Array, program: Program) -> Array:
        """Return what is maximised for each row, shape (B,)."""
        raise NotImplementedError

    def loss(self, rng_key: Array, *args: Any, **kwargs: Any) -> Array:
        """Return minus the sum of the value over rows, as NumPyro's SVI calls it."""
        return self._loss_and_batch(rng_key, *args, **kwargs)[0]

    def loss_with_mutable_state(self, rng_key: Array, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the loss, and what nets that keep a state have changed it to."""
        loss, batch = self._loss_and_batch(rng_key, *args, **kwargs)
        state = updated_state(random.fold_in(rng_key, STATE), batch)
        return {"loss": loss, "mutable_state": state}

    def _loss_and_batch(
        self,
        rng_key: Array,
        param_map: dict[str, Any],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Array, Program]:
        if not args:
            raise ValueError("The data comes first: `svi.update(state, x)`, not by keyword.")
        x, args = args[0], args[1:]
        kwargs = dict(kwargs)
        objective = at_step(self, kwargs.pop("step", None))
        x_obs, mask = split_data(x, kwargs.pop("mask", None))
        params, network_key = dict(param_map), random.fold_in(rng_key, NETS)
        program = Program(model, guide, x_obs, mask, self.site, params, args, kwargs, network_key)
        batch, scale = take_batch(random.fold_in(rng_key, BATCH), program)
        scale = scale if self.scales_plates else 1.0
        return -scale * objective.value(rng_key, batch).sum(), batch


class ELBO(Objective):
    """The evidence lower bound, by draws of the latents.

        mean over k of  log p(x_o | z_k) + kl_weight (log p(z_k) - log q(z_k | x)),  z_k ~ q(z | x)

    With missing entries it bounds log p(x_o). Kingma and Welling (2014), eq. 6,
    https://arxiv.org/abs/1312.6114; `kl_weight` is the beta of Higgins et al. (2017), and with
    another value than 1 this is no bound. Every latent site of the guide must be reparameterised.

    Args:
        num_particles: draws a row, K.
        kl_weight: at least 0, or a schedule of `ppl_vae.schedules`.
        chunk_size: particles to decode at a time, the decoder run again for the gradient, so that
            memory is that of one chunk; None: on a CPU some 2000 rows at a time, elsewhere all.
        site: name of the data site.

    Raises:
        ValueError: if `num_particles` is below 1 or `kl_weight` negative; when run, if a site of
            the guide cannot be reparameterised, or the step of a schedule is not known.

    Example:
        >>> import optax
        >>> from jax import numpy as jnp, random
        >>> from numpyro.infer import SVI
        >>> from ppl_vae.numpyro import ELBO, VAE
        >>> from ppl_vae.schedules import Linear
        >>> vae, x = VAE((4,), 2, hidden=(8,)), jnp.ones((3, 4))
        >>> svi = SVI(vae.model, vae.guide, optax.adam(1e-3), ELBO(kl_weight=Linear(0, 1, 100)))
        >>> state, loss = svi.update(svi.init(random.key(0), x), x, step=0)
    """

    def __init__(
        self,
        *,
        num_particles: int = 1,
        kl_weight: float | Schedule = 1.0,
        chunk_size: int | None = None,
        site: str = "x",
    ) -> None:
        super().__init__(site=site)
        check_at_least(self.least_particles, num_particles=num_particles)
        self.num_particles = num_particles
        self.kl_weight: Any = check_weight("kl_weight", kl_weight)
        if chunk_size is not None:
            check_at_least(1, chunk_size=chunk_size)
        self.chunk_size = chunk_size

    def value(self, key: Array, program: Program) -> Array:
        """Return the bound of each row, shape (B,)."""
        return self.log_weight(key, program).mean(0)

    def log_weight(self, key: Array, program: Program) -> Array:
        """Return log p(x_o | z_k) + kl_weight (log p(z_k) - log q(z_k | x)), shape (K, B)."""

        def of_one_particle(key: Array) -> tuple[Latents, Array]:
            guide = draw_particle(key, program)
            return values(guide), self.log_proposal(program, guide)

        z, log_q = jax.vmap(of_one_particle)(random.split(key, self.num_particles))
        log_observed, log_prior = decode(program, z, self.chunk_size)
        return log_observed + times(self.kl_weight, log_prior - log_q)

    def log_proposal(self, program: Program, guide: Sites) -> Array:
        """Return log q(z | x) at the guide's draw, as its gradient is to flow, shape (B,)."""
        return log_prob(guide)


class STL(ELBO):
    """The evidence lower bound with the guide's parameters held fixed inside log q.

        log q_phi'(z | x),  phi' = phi without gradient,  z ~ q_phi(z | x)

    The value is that of `ELBO`. What is left out of its gradient has mean zero; what remains has
    no variance where q is the posterior. Roeder, Wu and Duvenaud (2017), Sticking the landing,
    https://arxiv.org/abs/1703.09194.

    Args:
        num_particles: draws a row, K.
        kl_weight: at least 0, or a schedule of `ppl_vae.schedules`.
        chunk_size: particles to decode at a time, the decoder run again for the gradient, so that
            memory is that of one chunk; None: on a CPU some 2000 rows at a time, elsewhere all.
        site: name of the data site.

    Raises:
        ValueError: as `ELBO`.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import STL, VAE, fit
        >>> x = digits(binary=True).x_train
        >>> fit(random.key(0), VAE((64,), 4), x, objective=STL(), num_steps=20).losses.shape
        (20,)
    """

    def log_proposal(self, program: Program, guide: Sites) -> Array:
        """Return log q(z | x) at the guide's draw, through z alone, shape (B,)."""
        held = replace(program, params=lax.stop_gradient(program.params))
        return held.log_proposal(values(guide), program.x_obs)
