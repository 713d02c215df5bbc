"""Training objectives with Pyro's own ELBO interface, right for partially observed rows.

An objective is one equation, `value(program)`: what training maximises, per row, shape (B,), in
nats; the loss is minus its sum over the rows of the batch, times the scale of a subsampled plate.
It runs in `pyro.infer.SVI` and in `fit(objective=...)`.  Shapes: K particles, B rows.
"""

from collections.abc import Callable
from typing import Any

from pyro import infer
from torch import Tensor

from ppl_vae.counts import check_at_least
from ppl_vae.inference.pyro.mcmc import take_data
from ppl_vae.inference.pyro.particles import (
    Sites,
    at_fixed_values,
    decode,
    draw_particles,
    log_prob,
    times,
    values,
)
from ppl_vae.inference.pyro.program import Program, split_data
from ppl_vae.inference.pyro.training_batch import take_batch
from ppl_vae.schedules import Schedule, at_step, check_weight

__all__ = ["ELBO", "STL", "Objective"]


class Objective(infer.ELBO):
    """What training maximises; a subclass with an equation of its own is a new objective.

    With missing entries the guide sees zeros where x is missing, and the mask if it has a
    parameter of that name. The keywords `mask` and `step` of `svi.step` are the objective's; all
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

    def value(self, program: Program) -> Tensor:
        """Return what is maximised for each row, shape (B,)."""
        raise NotImplementedError

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return minus the sum of the value over rows, as a tensor with gradients."""
        x, args, mask, kwargs = take_data(args, kwargs)
        objective = at_step(self, kwargs.pop("step", None))
        x_obs, mask = split_data(x, mask)
        program = Program(model, guide, x_obs, mask, self.site, args, kwargs)
        batch, scale = take_batch(program)
        scale = scale if self.scales_plates else 1.0
        return -scale * objective.value(batch).sum()

    def loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """Return minus the sum of the value over rows."""
        return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """Return the loss, and add its gradients to the parameters'."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError("This objective runs the program by itself.")


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
        >>> import pyro, torch
        >>> from pyro.infer import SVI
        >>> from ppl_vae.pyro import ELBO, VAE
        >>> from ppl_vae.schedules import Linear
        >>> vae, optimiser = VAE((4,), 2, hidden=(8,)), pyro.optim.Adam({"lr": 1e-3})
        >>> svi = SVI(vae.model, vae.guide, optimiser, ELBO(kl_weight=Linear(0, 1, 100)))
        >>> loss = svi.step(torch.ones(3, 4), step=0)
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

    def value(self, program: Program) -> Tensor:
        """Return the bound of each row, shape (B,)."""
        return self.log_weight(program).mean(0)

    def log_weight(self, program: Program) -> Tensor:
        """Return log p(x_o | z_k) + kl_weight (log p(z_k) - log q(z_k | x)), shape (K, B)."""
        guide = draw_particles(program, self.num_particles)
        log_observed, latent = decode(program, values(guide), self.chunk_size)
        log_ratio = log_prob(latent) - self.log_proposal(program, guide)
        return log_observed + times(self.kl_weight, log_ratio)

    def log_proposal(self, program: Program, guide: Sites) -> Tensor:
        """Return log q(z | x) at the guide's draws, as its gradient is to flow, shape (K, B)."""
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
        >>> import pyro
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.pyro import STL, VAE, fit
        >>> pyro.set_rng_seed(0)
        >>> x = digits(binary=True).x_train
        >>> fit(VAE((64,), 4), x, objective=STL(), num_steps=20).losses.shape
        (20,)
    """

    def log_proposal(self, program: Program, guide: Sites) -> Tensor:
        """Return log q(z | x) at the guide's draws, through z alone, shape (K, B)."""
        log_q = log_prob(guide)
        # Weights are held by the nets, not by the program: subtract what they contribute.
        through_weights = log_prob(at_fixed_values(program, guide))
        return log_q - through_weights + through_weights.detach()
