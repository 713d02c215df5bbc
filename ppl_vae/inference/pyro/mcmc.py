"""One adapter: any (start, step) over a program as a Pyro `MCMCKernel`, one chain or many at once.

A method's file holds its equations and a `ProgramKernel` with two functions of chains; the adapter
brings the data.  Tensors of a chain state have the chains as leading axis, but for bounds of them.
"""

import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor

from ppl_vae.inference.pyro.compiled import Compiled
from ppl_vae.inference.pyro.contract import check_program
from ppl_vae.inference.pyro.kernel_state import Complete, KernelState, LastDraws, random_state
from ppl_vae.inference.pyro.program import Latents, Program, split_data
from ppl_vae.inference.pyro.rows import map_tensors, row_tensors
from ppl_vae.inference.pyro.starting import HandOver, origin_of, starting_values
from ppl_vae.inference_data import Run
from ppl_vae.masks import check_data

__all__ = ["ProgramKernel"]


class ProgramKernel(MCMCKernel):
    """A Pyro kernel that draws the missing entries of the data given to `MCMC.run`.

    `mcmc.run(x, *args, mask=None, **kwargs)`: x has shape (rows, *event) and holds NaN where it is
    missing, or comes with a `mask` (bool, x's shape, True = observed). All else goes to the model
    and the guide. `get_samples()` holds completed rows under the name of the data site, and the
    latent sites; `get_extra_fields()["info"]` the statistics of each step.

    `init_params` takes `last_state.hand_over()` of another kernel's run: chains go on from there,
    and the results' attribute `start` says where. A dict of values, as `last_state.z`, works too.
    """

    num_particles: int | None = None
    _origin: str | None = None  # of what `initial_params` start from
    settings: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, model: Callable[..., Any], guide: Callable[..., Any], *, site: str = "x"
    ) -> None:
        for role, fn in (("model", model), ("guide", guide)):
            if not callable(fn):
                raise TypeError(f"{role} must be a function of x, got {type(fn).__name__}.")
        self.model = model
        self.guide = guide
        self.site = site
        self.transforms: dict[str, Any] = {}
        self._program: Program | None = None
        self._step: Callable[[Any], tuple[Any, Any]] | None = None
        self._state: KernelState | None = None
        self._handed: dict[str, Tensor] | None = None
        self._infos: list[Any] = []
        self._begin: dict[str, Any] = {}

    # --- what a method defines --------------------------------------------------------------

    def starting_values(
        self, program: Program, num_chains: int, handed: dict[str, Tensor] | None
    ) -> tuple[Tensor, Latents | None]:
        """Return completed rows, and latents where they are handed over, chains first."""
        return starting_values(program, num_chains, self.num_particles, handed)

    def start(self, program: Program, x: Tensor, z: Latents | None) -> Any:
        """Return the chains' first state, from completed rows (and latents handed over)."""
        raise NotImplementedError

    def step(self, program: Program, state: Any) -> tuple[Any, Any]:
        """Return the chains' next state and the statistics of the step."""
        raise NotImplementedError

    def redecode(self, program: Program, state: Any) -> Any:
        """Recompute what the state keeps of the model; nothing by default."""
        del program
        return state

    def check(self, program: Program) -> None:
        """Raise where the program cannot be sampled."""
        check_program(program)

    # --- many chains at once: ppl_vae.pyro.MCMC ---------------------------------------------

    @torch.no_grad()
    def init(
        self,
        num_chains: int,
        init_params: dict[str, Tensor] | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        jit_compile: bool = False,
    ) -> KernelState:
        """Check the data and the program, and start every chain."""
        nothing_missing = self._check(args, kwargs)
        start = origin_of(init_params)
        seed = torch.initial_seed()
        self._begin = {"seed": seed, "start": start, "started": time.perf_counter()}
        self._program = program = self.bind(args, kwargs)
        step = partial(self.step, program)
        self._step = Compiled(step) if jit_compile else step
        if nothing_missing:
            x = program.x_obs.expand(num_chains, *program.x_obs.shape)
            chain = Complete(x)
        else:
            x, z = self.starting_values(program, num_chains, init_params)
            chain = self.start(program, x, z)
        names = (self.site, type(self).__name__, start)
        return KernelState(chain, (), random_state(x.device), 0, seed, *names)

    @torch.no_grad()
    def refresh(self, state: KernelState) -> KernelState:
        """Recompute what a state keeps of the model, whose weights may have changed since."""
        if isinstance(state.chain, Complete | LastDraws) or self._program is None:
            return state
        return replace(state, chain=self.redecode(self._program, state.chain))

    @torch.no_grad()
    def advance(self, state: KernelState) -> KernelState:
        """Advance every chain by one iteration."""
        if isinstance(state.chain, Complete):
            return state
        if self._program is None or self._step is None:
            raise RuntimeError("Call `init` (or `setup`) with the data first.")
        if isinstance(state.chain, LastDraws):
            raise ValueError(
                "Of sequential or parallel chains only the last draws are left, no state to go on "
                "from: give `last_state.hand_over()` as init_params."
            )
        chain, info = self._step(state.chain)
        rng_state = random_state(self._program.x_obs.device)
        num_steps = state.num_steps + 1
        return replace(state, chain=chain, info=info, rng_state=rng_state, num_steps=num_steps)

    # --- one chain: pyro.infer.mcmc.MCMCKernel ----------------------------------------------

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Check the data and the program, and start one chain."""
        del warmup_steps  # nothing is adapted
        given, self._handed = self._handed, None  # of this run alone, be it refused
        handed: Any = None
        if given is not None:
            handed = {name: value.unsqueeze(0) for name, value in given.items()}
            handed = HandOver(handed, self._origin) if self._origin else handed
        self._state = self.init(1, handed, args, kwargs)
        self._infos = []

    @property
    def initial_params(self) -> dict[str, Tensor]:
        """The first state's rows and latents."""
        if self._state is None:
            raise RuntimeError("Call `setup` with the data first.")
        return _only_chain(self._state.z)

    @initial_params.setter
    def initial_params(self, params: dict[str, Tensor]) -> None:
        self._handed = params

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Advance the chain by one iteration."""
        del params  # they are part of the state
        if self._state is None:
            raise RuntimeError("Call `setup` with the data first.")
        self._state = self.advance(self._state)
        self._infos.append(self._state.info)
        return _only_chain(self._state.z)

    def end_warmup(self) -> None:
        """Forget the statistics of the warm-up."""
        self._infos = []

    def diagnostics(self) -> dict[str, Any]:
        """Return the statistics of all iterations since `setup`, each stacked, (draw, ...)."""
        if not self._infos or self._infos[0] == ():
            return {}
        return {"info": stack_info([_only_chain(info) for info in self._infos], dim=0)}

    def logging(self) -> "OrderedDict[str, str]":
        """Return the progress bar's remark: the mean acceptance where the method has one."""
        rate = getattr(self._state.info, "acceptance_rate", None) if self._state else None
        return OrderedDict() if rate is None else OrderedDict(acceptance=f"{rate.mean():.2f}")

    def cleanup(self) -> None:
        """Drop the data."""
        self._program = self._step = self._state = self._handed = None
        self._infos = []

    # --- results ----------------------------------------------------------------------------

    def collect(self, mcmc: Any) -> Run:
        """Return the draws and statistics of a finished run as numpy arrays.

        `wall_time` runs from the start of the chains until the end of the run, or until here for
        `pyro.infer.MCMC`, which keeps no clock.
        """
        draws = {k: as_numpy(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}
        info = info_of(mcmc)
        stats = info._asdict() if info else {}
        x, args, mask, kwargs = take_data(mcmc._args, mcmc._kwargs)
        x_obs, mask = split_data(x, mask)
        last_state = getattr(mcmc, "last_state", None)  # pyro.infer.MCMC has none
        start = last_state.start if last_state else self._begin.get("start", "unknown")
        seed = last_state.seed if last_state else self._begin.get("seed", "unknown")
        seconds = time.perf_counter() - self._begin.get("started", time.perf_counter())
        return Run(
            site=self.site,
            x=as_numpy(x_obs),
            mask=as_numpy(mask),
            completed=draws.pop(self.site).astype(as_numpy(x_obs).dtype, copy=False),
            latents=draws,
            stats={k: as_numpy(v) for k, v in stats.items() if not isinstance(v, dict)},
            constants={
                name: as_numpy(value)
                for name, value in {**{f"arg_{i}": v for i, v in enumerate(args)}, **kwargs}.items()
            },
            attrs={
                "kernel": type(self).__name__,
                **{name: _recorded(getattr(self, name)) for name in self.settings},
                "start": start,
                "num_warmup": mcmc.warmup_steps,
                "thinning": 1,
                "seed": str(seed),
                "wall_time": getattr(mcmc, "wall_time", None) or seconds,
            },
        )

    # --- data -------------------------------------------------------------------------------

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        """Return the program bound to the data and arguments of a run."""
        x, args, mask, kwargs = take_data(args, kwargs)
        x_obs, mask = split_data(x, mask)
        args, kwargs = row_tensors((args, kwargs), x_obs)
        return Program(self.model, self.guide, x_obs, mask, self.site, args, kwargs)

    def _check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Refuse bad data and programs; return whether nothing is missing."""
        x, args, mask, kwargs = take_data(args, kwargs)
        _, mask_array = check_data(as_numpy(x), as_numpy(mask), site=self.site)
        with torch.random.fork_rng():
            self.check(self.bind((x, *args), {**kwargs, "mask": mask}))
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
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], Any, dict[str, Any]]:
    """Return x, the further arguments, the mask or None, and the further keyword arguments."""
    if not args:
        raise ValueError("The data comes first: `mcmc.run(x)`, `svi.step(x)`, not by keyword.")
    kwargs = dict(kwargs)
    mask = kwargs.pop("mask", None)
    return args[0], args[1:], mask, kwargs


def as_numpy(value: Any) -> Any:
    """Return a tensor's values on the host; anything else as it is."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


def info_of(mcmc: Any) -> Any:
    """Return the statistics of the draws that a run kept, (chain, draw, ...), or ()."""
    if getattr(mcmc, "chain_method", None) == "vectorized":
        return mcmc.get_extra_fields(group_by_chain=True)["info"]
    kept = slice(-mcmc.num_samples, None)  # the host calls no `end_warmup`
    chains = [map_tensors(lambda t: t[kept], d["info"]) for d in mcmc._diagnostics if d]
    return stack_info(chains, dim=0) if chains else ()


def stack_info(infos: list[Any], dim: int) -> Any:
    """Stack the statistics of many steps, field by field."""
    return map_tensors(lambda *each: torch.stack(each, dim), *infos)


def _only_chain(tree: Any) -> Any:
    return map_tensors(lambda t: t[0], tree)
