"""A trained program, and what programs are given to training."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppl_vae.weights import write_weights

__all__ = ["Fitted", "pair_of"]


@dataclass(frozen=True)
class Fitted:
    """A trained program.

    `model` and `guide` have the weights inside: they go into kernels, `Predictive` and SVI as they
    are. `losses` holds minus the bound per row and step, in nats, shape (num_steps,), and
    `validation_losses` that of the validation rows, one an epoch, shape (num_epochs,).
    """

    program: Any
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    validation_losses: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def model(self) -> Callable[..., Any]:
        """The model with the trained weights."""
        return pair_of(self.program)[0]

    @property
    def guide(self) -> Callable[..., Any]:
        """The guide with the trained weights."""
        return pair_of(self.program)[1]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and architecture to a safetensors file that both twins open.

        Raises:
            TypeError: if the program is a plain (model, guide) pair, whose architecture is unknown.
        """
        if not hasattr(self.program, "to_weights"):
            raise TypeError(
                "Only a VAE of this library knows its architecture. Save the weights of a "
                "(model, guide) pair yourself, for example with `pyro.get_param_store().save`."
            )
        header = {"architecture": self.program.architecture()}
        write_weights(path, self.program.to_weights(), header)


def pair_of(program: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return model and guide of a VAE or of a pair, or raise a `TypeError`."""
    if isinstance(program, tuple) and len(program) == 2:
        return program
    if hasattr(program, "model") and hasattr(program, "guide"):
        return program.model, program.guide
    raise TypeError(
        f"Expected a VAE or a pair (model, guide) to fit, got {type(program).__name__}."
    )
