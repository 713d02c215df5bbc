"""Missingness models as programs: shipped ones against numpy, the users' own, and bad ones."""

import numpy as np
import pytest
from host_words import words
from kernel_parts import (
    bind,
    both_backends,
    chains,
    double_precision,
    module,
    one_chain,
    real,
)
from test_discrete_exact import X
from test_mnar import MASK, ROWS, TRUTH, log_missing, missingness

from ppl_vae.missingness import Logistic, Patterns, Squares, class_squares, halves, mar_logistic

# --- densities --------------------------------------------------------------------------------


def test_logistic_density_is_the_mechanism_s(backend):
    with double_precision(backend):
        pair = backend.programs.discrete(TRUTH)
        program = bind(backend, pair, ROWS, np.broadcast_to(MASK, ROWS.shape))
        log_prob = module(backend, "missingness").log_missingness
        value = log_prob(program, missingness(backend), chains(backend, real(backend, ROWS)))
        np.testing.assert_allclose(one_chain(backend, value), log_missing(), rtol=1e-10)


def test_pattern_density_is_the_mechanism_s(backend):
    mechanism = class_squares((2, 4), num_classes=3, size=2)
    masks = np.concatenate([mechanism.patterns, np.ones((1, 2, 4), bool)])
    x = np.random.default_rng(0).normal(size=(3, 2, 4))

    def classify(x):
        sums = x.reshape(len(x), -1).sum(1)
        weights = [sums**2, 1 + 0 * sums, 2 + 0 * sums]
        total = sum(weights)
        stack = backend.array if isinstance(x, np.ndarray) else None
        parts = [w / total for w in weights]
        if stack:
            return np.stack(parts, 1)
        return (parts[0][:, None] * real(backend, [[1.0, 0, 0]])
                + parts[1][:, None] * real(backend, [[0, 1.0, 0]])
                + parts[2][:, None] * real(backend, [[0, 0, 1.0]]))  # fmt: skip

    with double_precision(backend), np.errstate(divide="ignore"):
        program = bind(backend, backend.programs.discrete(TRUTH), x, masks)
        model = backend.api.pattern_missingness(mechanism, classify)
        log_prob = module(backend, "missingness").log_missingness
        value = one_chain(backend, log_prob(program, model, chains(backend, real(backend, x))))
        np.testing.assert_allclose(value, mechanism.log_prob(masks, x, classify(x)), rtol=1e-10)
    assert value[-1] == -np.inf  # no such pattern


def test_the_twins_agree_on_the_missingness():
    values = []
    for backend in both_backends():
        program = bind(
            backend, backend.programs.discrete(TRUTH), ROWS, np.broadcast_to(MASK, ROWS.shape)
        )
        log_prob = module(backend, "missingness").log_missingness
        x = chains(backend, real(backend, ROWS))
        values.append(one_chain(backend, log_prob(program, missingness(backend), x)))
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)


# --- the programs that users bring ---------------------------------------------------------------


def test_own_program_and_further_arguments(backend):
    """A missingness model with a site of its own name, and an argument of the run."""
    ppl = words(backend)
    seen = []

    def model(x, level):
        return backend.programs.discrete(TRUTH)[0](x)

    def guide(x, level):
        return backend.programs.discrete(TRUTH)[1](x)

    def own(x, level, mask=None):
        seen.append(level)
        with ppl.plate("rows", len(x)):
            ppl.sample("m", ppl.dist.Bernoulli(logits=level - x).to_event(1), obs=1.0 * mask)

    x = backend.array(np.tile(np.where(MASK, X, np.nan).astype("float32"), (3, 1)))
    for name in ("MNARMWGKernel", "MNARLAIRKernel"):
        kernel = getattr(backend.api, name)(model, guide, own)
        mcmc = backend.run(kernel, x, 0.5, num_samples=3, num_chains=2)
        draws = np.asarray(backend.api.completed(backend.api.to_inference_data(mcmc)))
        assert (draws[..., MASK] == X[MASK]).all()
    assert set(seen) == {0.5}


def test_mechanisms_leave_the_models_arguments_alone(backend):
    """Labels of a conditional model, by place or by name, do not disturb a mechanism of x alone."""

    def model(x, label, scale=1.0):
        return backend.programs.discrete(TRUTH)[0](x)

    def guide(x, label, scale=1.0):
        return backend.programs.discrete(TRUTH)[1](x)

    x = backend.array(np.tile(np.where(MASK, X, np.nan).astype("float32"), (3, 1)))
    label = backend.array(np.zeros(3, "float32"))
    patterns = Patterns(np.stack([MASK, ~MASK]), np.array([[0.5, 0.5]]))
    for own in (missingness(backend), backend.api.pattern_missingness(patterns)):
        kernel = backend.api.MNARMWGKernel(model, guide, own)
        mcmc = backend.run(kernel, x, label, scale=2.0, num_samples=2, num_chains=1)
        assert (backend.draws(mcmc)["x"][..., MASK] == X[MASK]).all()


def test_impossible_masks_are_left_and_not_poisoned(backend):
    """Only ones can be lost: a start with zeros there leaves at the first possible proposal."""
    ppl = words(backend)

    def own(x, mask=None):
        with ppl.plate("rows", len(x)):
            ppl.sample("mask", ppl.dist.Bernoulli(1 - x).to_event(1), obs=1.0 * mask)

    x = np.tile(np.array([0, np.nan, 0, np.nan, np.nan], "float32"), (3, 1))
    kernel = backend.api.MNARMWGKernel(*backend.programs.discrete(TRUTH), own)
    draws = backend.draws(backend.run(kernel, backend.array(x), num_warmup=300, num_samples=5))
    assert (draws["x"][..., np.isnan(x[0])] == 1).all()


def test_masks_that_no_x_could_have_are_reported(backend):
    """An input of a MAR mechanism is never lost; here it is: nothing moves, and all is marked."""
    mechanism = mar_logistic(np.random.default_rng(0), np.random.default_rng(1).random((99, 5)))
    x = np.tile(np.where(np.isneginf(mechanism.bias), np.nan, X).astype("float32"), (3, 1))
    own = backend.api.logistic_missingness(mechanism)
    for name in ("MNARMWGKernel", "MNARLAIRKernel"):
        kernel = getattr(backend.api, name)(*backend.programs.discrete(TRUTH), own)
        info = backend.info(backend.run(kernel, backend.array(x), num_samples=5, num_chains=2))
        assert info["diverging"].all()
        if name == "MNARMWGKernel":
            assert not info["accepted_x"].any()
        else:
            assert (info["log_weight"] == -np.inf).all()


def bad_programs(ppl):
    def latent(x, mask=None):
        with ppl.plate("rows", len(x)):
            ppl.sample("mask", ppl.dist.Bernoulli(0.5 + 0 * x).to_event(1))

    def not_by_row(x, mask=None):
        ppl.sample("mask", ppl.dist.Bernoulli(0.5 + 0 * x).to_event(2), obs=1.0 * mask)

    def no_mask(x):
        return None

    def nothing(x, mask=None):
        return None

    def fails(x, mask=None):
        raise RuntimeError("of its own")

    def no_x(mask):
        return None

    return {
        "nothing": (nothing, ValueError, "missingness model samples nothing: let it observe"),
        "latent": (latent, ValueError, "'mask' of the missingness model is not observed"),
        "not by row": (
            not_by_row,
            ValueError,
            r"one density a row, batch shape \(3,\), got .*\(\[?\]?\)",
        ),
        "no mask": (no_mask, TypeError, "must have a parameter `mask`"),
        "fails": (
            fails,
            ValueError,
            r"could not be run as `missingness\(x, mask=mask\)`.*shape \(3,",
        ),
        "no x": (no_x, ValueError, r"could not be run as `missingness\(x, mask=mask\)`"),
        "no function": (3, TypeError, "must be a function of x and mask, got int"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "latent",
        "not by row",
        "no mask",
        "no function",
        "nothing",
        "fails",
        "no x",
    ],
)
@pytest.mark.parametrize("name", ["MNARMWGKernel", "MNARLAIRKernel"])
def test_bad_missingness_models(backend, name, case):
    own, error, message = bad_programs(words(backend))[case]
    x = backend.array(np.tile(np.where(MASK, X, np.nan).astype("float32"), (3, 1)))
    kernel = getattr(backend.api, name)(*backend.programs.discrete(TRUTH), own)
    with pytest.raises(error, match=message):
        backend.run(kernel, x, num_samples=2, num_chains=1)


def test_patterns_of_several_classes_need_them(backend):
    with pytest.raises(ValueError, match="give the rows' class probabilities"):
        backend.api.pattern_missingness(class_squares((4, 4), 2, 2))
    backend.api.pattern_missingness(halves((4, 4)))
    assert isinstance(halves((4, 4)), Patterns)


def test_mechanisms_of_another_kind(backend):
    """Each function of a mechanism names the other, or says that there is none."""
    logistic, patterns = Logistic(np.zeros((2, 2)), np.zeros(2)), halves((4, 4))
    squares = Squares(2)
    with pytest.raises(TypeError, match=r"takes a mechanism of type Patterns.*got Logistic.*use"):
        backend.api.pattern_missingness(logistic)
    with pytest.raises(TypeError, match=r"type Logistic, got Patterns.*`pattern_missingness`"):
        backend.api.logistic_missingness(patterns)
    with pytest.raises(TypeError, match=r"got Squares: write its density"):
        backend.api.logistic_missingness(squares)


def test_mar_mechanisms_change_nothing(backend):
    """p(M | x) of a MAR mechanism does not depend on x_m, so every x_m is accepted."""
    mechanism = mar_logistic(np.random.default_rng(0), np.random.default_rng(1).random((99, 5)))
    mask = ~np.isneginf(mechanism.bias)
    x = np.tile(np.where(mask, np.nan, X).astype("float32"), (3, 1))
    own = backend.api.logistic_missingness(mechanism)
    kernel = backend.api.MNARMWGKernel(*backend.programs.discrete(TRUTH), own)
    info = backend.info(backend.run(kernel, backend.array(x), num_samples=20))
    assert info["accepted_x"].all()
    assert not info["accepted"].all()


def test_bools_at_a_bernoulli_of_torch_have_a_remedy(backend):
    """What NumPyro takes, torch does not."""
    ppl = words(backend)

    def as_bool(x, mask=None):
        with ppl.plate("rows", len(x)):
            ppl.sample("mask", ppl.dist.Bernoulli(logits=0.0 * x).to_event(1), obs=mask)

    x = backend.array(np.array([[0, 1, np.nan, 1, 0]], "float32"))
    kernel = backend.api.MNARMWGKernel(*backend.programs.discrete(TRUTH), as_bool)
    if backend.name == "numpyro":
        backend.run(kernel, x, num_samples=2, num_chains=1)
        return
    with pytest.raises(ValueError, match=r"write `obs=1.0 \* mask`, for torch's Bernoulli"):
        backend.run(kernel, x, num_samples=2, num_chains=1)
