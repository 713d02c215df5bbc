"""Active units: how many latents carry something, and whether the rest can go.

A program is trained by one objective and then on by the other, as in section 5.2 of the paper: an
importance-weighted bound wakes units that the evidence lower bound has put to sleep. After every
training all units' activity is measured, the inactive ones are cut out, and both are scored.
"""

import time
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from burda import budget, over_images, print_rows, problem, sheet_of
from experiment import Results, result, weights_file
from safetensors.numpy import load_file

from ppl_vae.plots import active_units as draw

OBJECTIVES = {"VAE k=1": ("VAE", 1), "IWAE k=50": ("IWAE", 50)}
WARM_STARTS = (("VAE k=1", "IWAE k=50"), ("IWAE k=50", "VAE k=1"))
FILTERS = {"first layer of q": "q_z1.layers.0.weight", "last layer of p": "p_x.layers.2.weight"}
NUM_FILTERS = 36


class Look(NamedTuple):
    """A program at the end of a training."""

    whole: Any  # `log_likelihood`
    pruned: Any  # the same without the inactive units
    units: Any  # `active_units`


def run(args, device, train_and_look):
    """Train both ways; write rows and figures.

    `train_and_look(first, then, given)` yields a `Look` after each of the two trainings.
    """
    results, given = Results(args, device), problem(args)
    for first, then in WARM_STARTS:
        condition = f"{first}, then {then}"
        if results.has(then, condition):
            print(f"{condition}: done before")
            continue
        print(f"{condition}:", flush=True)
        rows, begin = [], time.perf_counter()
        for name, look in zip((first, then), train_and_look(first, then, given), strict=True):
            label = f"{first}_{then}_{name}".replace(" ", "")
            draw(look.units).savefig(args.out / f"units_{label}.png", dpi=120)
            trained = budget(args, given, goes_on=name == then)
            seconds = time.perf_counter() - begin
            rows += _rows(condition, name, look, budget=trained, seconds=seconds)
        weights = load_file(weights_file(args, first, "safetensors"))
        filters(weights, given).savefig(args.out / f"filters_{first.replace(' ', '')}.png", dpi=120)
        results.add(rows)
    print_rows(results.rows, args.out)


def _rows(condition, method, look, **ran):
    """The rows of `results.json` of one look; what `ran` counts from the first training on."""
    values = {
        "log_likelihood": look.whole["estimates"].log_likelihood.values.squeeze(),
        "log_likelihood, pruned": look.pruned["estimates"].log_likelihood.values.squeeze(),
    }
    active = result(condition, method, "active units", look.units.num_active.sum(), **ran)
    return [*over_images(condition, method, values, **ran), active]


def filters(weights, given):
    """Weights between pixels and the hidden units next to them, one small image a unit."""
    fig, axes = plt.subplots(1, 2, figsize=(8, 4.4), layout="constrained")
    for ax, (title, name) in zip(axes, FILTERS.items(), strict=True):
        matrix = weights[name]
        by_unit = matrix if title.startswith("first") else matrix.T
        images = by_unit[:NUM_FILTERS]
        reach = abs(images).max()
        shown = ax.imshow(
            sheet_of(images, given.image_shape), cmap="RdBu_r", vmin=-reach, vmax=reach
        )
        ax.set(title=title, xticks=[], yticks=[])
        fig.colorbar(shown, ax=ax, shrink=0.8, label="weight")
    return fig
