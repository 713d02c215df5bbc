"""Programs that mask densities themselves, as the hosts' own examples do.

Each is compared, draw by draw, with one that masks nothing and is not given what is masked.
"""

import numpy as np
import pytest
from host_words import words
from kernel_parts import seeded
from objective_runs import losses

NAN, FILLER = np.nan, 1000.0  # the filler is seen wherever it counts
X = np.array([[0.1, 0.4], [-1.2, NAN], [NAN, 0.9], [NAN, NAN], [2.0, 1.0]], "float32")
Y = np.array([1.0, 0.0, NAN, 1.0, NAN], "float32")
SHOWN = {"distribution": ~np.isnan(X), "handler": ~np.isnan(X).any(1)}
OBJECTIVES = ["ELBO", "AnalyticELBO", "IWAE", "DReG", "STL", "RWS"]


def guide_of(ppl):
    """A guide that sees no data, so that all programs have the same draws."""

    def guide(x, shown):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0.3 + 0.0 * shown.reshape(len(x), -1)[:, 0], 0.8))

    return guide


def masks_x(ppl, how):
    def model(x, shown):
        first = 0.0 * shown.reshape(len(x), -1)
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(first[:, 0], 1.0))
            d = ppl.dist.Normal(z[:, None] + 0.0 * first[:, :1] + x * 0.0, 0.5)
            if how == "distribution":
                ppl.sample("x", d.mask(shown).to_event(1), obs=x)
            elif how == "handler":
                with ppl.handlers.mask(mask=shown):
                    ppl.sample("x", d.to_event(1), obs=x)
            else:
                ppl.sample("x", d.to_event(1), obs=x)

    return model


@pytest.mark.parametrize("how", SHOWN)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_the_model_masks_is_not_trained_on(backend, name, how):
    ppl, objective = words(backend), getattr(backend.api, name)(num_particles=3)
    shown = SHOWN[how]
    entries = shown if shown.ndim == 2 else np.repeat(shown[:, None], 2, 1)
    filled = np.where(entries, X, FILLER)
    itself = masks_x(ppl, how), guide_of(ppl)
    other = masks_x(ppl, "not at all"), guide_of(ppl)
    given = {"shown": shown, "mask": np.ones_like(entries)}
    expected = losses(backend, objective, other, filled, shown=shown, mask=entries)
    np.testing.assert_allclose(losses(backend, objective, itself, filled, **given), expected, 1e-5)
    both = {"shown": shown, "mask": entries}
    np.testing.assert_allclose(losses(backend, objective, itself, filled, **both), expected, 1e-5)
    assert losses(backend, objective, other, filled, **given) > 100 * expected


def labelled(ppl, how):
    """Labels of some rows: a second observed site, masked where there is none, or a factor."""

    def model(x, shown, y):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0 * y, 1.0))
            if how == "masked":
                with ppl.handlers.mask(mask=shown):
                    ppl.sample("y", ppl.dist.Beta(1.5 + z**2, 2.0), obs=y)
            else:
                log_prob = ppl.dist.Beta(1.5 + z**2, 2.0).log_prob(y)
                ppl.factor("y", log_prob * shown)
            ppl.sample("x", ppl.dist.Normal(z[:, None] + 0 * x, 0.5).to_event(1), obs=x)

    def guide(x, shown, y):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0.3 + 0.0 * y, 0.8))

    return model, guide


LABELLED = ~np.isnan(Y)
LABELS = np.where(LABELLED, 0.2 + 0.5 * Y, FILLER).astype("float32")  # a Beta has none of it
ZEROED = np.where(LABELLED, LABELS, 0.5).astype("float32")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_labels_of_some_rows_are_trained_on(backend, name):
    ppl, objective = words(backend), getattr(backend.api, name)(num_particles=3)
    mask = ~np.isnan(X)
    x, given = np.where(mask, X, 0.0), {"shown": LABELLED, "mask": mask}
    masked = losses(backend, objective, labelled(ppl, "masked"), x, y=LABELS, **given)
    expected = losses(backend, objective, labelled(ppl, "weighed"), x, y=ZEROED, **given)
    np.testing.assert_allclose(masked, expected, 1e-5)


def test_labels_of_some_rows_are_conditioned_on(backend):
    """The same draws weighed alike, by the estimators and by a kernel."""
    ppl = words(backend)
    found = []
    for how, y in (("masked", LABELS), ("weighed", ZEROED)):
        pair = labelled(ppl, how)
        arguments = [backend.array(a) for a in (X, LABELLED, y)]
        estimate = seeded(
            backend, backend.api.log_likelihood, 0, *pair, *arguments, num_particles=(50,),
            progress_bar=False,
        )  # fmt: skip
        run = backend.run(backend.api.MWGKernel(*pair), *arguments, num_samples=5, num_chains=2)
        found.append((estimate["estimates"]["log_likelihood"], backend.draws(run)["x"]))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, 1e-5)
