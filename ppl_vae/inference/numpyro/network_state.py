"""What nets keep and draw besides the sites: running means, dropout masks.

NumPyro's SVI hands `numpyro.primitives.mutable` sites from step to step; a key comes from
`numpyro.prng_key`.  Within a step every run of a net starts from the same state and gets the same
keys, so that a guide that is run again at its own draws is the guide that drew them.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jax import Array, random
from numpyro.primitives import Messenger

if TYPE_CHECKING:
    from ppl_vae.inference.numpyro.program import Program

__all__ = ["NetworkKeys", "run_again", "updated_state"]


class NetworkKeys(Messenger):
    """Answers each `numpyro.prng_key` of a program with a key of its own, whatever the seed."""

    def __init__(self, fn: Any, key: Array | None) -> None:
        super().__init__(fn)
        self.key = random.key(0) if key is None else key
        self.count = 0

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "prng_key":
            msg["value"] = random.fold_in(self.key, self.count)
            self.count += 1


class _Kept(Messenger):
    """Keeps the `numpyro.primitives.mutable` values, which the nets change after the statement."""

    def __init__(self) -> None:
        super().__init__()
        self.state: dict[str, Any] = {}

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "mutable":
            self.state[msg["name"]] = msg["value"]


def updated_state(key: Array, program: "Program") -> dict[str, Any] | None:
    """Return what mutable sites hold after the guide, and the model at its draw.

    None if there are no such sites.
    """
    kept = _Kept()
    with kept:
        program.trace_model(z=program.propose(key, program.x_obs))
    return kept.state or None


def run_again(key: Array, program: "Program") -> "Program":
    """Return the program as its nets would be in the next run: their state and their keys."""
    key_state, key_nets = random.split(key)
    params = {**program.params, **(updated_state(key_state, program) or {})}
    return replace(program, params=params, network_key=key_nets)
