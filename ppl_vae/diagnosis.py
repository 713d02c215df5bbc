"""What goes wrong in conditional sampling of VAEs, recognised in a run's results."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ppl_vae._rows import missing_draws, order_by_row, sample_statistic
from ppl_vae.diagnostics import rhat, summary

__all__ = ["Finding", "diagnose"]

ADVICE = {
    "undefined draws": (
        "some draws are NaN: the decoder overflowed, or its weights are NaN; standardise the data, "
        "look at the weights, train again"
    ),
    "no usable weights": (
        "most proposals of a chain have no usable weight or ratio, for the model gives the "
        "observed entries no density (-inf or NaN) at any latents that were tried: check the "
        "data's units, the decoder's noise scale and the mask; no sampler mends it"
    ),
    "stuck chains": (
        "a chain accepted nothing: start it elsewhere (init_params from a LAIR run), use "
        "ACMWGKernel, whose proposals do not depend on where the chain is, or raise its "
        "prior_probability; where x alone is stuck (acceptance_rate_x is 0), use MNARLAIRKernel"
    ),
    "one mode each": (
        "every chain is at rest, and they disagree: each sits in a mode of its own. Use "
        "ACMWGKernel or LAIRKernel with a share of prior proposals, or raise it"
    ),
    "not converged": "the chains still drift: more warm-up and more draws",
    "one chain": (
        "it is at rest, but whether others would agree, which R-hat tells, cannot be known from "
        "one: run several from different starts (num_chains=4)"
    ),
    "heavy weights": (
        "few proposals carry the weights (k-hat above 0.7): more particles, more prior proposals, "
        "or a better guide; `pool` does not mend it"
    ),
    "history never refreshed": (
        "AC-MWG proposed from one and the same history: raise prior_probability, or start it from "
        "a LAIR run (init_params)"
    ),
}

# Theirs are energy errors of the leapfrog, or draws that were not finite.
OTHER_DIVERGENCES = {"HMC", "NUTS", "ClippedPseudoGibbsKernel"}


class Finding(NamedTuple):
    """A pitfall, the labels of the rows that show it, and what to do next."""

    pitfall: str
    rows: NDArray
    advice: str

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.rows[:5])) + (", ..." if len(self.rows) > 5 else "")
        return f"{self.pitfall} in {len(self.rows)} rows ({shown}): {self.advice}."


def diagnose(idata: Any, *, site: str | None = None, threshold: float = 1.05) -> list[Finding]:
    """Name the pitfalls that a run shows, row by row; an empty list if none is seen.

    * "undefined draws": some draw of a missing entry is NaN.
    * "no usable weights": in most draws of some chain no proposal had a finite weight, the ratio
      of the move was NaN (`diverging`), or log p(x_o, z) is -inf. Where that is so in every chain,
      the pitfalls below are not looked for.
    * "stuck chains": a chain of the row never moved.
    * "one mode each": R-hat is above `threshold` although every chain alone is stationary: R-hat of
      its two halves, each of which R-hat splits again, is at most `threshold` (worst entry).
    * "not converged": R-hat is above `threshold`, or cannot be computed, as for one chain, and some
      chain is not stationary, or has fewer than eight draws to tell.
    * "one chain": the run has one chain alone, which is stationary and might sit in one of several
      modes; not asked of independent draws, results with a group `estimates`.
    * "heavy weights": k-hat of the importance weights is above 0.7 in some chain.
    * "history never refreshed": nothing entered AC-MWG's history in all draws of a chain.

    Args:
        idata: results of `to_inference_data` or `pool`.
        site: name of the data site; may be left out where only one has missing entries.
        threshold: of R-hat.

    Raises:
        TypeError: `idata` has no groups, such as a run itself.
        ValueError: `idata` has no missing entries, or several sites to choose from.

    Example:
        >>> import xarray as xr
        >>> draws = np.random.default_rng(0).normal(size=(2, 200, 1)) + [[[-5.0]], [[5.0]]]
        >>> x = xr.DataArray(draws, dims=["chain", "draw", "missing"])
        >>> x = x.assign_coords(row=("missing", [3]))
        >>> posterior = xr.Dataset({"x_missing": x})
        >>> [(f.pitfall, f.rows.tolist()) for f in diagnose({"posterior": posterior})]
        [('one mode each', [3])]
    """
    table = summary(idata, site=site)
    rows = table["row"].values
    undefined = _undefined(idata, site)
    stuck = table["stuck"].values
    worst = table["rhat_worst"].values
    disagree, unknown = (worst > threshold) & ~stuck, np.isnan(worst) & ~stuck & ~undefined
    at_rest = _at_rest(idata, site, threshold)
    num_chains = missing_draws(idata, site).sizes["chain"]
    is_alone = num_chains == 1 and "estimates" not in idata
    unusable = _unusable(idata, rows, num_chains)
    marked = {
        "stuck chains": stuck,
        "one mode each": disagree & at_rest,
        "not converged": (disagree | unknown) & ~at_rest,
        "one chain": unknown & at_rest & is_alone,
        "heavy weights": table["khat_worst"].values > 0.7,
        "history never refreshed": _never_refreshed(idata, rows),
    }
    marked = {name: where & ~unusable.all(axis=0) for name, where in marked.items()}
    first = {"undefined draws": undefined, "no usable weights": unusable.any(axis=0)}
    return [
        Finding(name, rows[where], ADVICE[name])
        for name, where in {**first, **marked}.items()
        if any(where)
    ]


def _undefined(idata: Any, site: str | None) -> NDArray:
    """Whether a draw of a row's entries is NaN, (R,)."""
    missing = missing_draws(idata, site)
    _, index = np.unique(missing["row"].values, return_inverse=True)
    return np.bincount(index, np.isnan(missing.values).any(axis=(0, 1))) > 0


def _at_rest(idata: Any, site: str | None, threshold: float) -> NDArray:
    """Whether each row's chains are stationary one by one, by R-hat of their quarters, (R,)."""
    missing = missing_draws(idata, site)
    _, index, counts = np.unique(missing["row"].values, return_inverse=True, return_counts=True)
    half = missing.sizes["draw"] // 2
    if half < 4:
        return np.zeros(len(counts), bool)
    at_rest = np.ones(len(counts), bool)
    for chain in missing.values:
        halves = chain[: 2 * half].reshape(2, half, -1)  # `rhat` splits them again
        worst = order_by_row(np.asarray(rhat(halves)), index, counts)[2]
        at_rest &= ~(worst > threshold)  # NaN: the chain is constant
    return at_rest


def _never_refreshed(idata: Any, rows: NDArray) -> NDArray:
    """Whether some chain's history is the same at its last draw as at its first, (R,)."""
    length = sample_statistic(idata, "history_length", rows, ("chain", "draw", "row"))
    if length is None:
        return np.zeros(len(rows), bool)
    return np.any(length[:, -1] == length[:, 0], axis=0) & (length.shape[1] > 1)


def _unusable(idata: Any, rows: NDArray, num_chains: int) -> NDArray:
    """Whether most draws of a row and chain lack a usable weight, ratio or density, (C, R)."""
    unusable = np.zeros((num_chains, len(rows)), bool)
    lp = sample_statistic(idata, "lp", rows, ("chain", "draw", "row"))
    if lp is not None:
        unusable |= np.mean(lp == -np.inf, axis=1) > 0.5
    stats = idata["sample_stats"] if "sample_stats" in idata else xr.Dataset()
    if stats.attrs.get("kernel") in OTHER_DIVERGENCES:
        return unusable
    for step in ("draw", "iteration"):
        diverging = sample_statistic(idata, "diverging", rows, ("chain", step, "row"))
        if diverging is not None:
            unusable |= np.mean(diverging.astype(float), axis=1) > 0.5
    return unusable
