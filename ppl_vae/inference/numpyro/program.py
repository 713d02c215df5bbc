"""A user's (model, guide) lifted to the few functions that samplers need.

Shapes: B rows, *event the shape of one row.  `z` is a dict of latent sites, each (B, ...); log
densities are per row, shape (B,), in nats.  Everything here is a pure function of arrays: chains
and particles are added by `jax.vmap`, so that a guide's encoder runs once per row it is given.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro import handlers
from numpyro.infer.gibbs import GIBBS_SITES_KWARG, conditioned
from numpyro.primitives import Messenger

from ppl_vae.incomplete_data import take_data_site
from ppl_vae.inference.numpyro.likelihood import complete, observed_log_prob
from ppl_vae.inference.numpyro.model_masks import hidden_entries, without_mask
from ppl_vae.inference.numpyro.network_state import NetworkKeys
from ppl_vae.inference.numpyro.support import MovedInside, log_prob_within

__all__ = ["Latents", "Program", "split_data"]

Latents = dict[str, Array]


def split_data(x: Array, mask: Array | None) -> tuple[Array, Array]:
    """Return `x` with zeros where it is missing, and the mask (True = observed).

    Without a mask, NaN marks what is missing; no NaN leaves this function.
    """
    x = jnp.asarray(x)
    mask = ~jnp.isnan(x) if mask is None else jnp.asarray(mask)
    return jnp.where(mask, x, jnp.zeros_like(x)), mask


@dataclass(frozen=True)
class Program:
    """A model and a guide, bound to the data of one run.

    Args:
        model: `model(x, *args, **kwargs)` with one observed site, the data.
        guide: `guide(x, *args, **kwargs)` that samples every latent site of the model.
        x_obs: the data, shape (B, *event), zeros where missing.
        mask: shape (B, *event), True where x is observed.
        site: name of the data site.
        params: values of the programs' `numpyro.param` sites (`svi_result.params`).
        args: further positional arguments of model and guide, passed on unchanged.
        kwargs: further keyword arguments, passed on unchanged.
        network_key: what `numpyro.prng_key` statements get their keys from; None: a fixed one.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    x_obs: Array
    mask: Array
    site: str = "x"
    params: dict[str, Any] = field(default_factory=dict)
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    network_key: Array | None = None

    # --- the guide --------------------------------------------------------------------------

    def propose(self, key: Array, x: Array) -> Latents:
        """Draw z ~ q(z | x)."""
        return {name: site["value"] for name, site in self.trace_guide(x, key=key).items()}

    def log_proposal(self, z: Latents, x: Array) -> Array:
        """Return log q(z | x), shape (B,)."""
        return _sum_log_prob(self.trace_guide(x, z=z))

    # --- the model --------------------------------------------------------------------------

    def propose_from_prior(self, key: Array) -> Latents:
        """Draw z ~ p(z)."""
        sites = self.trace_model(key=key)
        return {name: site["value"] for name, site in sites.items() if not site["is_observed"]}

    def decode(self, z: Latents) -> tuple[Array, Array, dist.Distribution]:
        """Return log p(z), log p(y | z) of other observed sites, each (B,), and p(x | z)."""
        sites = self.trace_model(z=z)
        likelihood = without_mask(take_data_site(sites, self.site)["fn"])
        latent, observed = split_sites(sites)
        log_prior = _sum_log_prob(latent)
        return log_prior, _sum_log_prob(observed) + jnp.zeros_like(log_prior), likelihood

    # --- the data ---------------------------------------------------------------------------

    def log_observed(self, likelihood: dist.Distribution) -> Array:
        """Return log p(x_o | z), shape (B,)."""
        return observed_log_prob(likelihood, self.x_obs, self.mask)

    def log_shown(self, d: dist.Distribution) -> Array:
        """Return log p(x_o | z) of a data site, without what the model itself masks, (B,)."""
        shown = self.mask & ~hidden_entries(d, self.mask)
        return observed_log_prob(without_mask(d), self.x_obs, shown)

    def impute(self, key: Array, likelihood: dist.Distribution) -> Array:
        """Draw x_m ~ p(x_m | x_o, z) and return the completed rows, shape (B, *event)."""
        return complete(key, likelihood, self.x_obs, self.mask)

    def draw_marginally(self, key: Array, likelihood: dist.Distribution) -> Array:
        """Draw x_m ~ p(x_m | z), whatever was observed, and return the completed rows."""
        x = complete(key, likelihood, self.x_obs, jnp.zeros_like(self.mask))
        return jnp.where(self.mask, self.x_obs, x)

    # --- running the programs ---------------------------------------------------------------

    def trace_guide(self, x: Array, *, key: Array | None = None, z: Latents | None = None) -> dict:
        """Run the guide on completed rows; return its latent sites by name."""
        return self._trace(self.guide, x, self._own_kwargs(), key, z)

    def trace_model(self, *, key: Array | None = None, z: Latents | None = None) -> dict:
        """Run the model; return its latent sites and its observed sites of one value a row."""
        sites = self._trace(self.model, self.x_obs, self.kwargs, key, z)
        given = self.kwargs.get(GIBBS_SITES_KWARG, {})
        return {name: site for name, site in sites.items() if name not in given}

    def trace_other(self, fn: Callable[..., Any], x: Array, *, key: Array | None = None) -> dict:
        """Run another program on completed rows, with the run's mask and arguments."""
        return self._trace(fn, x, self._own_kwargs(), key, None)

    def _own_kwargs(self) -> dict[str, Any]:
        """What was given to the run, without what NumPyro's Gibbs adds for the model."""
        return {k: v for k, v in self.kwargs.items() if k != GIBBS_SITES_KWARG}

    def _trace(
        self, fn: Callable[..., Any], x: Array, kwargs: dict, key: Array | None, z: Latents | None
    ) -> dict:
        if accepts_mask(fn):
            kwargs = {**kwargs, "mask": self.mask}
        fn = NetworkKeys(_FirstRows(fn), self.network_key)
        fn = MovedInside(handlers.substitute(fn, data={**self.params, **(z or {})}))
        if key is not None:
            fn = handlers.seed(fn, key)
        sites = handlers.trace(fn).get_trace(x, *self.args, **kwargs)
        return {name: site for name, site in sites.items() if site["type"] == "sample"}


class _FirstRows(Messenger):
    """Lets a plate that runs over a part of the rows take the first ones: x holds no others."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__(fn)
        self.sizes: set[int] = set()  # of such parts

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "plate" and msg["value"] is None:
            size, part = msg["args"]
            msg["value"] = jnp.arange(part)
            if part not in (None, size):
                self.sizes.add(part)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        event_dim = msg.get("kwargs", {}).get("event_dim")
        if msg["type"] == "subsample" and event_dim is not None:
            rows = jnp.shape(msg["value"])[: -event_dim or None]
            if rows and rows[-1] in self.sizes:  # x is such a part already
                msg["kwargs"]["event_dim"] = None


def split_sites(sites: dict) -> tuple[dict, dict]:
    """Return the latent sites and the observed ones, `factor` statements among them."""
    observed = {name: site for name, site in sites.items() if site["is_observed"]}
    return {name: site for name, site in sites.items() if name not in observed}, observed


def accepts_mask(fn: Callable[..., Any]) -> bool:
    """Whether `fn`, below any effect handlers around it, has a parameter named `mask`."""
    while True:
        if isinstance(fn, partial) and conditioned(fn) is fn:
            fn = fn.args[0]  # NumPyro's Gibbs wrapped it
        elif callable(inner := getattr(fn, "fn", None)):
            fn = inner
        else:
            break
    return "mask" in inspect.signature(fn).parameters


def require_reparameterised(has_rsample: dict[str, bool]) -> None:
    """Raise a `ValueError` that names the sites without a reparameterised sampler."""
    without = sorted(name for name, has in has_rsample.items() if not has)
    if without:
        raise ValueError(
            f"Sites {without} of the guide have no reparameterised sampler, so this objective's "
            "gradient would be wrong. Use a continuous relaxation, or sum the site out."
        )


def _sum_log_prob(sites: dict) -> Array:
    each = [log_prob_within(site["fn"], site["value"]) for site in sites.values()]
    return sum(each, start=jnp.zeros(()))
