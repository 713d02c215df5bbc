"""`MCMC` with the chains in one process, as a leading axis on one device."""

import copy
import time
from typing import Any

import pyro
import torch
from pyro.infer.mcmc.api import MCMC as HostMCMC
from pyro.infer.mcmc.api import _UnarySampler
from pyro.infer.mcmc.util import select_samples
from torch import Tensor
from tqdm import tqdm

from ppl_vae.counts import check_at_least
from ppl_vae.inference.pyro.kernel_state import (
    Complete,
    KernelState,
    LastDraws,
    random_state,
    set_random_state,
)
from ppl_vae.inference.pyro.mcmc import ProgramKernel, info_of, stack_info
from ppl_vae.inference.pyro.program import Program
from ppl_vae.inference.pyro.rows import map_tensors
from ppl_vae.inference.pyro.starting import HandOver, check_handed, origin_of

__all__ = ["MCMC"]

CHAIN_METHODS = ("vectorized", "sequential", "parallel")


class MCMC(HostMCMC):
    """`pyro.infer.MCMC` with `chain_method="vectorized"`: all chains at once on one device.

    Args:
        kernel: any Pyro MCMC kernel; "vectorized" needs one of this library's.
        num_samples: draws kept per chain.
        warmup_steps: draws dropped before them; as in Pyro, `num_samples` by default.
        num_warmup: another name of `warmup_steps`, as in NumPyro.
        num_chains: number of chains.
        chain_method: "vectorized" (default for this library's kernels), "sequential", or
            "parallel" (one process a chain, as the host decides; default for other kernels).
        jit_compile: record the kernel's step once and compile it with `torch.compile`, for
            "vectorized" chains. The draws are the same up to rounding (but that what a program
            draws and does not use is left out), in a third to two thirds of the time. The first
            two iterations of each run then take some ten seconds. A C++ compiler must be there;
            model and guide must not read values of tensors in Python (`if`, `.item()`, the length
            of a selection), and what else Python does in them, checks of values included, is done
            once.
        **host_options: `initial_params`, `hook_fn`, `mp_context`, `disable_progbar`,
            `disable_validation`, `transforms`, `save_params`, as in `pyro.infer.MCMC`.
            `initial_params` start every run that has no `init_params` of its own.

    Raises:
        ValueError: if a number is out of range, `chain_method` unknown, or "vectorized" with a
            kernel of another library, or `jit_compile` with another chain method; by `run`, if
            `post_warmup_state` is of another kernel, number of chains or data.
        NotImplementedError: by `run`, with `jit_compile`, if model or guide read values in Python.

    Example:
        >>> import pyro
        >>> from ppl_vae.pyro import MCMC, MWGKernel, VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> pyro.set_rng_seed(0)
        >>> data = digits(binary=True)
        >>> fitted = fit(VAE((64,), 4), data.x_train, num_steps=20)
        >>> mcmc = MCMC(MWGKernel(fitted.model, fitted.guide), 10, num_warmup=5, num_chains=2)
        >>> mcmc.run(with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_samples(group_by_chain=True)["x"].shape
        torch.Size([2, 10, 3, 64])
    """

    def __init__(
        self,
        kernel: Any,
        num_samples: int,
        warmup_steps: int | None = None,
        *,
        num_warmup: int | None = None,
        num_chains: int = 1,
        chain_method: str | None = None,
        jit_compile: bool = False,
        **host_options: Any,
    ) -> None:
        ours = isinstance(kernel, ProgramKernel)
        if chain_method is None:
            chain_method = "vectorized" if ours else "parallel"
        if chain_method not in CHAIN_METHODS:
            raise ValueError(f"chain_method must be one of {CHAIN_METHODS}, got {chain_method!r}.")
        if chain_method == "vectorized" and not ours:
            raise ValueError(
                f"{type(kernel).__name__} runs one chain at a time: use chain_method='parallel' "
                "or 'sequential'."
            )
        if jit_compile and chain_method != "vectorized":
            raise ValueError(f"jit_compile compiles vectorized chains, not {chain_method} ones.")
        if warmup_steps is not None and num_warmup is not None:
            raise ValueError("Give warmup_steps or num_warmup, two names of one number, not both.")
        check_at_least(1, num_samples=num_samples, num_chains=num_chains)
        warmup = {"warmup_steps": warmup_steps, "num_warmup": num_warmup}
        check_at_least(0, **{name: n for name, n in warmup.items() if n is not None})
        self.chain_method = chain_method
        self.jit_compile = jit_compile
        self._init_params = host_options.pop("initial_params", None)
        check_handed(self._init_params, num_chains)
        chains_of_host = num_chains if chain_method == "parallel" else 1
        super().__init__(
            kernel,
            num_samples,
            num_warmup if warmup_steps is None else warmup_steps,
            num_chains=chains_of_host,
            initial_params=self._init_params if chain_method == "parallel" else None,
            **host_options,
        )
        self.num_chains = num_chains
        self.sampler: Any = self.sampler
        if chain_method == "parallel" and not isinstance(self._init_params, HandOver):
            self._init_params = self.sampler.initial_params  # with an axis of chains
        self._host_options = host_options
        self.post_warmup_state: KernelState | None = None
        self.last_state: KernelState | None = None
        self._info: Any = ()
        self._samples: Any = None
        self._diagnostics: Any = self._diagnostics
        self.wall_time: float | None = None
        if chain_method == "sequential":
            self._diagnostics = [None] * num_chains
            self.sampler = self._one_after_another()

    def run(self, *args: Any, init_params: dict[str, Tensor] | None = None, **kwargs: Any) -> None:
        """Run all chains; `init_params` start those of this run, each with chains as leading axis.

        After `mcmc.post_warmup_state = mcmc.last_state` vectorized chains go on where they stopped,
        without warm-up, as if they had not stopped. Interrupted, they keep the draws made so far.
        """
        start = self._init_params if init_params is None else init_params
        check_handed(start, self.num_chains)
        if self.chain_method != "vectorized":
            return self._run_by_host(start, args, kwargs)
        self._args, self._kwargs = args, kwargs
        if self.disable_validation is None:
            return self._run_vectorized(start, args, kwargs)
        with pyro.validation_enabled(not self.disable_validation):
            return self._run_vectorized(start, args, kwargs)

    def _run_by_host(self, start: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.post_warmup_state is not None:
            raise ValueError(
                f"{self.chain_method} chains cannot go on from a post_warmup_state: use "
                "chain_method='vectorized', or start them at `last_state.hand_over()` as "
                "init_params."
            )
        self.sampler.initial_params = start
        self.kernel._origin = getattr(start, "origin", None)
        began = time.perf_counter()
        try:
            super().run(*args, **kwargs)
        finally:
            self.kernel._origin = None
        self.wall_time = time.perf_counter() - began
        if isinstance(self.kernel, ProgramKernel):
            num_steps = self.warmup_steps + self.num_samples
            self.last_state = _last_draws(self.kernel, self._samples, num_steps, start)

    def _run_vectorized(self, start: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        num_warmup, began = self.warmup_steps, time.perf_counter()
        state = self.kernel.init(self.num_chains, start, args, kwargs, jit_compile=self.jit_compile)
        if self.post_warmup_state is not None:
            self._check_goes_on(self.post_warmup_state, state)
            # A copy: histories are overwritten in place, and a state may be gone on from again.
            state, num_warmup = copy.deepcopy(self.post_warmup_state), 0
            state = self.kernel.refresh(state)
            set_random_state(state.rng_state, state.z[self.kernel.site].device)
        draws: dict[str, Tensor] = {}
        infos: list[Any] = []
        hook = self.sampler.hook
        steps = tqdm(range(num_warmup + self.num_samples), disable=self.sampler.disable_progbar)
        try:
            for i in steps:
                state = self.kernel.advance(state)
                stage = "Warmup" if i < num_warmup else "Sample"
                if stage == "Sample":
                    _keep(draws, state.z, i - num_warmup, self.num_samples)
                    infos.append(state.info)
                if i % 20 == 0:
                    _describe(steps, stage, state)
                if hook is not None:
                    hook(self.kernel, state.z, stage, i if stage == "Warmup" else i - num_warmup)
        finally:
            self.last_state = state
            self.wall_time = time.perf_counter() - began
            made = {name: value[:, : len(infos)] for name, value in draws.items()}
            self._samples = made or None
            self._info = stack_info(infos, dim=1) if infos and infos[0] != () else ()

    def _check_goes_on(self, state: KernelState, fresh: KernelState) -> None:
        """Raise a `ValueError` where a state is not one of this kernel's chains on this data."""
        if isinstance(state.chain, LastDraws):
            return  # which the kernel refuses itself
        kernel, num_chains = type(self.kernel).__name__, len(state.z[state.site])
        if (state.kernel, state.site) != (kernel, self.kernel.site):
            other = f"{state.kernel}, data site {state.site!r}, not {kernel}, {self.kernel.site!r}"
        elif num_chains != self.num_chains:
            other = f"{num_chains} chains, not {self.num_chains}"
        elif isinstance(state.chain, Complete) != isinstance(fresh.chain, Complete) or not (
            _completes(state.z[state.site], self.kernel.bind(self._args, self._kwargs))
        ):
            other = "other data: its completed rows are not those of what is observed here"
        else:
            return
        raise ValueError(
            f"post_warmup_state is of a run of {other}. A state goes on with the same kernel, "
            "chains and data only; set it to None, and start the run at "
            "`init_params=last_state.hand_over()`."
        )

    def _one_after_another(self) -> _UnarySampler:
        options = self._host_options
        return _UnarySampler(
            self.kernel,
            self.num_samples,
            self.warmup_steps,
            self.num_chains,
            options.get("disable_progbar", False),
            hook=options.get("hook_fn"),
        )

    def get_extra_fields(self, group_by_chain: bool = False) -> dict[str, Any]:
        """Return the statistics of each step, `{"info": ...}`, each (chain, draw, ...)."""
        info = self._info if self.chain_method == "vectorized" else info_of(self)
        if info == ():
            return {"info": ()}
        return {"info": info if group_by_chain else map_tensors(lambda t: t.flatten(0, 1), info)}

    def get_samples(
        self, num_samples: int | None = None, group_by_chain: bool = False
    ) -> dict[str, Tensor]:
        """Return the draws of each site, as `pyro.infer.MCMC.get_samples` does."""
        if self._samples is None:
            raise ValueError("There are no draws yet: call `run` first.")
        return select_samples(self._samples, num_samples, group_by_chain)


def _last_draws(
    kernel: ProgramKernel, draws: dict[str, Tensor], num_steps: int, start: Any
) -> KernelState:
    """Return what the host keeps of a run's last state: the last draws, to hand over."""
    z = {name: value[:, -1] for name, value in draws.items()}
    x = z.pop(kernel.site)
    names = (kernel.site, type(kernel).__name__, origin_of(start))
    rng_state, seed = random_state(x.device), kernel._begin.get("seed", torch.initial_seed())
    return KernelState(LastDraws(x, z), (), rng_state, num_steps, seed, *names)


def _completes(x: Tensor, program: Program) -> bool:
    """Whether completed rows, with any axes before them, hold all that is observed."""
    if x.shape[x.ndim - program.x_obs.ndim :] != program.x_obs.shape:
        return False
    same = x == program.x_obs.to(x)
    return bool((same | ~program.mask.to(x.device)).all())


def _keep(draws: dict[str, Tensor], z: dict[str, Tensor], i: int, num_samples: int) -> None:
    for name, value in z.items():
        if name not in draws:
            draws[name] = value.new_empty(value.shape[0], num_samples, *value.shape[1:])
        draws[name][:, i] = value


def _describe(steps: Any, stage: str, state: KernelState) -> None:
    rate = getattr(state.info, "acceptance_rate", None)
    steps.set_description(stage, refresh=False)
    if rate is not None:
        steps.set_postfix(acceptance=f"{float(rate.mean()):.2f}", refresh=False)
