"""A program as the conditional model p(z | x_o), for the host's own gradient-based samplers."""

import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch.distributions import biject_to

from ppl_vae.inference.pyro.contract import check_program
from ppl_vae.inference.pyro.mcmc import ProgramKernel, as_numpy, take_data
from ppl_vae.inference.pyro.model_masks import without_mask
from ppl_vae.inference.pyro.pooling import impute_each
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.starting import starting_values
from ppl_vae.inference.pyro.unconstrained import require_continuous, to_unconstrained
from ppl_vae.inference_data import Run
from ppl_vae.masks import check_data

__all__ = ["ConditionalModel"]


class ConditionalModel:
    """The latents of a program given what was observed, as a model of the host's own.

        p(z | x_o), proportional to p(z) p(x_o | z)

    The latent sites are those of `model`; the data site is replaced by the factor log p(x_o | z).
    Any sampler of the host runs on it, its NUTS and HMC above all; `to_inference_data` draws
    x_m ~ p(x_m | x_o, z) for every draw of z, and returns the groups of this library's kernels,
    with `lp` per row, and `acceptance_rate` and `diverging` of the chain repeated for each row.
    All rows move in one trajectory: a host's sampler adapts to the hardest of them, and slows down
    with the number of rows; `HMCRefreshKernel` moves each row by itself.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site; chains start from it.
        site: name of the data site.

    Raises:
        ValueError: when run, if the data or the program cannot be sampled, or a latent site is
            discrete.

    Example:
        >>> import pyro
        >>> from pyro.infer import MCMC, NUTS
        >>> from ppl_vae.pyro import VAE, ConditionalModel, fit, to_inference_data
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> pyro.set_rng_seed(0)
        >>> data = digits(binary=True)
        >>> fitted = fit(VAE((64,), 4), data.x_train, num_steps=20)
        >>> x = with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64))
        >>> conditional = ConditionalModel(fitted.model, fitted.guide)
        >>> kernel = NUTS(conditional, max_tree_depth=3)
        >>> mcmc = MCMC(kernel, 10, warmup_steps=5, initial_params=conditional.start(x))
        >>> mcmc.run(x)
        >>> to_inference_data(mcmc)["posterior"]["z"].shape
        (1, 10, 3, 4)
    """

    def __init__(
        self, model: Callable[..., Any], guide: Callable[..., Any], *, site: str = "x"
    ) -> None:
        self._kernel = ProgramKernel(model, guide, site=site)
        self.site = site
        self._checked: tuple[Any, Any] | None = None  # data and mask
        self._seed = torch.initial_seed()
        self._started = time.perf_counter()
        self._is_collected = False

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Sample the latents and score what was observed of `x`, the first argument.

        x has shape (rows, *event) and holds NaN where it is missing, or comes with a `mask`
        (bool, True = observed). All else goes to the model.
        """
        program = self._bind(args, kwargs)
        with _Hide(self.site):
            likelihood = program.trace_model()[self.site]["fn"]
        pyro.factor(f"{self.site}_observed", program.log_observed(without_mask(likelihood)))

    @torch.no_grad()
    def start(self, *args: Any, num_chains: int = 1, **kwargs: Any) -> Latents:
        """Return first values of the latents, z ~ q(z | x), in unconstrained coordinates.

        The guide sees rows completed by the model's own prior predictive. For `initial_params`.

        Args:
            args: the data, and what else the run is given.
            num_chains: C; values are (C, B, ...), or (B, ...) for one chain.
            kwargs: `mask`, and what else the run is given.
        """
        program = self._bind(args, kwargs)
        x, _ = starting_values(program, num_chains, None, None)
        u, _ = to_unconstrained(program, program.propose(x))
        return {name: value[0] for name, value in u.items()} if num_chains == 1 else u

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        """Return the program bound to a run's data, checked once for each data set."""
        x, _, mask, _ = take_data(args, kwargs)
        is_new = self._checked is None or self._checked[0] is not x or self._checked[1] is not mask
        if is_new:
            check_data(as_numpy(x), as_numpy(mask), site=self.site)
        program = self._kernel.bind(args, kwargs)
        if is_new:
            with pyro.poutine.block(), torch.random.fork_rng(), torch.no_grad():
                check_program(program)
                require_continuous(program)
                _require_fixed_supports(program)
            self._checked = (x, mask)
        if is_new or self._is_collected:  # another run
            self._started, self._is_collected = time.perf_counter(), False
        self._seed = torch.initial_seed()
        return program

    # --- results ----------------------------------------------------------------------------

    @torch.no_grad()
    def collect(self, mcmc: Any) -> Run:
        """Return the draws of a finished run, completed, as numpy arrays.

        The missing entries are drawn with a seed made of the draws of z. `acceptance_rate` is the
        mean of a chain, the only one that Pyro keeps.
        """
        self._is_collected = True
        program = self._kernel.bind(mcmc._args, mcmc._kwargs)
        draws = mcmc.get_samples(group_by_chain=True)
        with torch.random.fork_rng():
            z = {name: draws[name] for name in program.propose_from_prior(())}
            torch.manual_seed(zlib.crc32(b"".join(as_numpy(v).tobytes() for v in z.values())))
            completed, lp = impute_each(program, z)
        lp = as_numpy(lp)
        constants = {**{f"arg_{i}": v for i, v in enumerate(program.args)}, **program.kwargs}
        return Run(
            site=self.site,
            x=as_numpy(program.x_obs),
            mask=as_numpy(program.mask),
            completed=as_numpy(completed),
            latents={name: as_numpy(value) for name, value in z.items()},
            stats={"lp": lp, **_statistics(mcmc, lp.shape)},
            constants={name: as_numpy(value) for name, value in constants.items()},
            attrs={
                "kernel": type(mcmc.kernel).__name__,
                "num_warmup": mcmc.warmup_steps,
                "thinning": 1,
                "seed": str(self._seed),
                "wall_time": time.perf_counter() - self._started,
            },
        )


class _Hide(Messenger):
    """Keeps the data site from the host: it is scored by the factor alone."""

    def __init__(self, site: str) -> None:
        super().__init__()
        self.site = site

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == self.site:
            msg["stop"] = True


def _require_fixed_supports(program: Program) -> None:
    """Refuse supports that move with other latents: Pyro's samplers fix them at their first."""
    sites, others = program.trace_model(), program.trace_model()
    for name, site in sites.items():
        if site["is_observed"]:
            continue
        transform, other = (biject_to(s[name]["fn"].support) for s in (sites, others))
        u = transform.inv(site["value"])
        if not torch.equal(transform(u), other(u)):
            raise ValueError(
                f"The support of the latent site {name!r} depends on other latents, which Pyro's "
                "samplers do not follow. Use HMCRefreshKernel, or draw the site within fixed "
                "bounds and scale it in the model."
            )


def _statistics(mcmc: Any, shape: tuple[int, int, int]) -> dict[str, Any]:
    """The host's statistics of a chain's draws, repeated for each row: (C, B) and (C, S, B)."""
    chains = [d for d in mcmc._diagnostics if d and "divergences" in d]
    if len(chains) < shape[0]:
        return {}
    rate = np.array([float(d["acceptance rate"]) for d in chains])
    diverging = np.zeros(shape, bool)
    for chain, d in enumerate(chains):
        diverging[chain, d["divergences"]] = True
    return {
        "acceptance_rate": np.broadcast_to(rate[:, None], (shape[0], shape[2])),
        "diverging": diverging,
    }
