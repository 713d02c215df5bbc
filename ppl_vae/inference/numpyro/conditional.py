"""A program as the conditional model p(z | x_o), for the host's own gradient-based samplers."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import numpyro
from jax import Array, random
from numpyro.primitives import Messenger
from numpyro.util import is_prng_key

from ppl_vae.inference.numpyro.contract import check_program
from ppl_vae.inference.numpyro.mcmc import ProgramKernel, take_data
from ppl_vae.inference.numpyro.model_masks import without_mask
from ppl_vae.inference.numpyro.pooling import impute_each
from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.starting import starting_values
from ppl_vae.inference.numpyro.unconstrained import require_continuous, to_unconstrained
from ppl_vae.inference_data import Run
from ppl_vae.masks import check_data

__all__ = ["ConditionalModel"]

IMPUTATION = 0x696D7075  # folded into a key: far from the numbers of its splits
STATISTICS = {  # our names for the host's fields of one draw of all rows
    "acceptance_rate": "accept_prob",
    "diverging": "diverging",
    "num_steps": "num_steps",
}


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
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).

    Raises:
        ValueError: when run, if the data or the program cannot be sampled, or a latent site is
            discrete.

    Example:
        >>> from jax import random
        >>> from numpyro.infer import NUTS
        >>> from ppl_vae.numpyro import MCMC, VAE, ConditionalModel, fit, to_inference_data
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> x = with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64))
        >>> conditional = ConditionalModel(fitted.model, fitted.guide)
        >>> mcmc = MCMC(NUTS(conditional), num_warmup=5, num_samples=10)
        >>> mcmc.run(random.key(1), x, init_params=conditional.start(random.key(2), x))
        >>> to_inference_data(mcmc)["posterior"]["z"].shape
        (1, 10, 3, 4)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *,
        site: str = "x",
        params: dict[str, Any] | None = None,
    ) -> None:
        self._kernel = ProgramKernel(model, guide, site=site, params=params)
        self.site = site
        self._checked: tuple[Any, Any] | None = None  # data and mask
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
        numpyro.factor(f"{self.site}_observed", program.log_observed(without_mask(likelihood)))

    def start(self, key: Array, *args: Any, num_chains: int = 1, **kwargs: Any) -> Latents:
        """Return first values of the latents, z ~ q(z | x), in unconstrained coordinates.

        The guide sees rows completed by the model's own prior predictive. For `init_params`.

        Args:
            key: random key.
            args: the data, and what else the run is given.
            num_chains: C; values are (C, B, ...), or (B, ...) for one chain.
            kwargs: `mask`, and what else the run is given.
        """
        program = self._bind(args, kwargs)

        def start_chain(key: Array) -> Latents:
            key_x, key_z = random.split(key)
            x, _ = starting_values(key_x, program, None, None)
            return to_unconstrained(program, program.propose(key_z, x))[0]

        if num_chains == 1:
            return jax.jit(start_chain)(key)
        return jax.jit(jax.vmap(start_chain))(random.split(key, num_chains))

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        """Return the program bound to a run's data, checked once for each data set."""
        x, _, mask, _ = take_data(args, kwargs)
        if isinstance(x, jax.core.Tracer) or isinstance(mask, jax.core.Tracer):
            return self._kernel.bind(args, kwargs)  # under a caller's jit no values are known yet
        is_new = self._checked is None or self._checked[0] is not x or self._checked[1] is not mask
        if is_new:
            check_data(x, mask, site=self.site)
        program = self._kernel.bind(args, kwargs)
        if is_new:
            with numpyro.handlers.block(), jax.ensure_compile_time_eval():
                check_program(random.key(0), program)
                require_continuous(random.key(0), program)
            self._checked = (x, mask)
        if is_new or self._is_collected:  # another run
            self._started, self._is_collected = time.perf_counter(), False
        return program

    # --- results ----------------------------------------------------------------------------

    def collect(self, mcmc: Any) -> Run:
        """Return the draws of a finished run, completed, as numpy arrays.

        The missing entries are drawn with a key that comes from the run's own. `acceptance_rate`
        is that of each draw after `run(..., extra_fields=("accept_prob",))`, else the mean.
        """
        if mcmc.last_state is None:
            raise ValueError("There are no draws yet: call `run` first.")
        self._is_collected = True
        program = self._kernel.bind(mcmc._args, mcmc._kwargs)
        names = jax.eval_shape(program.propose_from_prior, random.key(0))
        draws = mcmc.get_samples(group_by_chain=True)
        z = {name: draws[name] for name in names}
        completed, z, lp = _impute(mcmc.last_state.rng_key, program, z)
        return Run(
            site=self.site,
            x=np.asarray(program.x_obs),
            mask=np.asarray(program.mask),
            completed=completed,
            latents=z,
            stats={"lp": lp, **_statistics(mcmc, lp.shape)},
            constants={**{f"arg_{i}": v for i, v in enumerate(program.args)}, **program.kwargs},
            attrs={
                "kernel": type(mcmc.sampler).__name__,
                "num_warmup": mcmc.num_warmup,
                "thinning": mcmc.thinning,
                "seed": "unknown",  # the host keeps no record of it
                "wall_time": time.perf_counter() - self._started,
            },
        )


class _Hide(Messenger):
    """Keeps the data site from the host: it is scored by the factor alone."""

    def __init__(self, site: str) -> None:
        super().__init__()
        self.site = site

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["name"] == self.site:
            msg["stop"] = True


def _impute(rng_key: Array, program: Program, z: Latents) -> Any:
    """Return completed rows, z and log p(x_o, z) at every draw of z, (C, S, B, ...), in numpy."""
    keys = rng_key[None] if is_prng_key(rng_key) else rng_key
    keys = jax.vmap(lambda key: random.fold_in(key, IMPUTATION))(keys)
    of_chains = jax.lax.map(lambda chain: impute_each(chain[0], program, chain[1]), (keys, z))
    return jax.tree.map(np.asarray, of_chains)


def _statistics(mcmc: Any, shape: tuple[int, int, int]) -> dict[str, Any]:
    """The host's statistics of a chain's draws, repeated for each row: shape (C, S, B)."""
    fields = mcmc.get_extra_fields(group_by_chain=True)
    stats = {
        name: np.broadcast_to(np.asarray(fields[field])[..., None], shape)
        for name, field in STATISTICS.items()
        if field in fields
    }
    mean = getattr(mcmc.last_state, "mean_accept_prob", None)
    if "acceptance_rate" not in stats and mean is not None:
        mean = np.asarray(mean).reshape(-1, 1)
        stats["acceptance_rate"] = np.broadcast_to(mean, (shape[0], shape[2]))
    return stats
