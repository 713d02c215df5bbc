"""The state of a kernel's chains, and what another kernel's chains start from."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppl_vae.inference.pyro.starting import HandOver

__all__ = ["Complete", "KernelState", "LastDraws", "random_state", "set_random_state"]


@dataclass(frozen=True)
class KernelState:
    """The state of C chains."""

    chain: Any  # the method's own state; completed rows alone when nothing is missing
    info: Any  # the method's sample statistics of the last step
    rng_state: Tensor  # state of torch's generator on the data's device after the step
    num_steps: int  # iterations since the start
    seed: int  # of the generator, as the chains began
    site: str
    kernel: str
    start: str  # where the chains began

    @property
    def z(self) -> dict[str, Tensor]:
        """What is collected: completed rows under the data site's name, and the latents."""
        if isinstance(self.chain, Complete):
            return {self.site: self.chain.x}
        return {self.site: self.chain.x, **self.chain.z}

    def hand_over(self) -> HandOver:
        """Return where another kernel's run starts as its `init_params`, with its origin."""
        return HandOver(self.z, f"{self.kernel}, {self.num_steps} iterations")


@dataclass(frozen=True)
class Complete:
    """The state of chains that have nothing to draw."""

    x: Tensor


@dataclass(frozen=True)
class LastDraws:
    """What is left of the state of chains that the host ran: to hand over, not to go on from."""

    x: Tensor
    z: dict[str, Tensor]


def random_state(device: torch.device) -> Tensor:
    """Return the state of the generator that draws on a device."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_random_state(state: Tensor, device: torch.device) -> None:
    """Let a device's generator go on from a state."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
