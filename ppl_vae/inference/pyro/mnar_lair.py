"""LAIR for data missing not at random.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, appendix on MNAR data.  https://arxiv.org/abs/2308.09078

Shapes: C chains, K particles, R prior proposals, P = K + R, B rows.
"""

from collections.abc import Callable
from typing import Any

from ppl_vae.inference.pyro.lair import (
    LAIRInfo,
    LAIRKernel,
    LAIRState,
    lair_info,
    weigh,
    without_nan,
)
from ppl_vae.inference.pyro.missingness import check_missingness, log_missingness
from ppl_vae.inference.pyro.program import Program
from ppl_vae.inference.pyro.resampling import multinomial
from ppl_vae.inference.pyro.rows import take_rows
from ppl_vae.inference.pyro.weighting import log_mixture

__all__ = ["MNARLAIRKernel", "step"]


def step(
    program: Program,
    state: LAIRState,
    missingness: Callable[..., Any],
    *,
    num_prior: int,
) -> tuple[LAIRState, LAIRInfo]:
    """Propose pairs (z, x_m), weigh them by how likely the mask is too, resample the pairs."""
    proposed = weigh(program, state.x, num_prior, log_mixture)
    num_particles = state.x.shape[1]

    x = program.impute(proposed.likelihood)
    log_missing = log_missingness(program, missingness, x)
    log_weight = without_nan(proposed.log_weight + log_missing)

    ancestor = multinomial(log_weight, num_particles)
    proposals = {**proposed.z, program.site: x}
    z, lp = take_rows((proposals, proposed.log_joint), ancestor)
    x = z.pop(program.site)
    return LAIRState(x, z), lair_info(lp, log_weight, proposals)


class MNARLAIRKernel(LAIRKernel):
    """LAIR where what is missing depends on its own value.

    Proposals are pairs: z as in `LAIRKernel`, x_m ~ p(x_m | x_o, z). They are weighed by

        w(z, x_m) = p(x_o, z) p(M | x_o, x_m) / { [sum_k q(z | x^k) + R p(z)] / (K + R) }

    and resampled as pairs, so that x_m follows p(x_m | z, x_o, M) and not p(x_m | z, x_o). The mean
    weight estimates p(x_o, M). `pool` resamples the pairs of all iterations, for which every
    proposed x is kept.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        missingness: `missingness(x, mask=None)`, a program that observes the mask; see
            `logistic_missingness`.
        site: name of the data site.
        num_particles: K, at least 1.
        num_prior: R, at least 0.

    Raises:
        TypeError: when run, if `missingness` is no function of `mask`.
        ValueError: if `num_particles` or `num_prior` is out of range; when run, if a site of
            `missingness` is not observed row by row.

    Example:
        >>> import numpy as np
        >>> import pyro, torch
        >>> from ppl_vae.missingness import mnar_self_logistic
        >>> from ppl_vae.pyro import MCMC, MNARLAIRKernel, VAE, fit, logistic_missingness
        >>> pyro.set_rng_seed(0)
        >>> vae = VAE((3,), 2, hidden=(8,), likelihood="normal")
        >>> x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
        >>> fitted = fit(vae, torch.as_tensor(x), num_steps=5)
        >>> mechanism = mnar_self_logistic(np.random.default_rng(0), x)
        >>> mask = mechanism.sample(np.random.default_rng(1), x)
        >>> missingness = logistic_missingness(mechanism)
        >>> kernel = MNARLAIRKernel(fitted.model, fitted.guide, missingness)
        >>> mcmc = MCMC(kernel, num_warmup=5, num_samples=10)
        >>> mcmc.run(torch.as_tensor(x), mask=torch.as_tensor(mask))
        >>> mcmc.get_samples()["x"].shape  # draws, particles, rows, entries
        torch.Size([10, 4, 20, 3])
    """

    settings = ("num_particles", "num_prior")

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        missingness: Callable[..., Any],
        *,
        site: str = "x",
        num_particles: int = 4,
        num_prior: int = 1,
    ) -> None:
        super().__init__(model, guide, site=site, num_particles=num_particles, num_prior=num_prior)
        self.missingness = missingness

    def check(self, program: Program) -> None:
        """Raise where the program or its missingness model cannot be sampled."""
        super().check(program)
        check_missingness(program, self.missingness)

    def step(self, program: Program, state: LAIRState) -> tuple[LAIRState, LAIRInfo]:
        """Advance the populations by one iteration."""
        return step(program, state, self.missingness, num_prior=self.num_prior)
