"""What objectives refuse, and the divergences that have no closed form."""

import importlib

import numpy as np
import pytest
from gaussian_chains import ONE, TWO
from host_words import words
from kernel_parts import double_precision
from objective_runs import losses
from scipy import stats

X = 1.5 * np.random.default_rng(0).normal(size=(6, 3))


@pytest.mark.parametrize("name", ["ELBO", "STL", "AnalyticELBO", "IWAE"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_particles": 0}, "num_particles must be an integer >= 1, got 0"),
        ({"num_particles": 2.0}, "num_particles must be an integer >= 1, got 2.0"),
        ({"kl_weight": -0.5}, r"kl_weight must be a number of at least 0 or a schedule.*-0\.5"),
        ({"kl_weight": "linear"}, r"kl_weight must be a number.*schedules, got 'linear'"),
    ],
)
def test_bad_settings(backend, name, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(backend.api, name)(**options)


def other_guide(backend, sample):
    """The model of `TWO` with a guide that draws its sites by `sample(name, loc)`."""
    model, _ = TWO.pair(backend)
    ppl = words(backend)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            for name, d in sample(ppl.dist, x[:, 0]):
                ppl.sample(name, d)

    return model, guide


def test_a_divergence_without_closed_form_names_the_site(backend):
    pair = other_guide(
        backend, lambda dist, x: [("z1", dist.StudentT(3.0, x, 1.0)), ("z2", dist.Normal(x, 1.0))]
    )
    with pytest.raises(NotImplementedError, match=r"'z1'.*StudentT in the guide, Normal.*ELBO\(\)"):
        losses(backend, backend.api.AnalyticELBO(), pair, X)


def test_a_divergence_in_any_order_is_that_of_the_draws(backend):
    """The guide draws z2 first, the model z1: one of the two divergences is by draws.

    Both means are of 4000 draws for each of 6 rows; false alarms: 1e-5.
    """
    pair = other_guide(
        backend, lambda dist, x: [("z2", dist.Normal(x, 1.0)), ("z1", dist.Normal(x, 1.0))]
    )
    with double_precision(backend):
        each = {
            name: losses(backend, getattr(backend.api, name)(num_particles=4000), pair, X, seeds)
            for name, seeds in (("AnalyticELBO", range(8)), ("ELBO", range(8, 16)))
        }
    error = np.sqrt(sum(value.var(ddof=1) / 8 for value in each.values()))
    difference = each["AnalyticELBO"].mean() - each["ELBO"].mean()
    assert abs(difference) < stats.t.isf(5e-6, 7) * error


def test_a_divergence_of_a_site_that_the_model_has_not(backend):
    pair = other_guide(
        backend, lambda dist, x: [(name, dist.Normal(x, 1.0)) for name in ("z1", "z2", "z3")]
    )
    with pytest.raises(
        ValueError, match=r"Sites \['z3'\] of the guide are no latent sites of the model"
    ):
        losses(backend, backend.api.AnalyticELBO(), pair, X)


@pytest.mark.parametrize("name", ["ELBO", "STL", "AnalyticELBO", "IWAE"])
def test_a_site_without_gradient_is_named(backend, name):
    pair = other_guide(
        backend, lambda dist, x: [("z1", dist.Normal(x, 1.0)), ("z2", dist.Poisson(1.0 + x**2))]
    )
    with pytest.raises(ValueError, match=r"Sites \['z2'\].*no reparameterised sampler"):
        losses(backend, getattr(backend.api, name)(), pair, X)


def test_data_by_keyword(backend):
    objective, pair = backend.api.IWAE(), ONE.pair(backend)
    key_and_weights = (None, {}) if backend.name == "numpyro" else ()
    with pytest.raises(ValueError, match=r"data comes first: .*not by keyword"):
        objective.loss(*key_and_weights, *pair, x=X)


@pytest.mark.parametrize("name", ["ELBO", "IWAE"])
def test_a_schedule_needs_the_step(backend, name):
    schedules = importlib.import_module("ppl_vae.schedules")
    objective = getattr(backend.api, name)(kl_weight=schedules.Linear(0.0, 1.0, 10))
    with pytest.raises(ValueError, match=r"kl_weight.*Linear.*svi\.step\(x, step=i\)"):
        losses(backend, objective, ONE.pair(backend), X)
