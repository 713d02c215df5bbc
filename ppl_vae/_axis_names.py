"""Names of the axes of the results' variables, given by users or made up."""

from collections.abc import Mapping, Sequence

from numpy.typing import NDArray

__all__ = ["data_dims", "latent_dims"]

TAKEN = ("chain", "draw", "row", "missing", "iteration", "proposal")


def data_dims(site: str, x: NDArray, dims: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Names of the axes of one row of the data, (B, *event)."""
    num_axes = x.ndim - 1
    if site in dims:
        return _given(site, dims[site], num_axes)
    return ("feature",) if num_axes == 1 else tuple(f"feature_{i}" for i in range(num_axes))


def latent_dims(
    latents: Mapping[str, NDArray],
    dims: Mapping[str, Sequence[str]],
    data_site: str,
    event_dims: Sequence[str],
) -> dict[str, tuple[str, ...]]:
    """Names of the axes of one row of each latent's draws, (C, S, B, ...).

    Latents may share a name for axes of one length; those of the data label missing entries.
    """
    named = {}
    sizes: dict[str, tuple[int, str]] = {}
    for site, draws in latents.items():
        if site in event_dims:
            raise ValueError(
                f"An axis of the data {data_site!r} can't have the name of the latent site "
                f"{site!r}: name the axes of a row anew, `dims={{{data_site!r}: [...]}}`."
            )
        if site in (*TAKEN, f"{data_site}_missing"):
            raise ValueError(
                f"The latent site {site!r} has a name that the results need for something else: "
                "rename it in model and guide."
            )
        shape = draws.shape[3:]
        made_up = tuple(f"{site}_dim_{i}" for i in range(len(shape)))
        named[site] = _given(site, dims[site], len(shape)) if site in dims else made_up
        for name, size in zip(named[site], shape, strict=True):
            if name in event_dims:
                raise ValueError(f"dims[{site!r}]: {name!r} is an axis of the data; name it anew.")
            known, first = sizes.setdefault(name, (size, site))
            if known != size:
                raise ValueError(
                    f"dims: {name!r} has {known} entries at {first!r} and {size} at {site!r}."
                )
    return named


def _given(site: str, given: Sequence[str], num_axes: int) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    if len(names) != num_axes:
        axes = "axis" if num_axes == 1 else "axes"
        raise ValueError(
            f"dims[{site!r}] must name the {num_axes} {axes} of one row, got {list(names)}."
        )
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"dims[{site!r}] has {name!r} twice.")
        if name in TAKEN:
            raise ValueError(f"dims[{site!r}]: the results have a dimension {name!r} of their own.")
    return names
