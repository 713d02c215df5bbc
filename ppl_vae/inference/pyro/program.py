"""A user's (model, guide) lifted to the few functions that samplers need.

Shapes: B rows, *event the shape of one row, and any leading axes before the rows (chains C,
particles K).  `z` is a dict of latent sites, each (..., B, ...); log densities are per row, shape
(..., B), in nats.  Chains and particles are folded into rows before a program runs; the guide is
run once for each completed `x`, and its encoder with it.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import Distribution

from ppl_vae.incomplete_data import take_data_site
from ppl_vae.inference.pyro.findings import accepts_mask, findings
from ppl_vae.inference.pyro.folded_density import unfold_density
from ppl_vae.inference.pyro.likelihood import complete, observed_log_prob
from ppl_vae.inference.pyro.model_masks import hidden_entries, without_mask
from ppl_vae.inference.pyro.pairwise import log_prob_of_each
from ppl_vae.inference.pyro.recorder import Recorder, Stop
from ppl_vae.inference.pyro.rows import as_tensor, fold_rows, join, repeat_rows, unfold_rows
from ppl_vae.inference.pyro.support import log_prob_within

__all__ = ["Latents", "Program", "split_data"]

Latents = dict[str, Tensor]


def split_data(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return `x` with zeros where it is missing, and the mask (True = observed).

    Without a mask, NaN marks what is missing; no NaN leaves this function.
    """
    x = as_tensor(x)
    mask = ~torch.isnan(x) if mask is None else as_tensor(mask, x.device)
    return torch.where(mask, x, torch.zeros_like(x)), mask


@dataclass
class Program:
    """A model and a guide, bound to the data of one run.

    Args:
        model: `model(x, *args, **kwargs)` with one observed site, the data.
        guide: `guide(x, *args, **kwargs)` that samples every latent site of the model.
        x_obs: the data, shape (B, *event), zeros where missing.
        mask: shape (B, *event), True where x is observed.
        site: name of the data site.
        args: further positional arguments of model and guide, passed on unchanged; tensors with
            one entry a row are repeated along with the rows.
        kwargs: further keyword arguments, treated likewise.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    x_obs: Tensor
    mask: Tensor
    site: str = "x"
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    _latents: frozenset[str] = field(default=frozenset(), init=False, repr=False)
    _vmap_works: bool | None = field(default=None, init=False, repr=False)
    _last_guide: tuple[Tensor, dict] | None = field(default=None, init=False, repr=False)
    _row_ndim: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _copies: dict[Any, Tensor] = field(default_factory=dict, init=False, repr=False)

    # --- the guide --------------------------------------------------------------------------

    def propose(self, x: Tensor) -> Latents:
        """Draw z ~ q(z | x)."""
        sites = self.trace_guide(x)
        self._last_guide = (x, sites)
        return {name: site["value"] for name, site in sites.items()}

    def log_proposal(self, z: Latents, x: Tensor) -> Tensor:
        """Return log q(z | x), shape (..., B)."""
        d = self._guide_distribution(x)
        if d is not None:
            return log_prob_within(d, *z.values())
        return _sum_log_prob(self.trace_guide(x, z=z))

    def log_proposal_of_each(self, z: Latents, x: Tensor) -> Tensor:
        """Return log q(z_p | x_k) for all p and k, shape (C, P, K, B), of z (C, P, B, ..).

        The guide is run once; only where it has several sites and `torch.func.vmap` cannot
        transform it, once for each p.
        """
        d = self._guide_distribution(x)
        if d is not None:
            (value,) = z.values()
            return log_prob_of_each(d, value)
        num_particles = x.shape[1]

        def of_all_particles(z: Latents) -> Tensor:
            return self.log_proposal({n: v[:, [0] * num_particles] for n, v in z.items()}, x)

        z = {name: v.movedim(1, 0).unsqueeze(2) for name, v in z.items()}  # (P, C, 1, B, ..)
        if self._vmap_works is None:
            self._vmap_works = _can_vmap(of_all_particles, z)
        if self._vmap_works:
            with pyro.validation_enabled(False):
                return torch.func.vmap(of_all_particles, out_dims=1)(z)
        num_proposals = len(next(iter(z.values())))
        each = [of_all_particles({n: v[p] for n, v in z.items()}) for p in range(num_proposals)]
        return torch.stack(each, 1)

    def _guide_distribution(self, x: Tensor) -> Distribution | None:
        """The guide's only site at `x`, or None if it has several, which may hang together."""
        if self._last_guide is None or self._last_guide[0] is not x:
            self._last_guide = (x, self.trace_guide(x))
        sites = self._last_guide[1]
        return next(iter(sites.values()))["fn"] if len(sites) == 1 else None

    # --- the model --------------------------------------------------------------------------

    def propose_from_prior(self, lead: tuple[int, ...]) -> Latents:
        """Draw z ~ p(z), with `lead` axes before the rows; what then follows is left out."""
        sites = self.trace_model(lead=lead, until=self._latents)
        z = {name: site["value"] for name, site in sites.items() if not site["is_observed"]}
        self._latents = frozenset(z)
        return z

    def decode(self, z: Latents) -> tuple[Tensor, Tensor, Distribution]:
        """Return log p(z), log p(y | z) of other observed sites, each (..., B), and p(x | z)."""
        sites = self.trace_model(z=z)
        likelihood = without_mask(take_data_site(sites, self.site)["fn"])
        latent, observed = split_sites(sites)
        log_prior = _sum_log_prob(latent)
        log_others = _sum_log_prob(observed).expand_as(log_prior)
        return log_prior, log_others, likelihood

    # --- the data ---------------------------------------------------------------------------

    def log_observed(self, likelihood: Distribution) -> Tensor:
        """Return log p(x_o | z), shape (..., B)."""
        return observed_log_prob(likelihood, *self._data_like(likelihood))

    def log_shown(self, d: Distribution) -> Tensor:
        """Return log p(x_o | z) of a data site, without what the model itself masks, (..., B)."""
        likelihood = without_mask(d)
        x_obs, mask = self._data_like(likelihood)
        return observed_log_prob(likelihood, x_obs, mask & ~hidden_entries(d, mask))

    def impute(self, likelihood: Distribution) -> Tensor:
        """Draw x_m ~ p(x_m | x_o, z) and return the completed rows, shape (..., B, *event)."""
        return complete(likelihood, *self._data_like(likelihood))

    def draw_marginally(self, likelihood: Distribution) -> Tensor:
        """Draw x_m ~ p(x_m | z), whatever was observed, and return the completed rows."""
        x_obs, mask = self._data_like(likelihood)
        return torch.where(mask, x_obs, complete(likelihood, x_obs, torch.zeros_like(mask)))

    def _data_like(self, likelihood: Distribution) -> tuple[Tensor, Tensor]:
        shape = likelihood.batch_shape + likelihood.event_shape
        return self.x_obs.expand(shape), self.mask.expand(shape)

    # --- running the programs ---------------------------------------------------------------

    def trace_guide(self, x: Tensor, *, z: Latents | None = None) -> dict[str, dict[str, Any]]:
        """Run the guide on completed rows; return its latent sites by name."""
        axes = x.shape[: x.ndim - self.x_obs.ndim + 1]
        return self._trace(self.guide, fold_rows(x, axes), z, axes)

    def trace_model(
        self,
        *,
        z: Latents | None = None,
        lead: tuple[int, ...] = (),
        until: frozenset[str] = frozenset(),
    ) -> dict[str, dict[str, Any]]:
        """Run the model, at `z` or, with `lead` axes before the rows, with draws of its own.

        It is stopped as soon as the sites named in `until` have been drawn.
        """
        all_axes = torch.Size((*lead, len(self.x_obs))) if z is None else self._axes(z)
        return self._trace(self.model, self._repeated("x_obs", all_axes), z, all_axes, until)

    def trace_other(self, fn: Callable[..., Any], x: Tensor) -> dict[str, dict[str, Any]]:
        """Run another program on completed rows, with the run's mask and arguments."""
        axes = x.shape[: x.ndim - self.x_obs.ndim + 1]
        return self._trace(fn, fold_rows(x, axes), None, axes)

    def _trace(
        self,
        fn: Callable[..., Any],
        x: Tensor,
        z: Latents | None,
        axes: torch.Size,
        until: frozenset[str] = frozenset(),
    ) -> dict[str, dict[str, Any]]:
        times, folded = axes.numel() // max(axes[-1], 1), fold_rows(z or {}, axes)
        if times > 1 and findings(fn).cannot_fold:
            sites = self._trace_in_turn(fn, x, folded, axes, until)
        else:
            sites = self._run(fn, x, folded, axes, until)
        for name, site in sites.items():
            self._row_ndim[name] = site["value"].ndim
        if len(axes) == 1:
            return sites
        return {name: self._unfolded(site, axes, name) for name, site in sites.items()}

    def _run(
        self, fn: Callable[..., Any], x: Tensor, z: Latents, axes: torch.Size, until: frozenset[str]
    ) -> dict[str, dict[str, Any]]:
        """Run a program on copies of the rows, at z folded as they are."""
        num_rows = axes[-1]
        times = axes.numel() // max(num_rows, 1)
        args, kwargs = repeat_rows((self.args, self.kwargs), num_rows, times)
        if accepts_mask(fn):
            kwargs = {**kwargs, "mask": self._repeated("mask", axes)}
        recorder = Recorder(z, until, num_rows, times * num_rows)
        with suppress(Stop), recorder:
            fn(x, *args, **kwargs)
        return recorder.sites

    def _trace_in_turn(
        self, fn: Callable[..., Any], x: Tensor, z: Latents, axes: torch.Size, until: frozenset[str]
    ) -> dict[str, dict[str, Any]]:
        """Run a program for each copy of the rows by itself, and join what comes out."""
        num_rows = axes[-1]
        parts = {name: value.split(num_rows) for name, value in z.items()}
        runs = [
            self._run(fn, part, {n: v[i] for n, v in parts.items()}, axes[-1:], until)
            for i, part in enumerate(x.split(num_rows))
        ]
        joined: dict[str, dict[str, Any]] = {}
        for name, site in runs[0].items():
            each = [{k: run[name][k] for k in ("fn", "value")} for run in runs]
            joined[name] = {**site, **join(each, torch.Size((axes.numel(),)))}
        return joined

    def _unfolded(self, site: dict[str, Any], axes: torch.Size, name: str) -> dict[str, Any]:
        # Rows are chosen from the likelihood; of all others densities alone are asked for.
        unfold = unfold_rows if name == self.site else unfold_density
        return {**site, "value": unfold_rows(site["value"], axes), "fn": unfold(site["fn"], axes)}

    def _axes(self, z: Latents) -> torch.Size:
        """The axes of `z` up to the rows: those that a site's value has beyond one chain's."""
        name, value = next(iter(z.items()))
        if name not in self._row_ndim:
            self.trace_model()
        return value.shape[: value.ndim - self._row_ndim[name] + 1]

    def _repeated(self, name: str, axes: torch.Size) -> Tensor:
        """The data or the mask, one copy of its rows for each chain and particle."""
        if (name, axes) not in self._copies:
            whole = getattr(self, name).expand(*axes[:-1], *self.x_obs.shape)
            self._copies[name, axes] = fold_rows(whole, axes)
        return self._copies[name, axes]


def split_sites(sites: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the latent sites and the observed ones, `factor` statements among them."""
    observed = {name: site for name, site in sites.items() if site["is_observed"]}
    return {name: site for name, site in sites.items() if name not in observed}, observed


def _can_vmap(fn: Callable[[Latents], Tensor], z: Latents) -> bool:
    """Whether PyTorch can map `fn` over the leading axis; nets that branch on values cannot."""
    try:
        with pyro.validation_enabled(False):
            torch.func.vmap(fn)(z)
    except RuntimeError:
        return False
    return True


def require_reparameterised(has_rsample: dict[str, bool]) -> None:
    """Raise a `ValueError` that names the sites without a reparameterised sampler."""
    without = sorted(name for name, has in has_rsample.items() if not has)
    if without:
        raise ValueError(
            f"Sites {without} of the guide have no reparameterised sampler, so this objective's "
            "gradient would be wrong. Use a continuous relaxation, or sum the site out."
        )


def _sum_log_prob(sites: dict[str, dict[str, Any]]) -> Tensor:
    each = (log_prob_within(site["fn"], site["value"]) for site in sites.values())
    return sum(each, start=torch.zeros(()))
