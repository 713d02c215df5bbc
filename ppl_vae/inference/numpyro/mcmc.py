"""One adapter: any (start, step) over a program as a NumPyro `MCMCKernel`.

A method's file holds its equations and a `ProgramKernel` with two functions of one chain; the
adapter brings the data, the chains and the keys.
"""

import copy
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import is_prng_key

from ppl_vae.inference.numpyro.contract import check_program
from ppl_vae.inference.numpyro.kernel_state import Complete, KernelState
from ppl_vae.inference.numpyro.program import Latents, Program, split_data
from ppl_vae.inference.numpyro.rows import row_arrays
from ppl_vae.inference.numpyro.starting import (
    HandOver,
    check_handed,
    refuse_undefined,
    starting_values,
)
from ppl_vae.inference_data import Run
from ppl_vae.masks import check_data

__all__ = ["ProgramKernel"]


class ProgramKernel(MCMCKernel):
    """A NumPyro kernel that draws the missing entries of the data given to `MCMC.run`.

    `mcmc.run(key, x, *args, mask=None, **kwargs)`: x has shape (rows, *event) and holds NaN where
    it is missing, or comes with a `mask` (bool, x's shape, True = observed). All else goes to the
    model and the guide. `get_samples()` holds completed rows under the name of the data site, and
    the latent sites; `get_extra_fields()["info"]` the statistics of each step.

    `init_params` takes `last_state.hand_over()` of another kernel's run: chains go on from there,
    and the results' attribute `start` says where. A dict of values, as `last_state.z`, works too.
    """

    sample_field = "z"
    default_fields = ("z", "info")
    num_particles: int | None = None
    settings: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *,
        site: str = "x",
        params: dict[str, Any] | None = None,
    ) -> None:
        for role, fn in (("model", model), ("guide", guide)):
            if not callable(fn):
                raise TypeError(f"{role} must be a function of x, got {type(fn).__name__}.")
        self.model = model
        self.guide = guide
        self.site = site
        self.params = dict(params or {})
        self._started = time.perf_counter()

    # --- what a method defines --------------------------------------------------------------

    def starting_values(
        self, key: Array, program: Program, handed: dict[str, Array] | None
    ) -> tuple[Array, Latents | None]:
        """Return completed rows, and latents where they are handed over."""
        return starting_values(key, program, self.num_particles, handed)

    def start(self, key: Array, program: Program, x: Array, z: Latents | None) -> Any:
        """Return the chain's first state, from completed rows (and latents handed over)."""
        raise NotImplementedError

    def step(self, key: Array, program: Program, state: Any) -> tuple[Any, Any]:
        """Return the chain's next state and the statistics of the step."""
        raise NotImplementedError

    def check(self, key: Array, program: Program) -> None:
        """Raise where the program cannot be sampled."""
        check_program(key, program)

    def redecode(self, program: Program, state: Any) -> Any:
        """Recompute what the state caches of the model."""
        return state

    # --- numpyro.infer.mcmc.MCMCKernel ------------------------------------------------------

    def init(
        self,
        rng_key: Array,
        num_warmup: int,
        init_params: dict[str, Array] | HandOver | None,
        model_args: tuple[Any, ...],
        model_kwargs: dict[str, Any] | None,
    ) -> KernelState:
        """Check the data and the program, and start every chain."""
        del num_warmup  # nothing is adapted
        nothing_missing = self._check(model_args, model_kwargs)
        start = "prior predictive" if init_params is None else "init_params"
        if isinstance(init_params, HandOver):
            start, init_params = init_params.origin, init_params.values
        check_handed(init_params)
        names = (self.site, type(self).__name__, start)
        self._started = time.perf_counter()
        program = self.bind(model_args, model_kwargs)
        refuse_undefined(program, init_params, has_chains=not is_prng_key(rng_key))
        if nothing_missing:
            chain = Complete(program.x_obs)
            if not is_prng_key(rng_key):
                chain = jax.tree.map(lambda a: jnp.stack([a] * len(rng_key)), chain)
            return KernelState(chain, (), rng_key, jnp.zeros(()), random.key_data(rng_key), *names)

        def init_chain(key: Array, params: dict[str, Array] | None) -> KernelState:
            key_start, key_x, key_next = random.split(key, 3)
            x, z = self.starting_values(key_x, program, params)
            chain = self.start(key_start, program, x, z)
            _, info = jax.eval_shape(lambda key, c: self.step(key, program, c), key_next, chain)
            info = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), info)
            seed = random.key_data(key)
            return KernelState(chain, info, key_next, jnp.zeros((), jnp.int32), seed, *names)

        return jax.jit(_over_chains(init_chain, rng_key))(rng_key, init_params)

    def sample(
        self, state: KernelState, model_args: tuple[Any, ...], model_kwargs: dict[str, Any] | None
    ) -> KernelState:
        """Advance every chain by one iteration."""
        if isinstance(state.chain, Complete):
            return state
        program = self.bind(model_args, model_kwargs)

        def sample_chain(state: KernelState) -> KernelState:
            key_step, key_next = random.split(state.rng_key)
            chain, info = self.step(key_step, program, state.chain)
            return state._replace(
                chain=chain, info=info, rng_key=key_next, num_steps=state.num_steps + 1
            )

        return _over_chains(sample_chain, state.rng_key)(state)

    def refresh(
        self, state: KernelState, model_args: tuple[Any, ...], model_kwargs: dict[str, Any] | None
    ) -> KernelState:
        """Recompute cached densities after the values that the model is conditioned on changed."""
        if isinstance(state.chain, Complete):
            return state
        program = self.bind(model_args, model_kwargs)
        redecode = _over_chains(partial(self.redecode, program), state.rng_key)
        return state._replace(chain=redecode(state.chain))

    def wrap_model(self, wrapper: Callable[..., Any]) -> "ProgramKernel":
        """Return a copy of this kernel with the model wrapped."""
        kernel = copy.copy(self)
        kernel.model = wrapper(self.model)
        return kernel

    def get_constrain_fn(
        self, model_args: tuple[Any, ...], model_kwargs: dict[str, Any] | None
    ) -> Callable[[dict[str, Array]], dict[str, Array]]:
        """Draws are values of the sites as they are."""
        del model_args, model_kwargs
        return lambda z: z

    def get_diagnostics_str(self, state: KernelState) -> str:
        """Return the progress bar's remark: the mean acceptance where the method has one."""
        rate = getattr(state.info, "acceptance_rate", None)
        return "" if rate is None else f"acceptance {float(rate.mean()):.2f}"

    # --- results ----------------------------------------------------------------------------

    def collect(self, mcmc: Any) -> Run:
        """Return the draws and statistics of a finished run as numpy arrays.

        NumPyro's `MCMC` keeps no clock: `wall_time` runs from the start of the chains until here.
        """
        if mcmc.last_state is None:
            raise ValueError("There are no draws yet: call `run` first.")
        draws = {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}
        info = mcmc.get_extra_fields(group_by_chain=True)["info"]
        stats = info._asdict() if info else {}
        x, args, mask, kwargs = take_data(mcmc._args, mcmc._kwargs)
        x_obs, mask = split_data(x, mask)
        return Run(
            site=self.site,
            x=np.asarray(x_obs),
            mask=np.asarray(mask),
            completed=draws.pop(self.site),
            latents=draws,
            stats={k: np.asarray(v) for k, v in stats.items() if not isinstance(v, dict)},
            constants={**{f"arg_{i}": v for i, v in enumerate(args)}, **kwargs},
            attrs={
                "kernel": type(self).__name__,
                **{name: _recorded(getattr(self, name)) for name in self.settings},
                "start": mcmc.last_state.start,
                "num_warmup": mcmc.num_warmup,
                "thinning": mcmc.thinning,
                "seed": str(np.asarray(mcmc.last_state.seed).tolist()),
                "wall_time": time.perf_counter() - self._started,
            },
        )

    # --- data -------------------------------------------------------------------------------

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Program:
        """Return the program bound to the data and arguments of a run."""
        x, args, mask, kwargs = take_data(args, kwargs)
        x_obs, mask = split_data(x, mask)
        args, kwargs = row_arrays((args, kwargs), len(x_obs))
        return Program(self.model, self.guide, x_obs, mask, self.site, self.params, args, kwargs)

    def _check(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> bool:
        """Refuse bad data and programs; return whether nothing is missing."""
        x, args, mask, kwargs = take_data(args, kwargs)
        if isinstance(x, jax.core.Tracer) or isinstance(mask, jax.core.Tracer):
            return False  # under a caller's jit the values are not known yet
        _, mask_array = check_data(
            np.asarray(x), None if mask is None else np.asarray(mask), site=self.site
        )
        with jax.ensure_compile_time_eval():
            self.check(random.key(0), self.bind((x, *args), {**kwargs, "mask": mask}))
        if mask_array.all():
            warnings.warn(
                f"All {len(mask_array)} rows are complete: nothing is missing, so nothing is drawn "
                "and the samples repeat the data.",
                stacklevel=2,
            )
        return bool(mask_array.all())


def _recorded(setting: Any) -> Any:
    """A kernel's setting as a file's attribute can hold it: functions by their names."""
    if isinstance(setting, int | float | str | np.number):
        return setting
    return getattr(setting, "__name__", repr(setting))


def take_data(
    args: tuple[Any, ...], kwargs: dict[str, Any] | None
) -> tuple[Any, tuple[Any, ...], Any, dict[str, Any]]:
    """Return x, the further arguments, the mask or None, and the further keyword arguments."""
    if not args:
        raise ValueError(
            "The data comes first: `mcmc.run(key, x, ...)`, x of shape (rows, *event)."
        )
    kwargs = dict(kwargs or {})
    mask = kwargs.pop("mask", None)
    return args[0], args[1:], mask, kwargs


def _over_chains(fn: Callable[..., Any], rng_key: Array) -> Callable[..., Any]:
    return fn if is_prng_key(rng_key) else jax.vmap(fn)
