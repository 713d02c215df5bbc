"""The state of a kernel's chains, and what another kernel's chains start from."""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from ppl_vae.inference.numpyro.starting import HandOver

__all__ = ["Complete", "KernelState"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["chain", "info", "rng_key", "num_steps", "seed"],
    meta_fields=["site", "kernel", "start"],
)
@dataclasses.dataclass(frozen=True)
class KernelState:
    """The state of one chain, or of several with a leading axis."""

    chain: Any  # the method's own state; completed rows alone when nothing is missing
    info: Any  # the method's sample statistics of the last step
    rng_key: Array
    num_steps: Array  # iterations since the start
    seed: Array  # data of the key that it began with
    site: str
    kernel: str
    start: str  # where the chain began

    @property
    def z(self) -> dict[str, Array]:
        """What is collected: completed rows under the data site's name, and the latents."""
        if isinstance(self.chain, Complete):
            return {self.site: self.chain.x}
        return {self.site: self.chain.x, **self.chain.z}

    def hand_over(self) -> HandOver:
        """Return where another kernel's run starts as its `init_params`, with its origin."""
        return HandOver(self.z, f"{self.kernel}, {int(np.max(self.num_steps))} iterations")

    def _replace(self, **changes: Any) -> "KernelState":
        return dataclasses.replace(self, **changes)


@partial(jax.tree_util.register_dataclass, data_fields=["x"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Complete:
    """The state of a chain that has nothing to draw."""

    x: Array
