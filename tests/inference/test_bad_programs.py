"""Programs that cannot be sampled are refused with an error that names site, row and remedy."""

import importlib
import warnings

import numpy as np
import pytest
from host_words import MASK, X, bernoulli_pair, clear_parameters, run, words


@pytest.fixture
def ppl(backend):
    clear_parameters(backend)
    return words(backend)


def one_too_many(ppl, role):
    model, guide = bernoulli_pair(ppl)

    def more(x):
        (model if role == "model" else guide)(x)
        with ppl.plate("rows again", x.shape[0]):
            ppl.sample("w", ppl.dist.Normal(0 * x[:, 0], 1.0))

    return (more, guide) if role == "model" else (model, more)


def no_plate(ppl):
    model, _ = bernoulli_pair(ppl)

    def guide(x):
        ppl.sample("z", ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(2))

    return model, guide


def no_event(ppl):
    def model(x):
        z = ppl.sample("z", ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1))
        ppl.sample("x", ppl.dist.Bernoulli(logits=z + 0 * x), obs=x)

    return model, bernoulli_pair(ppl)[1]


def batch_mean(ppl):
    model, _ = bernoulli_pair(ppl)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal((x - x.mean(0))[:, :1], 1.0).to_event(1))

    return model, guide


def coupled_model(ppl):
    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            centred = z - z.mean(0)
            ppl.sample("x", ppl.dist.Bernoulli(logits=centred + 0 * x).to_event(1), obs=x)

    return model, bernoulli_pair(ppl)[1]


def wide_model(ppl):
    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Bernoulli(logits=z + 0 * x[:, :1]).to_event(1), obs=x[:, :1])

    return model, bernoulli_pair(ppl)[1]


def subsampled(ppl):
    model, _ = bernoulli_pair(ppl)

    def guide(x):
        with ppl.plate("rows", 40, subsample_size=x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(x[:, :1], 1.0).to_event(1))

    return model, guide


def hidden_entries(ppl):
    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            with ppl.handlers.mask(mask=x[:, 0] < -1):
                ppl.sample("x", ppl.dist.Bernoulli(logits=z + 0 * x).to_event(1), obs=x)

    return model, bernoulli_pair(ppl)[1]


def scaled(ppl, role):
    def scale(program):
        def with_scale(x):
            with ppl.handlers.scale(scale=0.3):
                program(x)

        return with_scale

    model, guide = bernoulli_pair(ppl)
    return (scale(model), guide) if role == "model" else (model, scale(guide))


def masked_latent(ppl, by_handler):
    def model(x):
        with ppl.plate("rows", x.shape[0]):
            shown = x[:, 0] > 0
            prior = ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1)
            if by_handler:
                with ppl.handlers.mask(mask=shown):
                    z = ppl.sample("z", prior)
            else:
                z = ppl.sample("z", prior.mask(shown))
            ppl.sample("x", ppl.dist.Bernoulli(logits=z + 0 * x).to_event(1), obs=x)

    return model, bernoulli_pair(ppl)[1]


def crashing(ppl):
    def guide(x):
        raise KeyError("no such net")

    return bernoulli_pair(ppl)[0], guide


BAD_PROGRAMS = {
    "unknown site": (
        lambda ppl: bernoulli_pair(ppl, data_site="obs"),
        r"no observed site 'x'; its observed sites are \['obs'\].*latent sites \['z'\].*site=",
    ),
    "site not in the guide": (
        lambda ppl: one_too_many(ppl, "model"), r"\['w'\] of the model are not sampled by the guide"
    ),
    "site not in the model": (
        lambda ppl: one_too_many(ppl, "guide"), r"\['w'\] of the guide are no latent sites"
    ),
    "other name": (
        lambda ppl: bernoulli_pair(ppl, latent_of_guide="u"), r"\['z'\] of the model.*\['u'\]"
    ),
    "no plate": (no_plate, r"Site 'z' of the guide.*batch_shape \(4,\).*plate\('rows'"),
    "no event": (no_event, r"Site 'x' of the model.*\(4, 3\).*\.to_event\(1\)"),
    "batch mean": (batch_mean, r"rows of the guide are not independent.*row \d.*mean over the"),
    "coupled model": (coupled_model, r"rows of the model are not independent.*row \d"),
    "event shape": (wide_model, r"Rows of x have shape \(3,\).*event shape \(1,\).*Reshape"),
    "subsampled": (subsampled, r"plate 'rows' of the guide is subsampled, 4 of 40 rows.*x\.shape"),
    "hidden entries": (hidden_entries, r"masks 8 entries of site 'x'.*first in row 0.*mask="),
    "scaled model": (lambda ppl: scaled(ppl, "model"), r"'[xz]' of the model is scaled by 0\.3"),
    "scaled guide": (lambda ppl: scaled(ppl, "guide"), r"'z' of the guide is scaled by 0\.3"),
    "masked latent": (lambda ppl: masked_latent(ppl, True), r"'z' of the model is masked"),
    "masked prior": (lambda ppl: masked_latent(ppl, False), r"'z' of the model is masked"),
    "crash": (crashing, r"The guide could not be run on data of shape \(4, 3\).*no such net"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_PROGRAMS)
def test_bad_programs(backend, ppl, case):
    make, message = BAD_PROGRAMS[case]
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        run(backend, make(ppl))


def test_weak_coupling_of_many_rows_is_seen(backend, ppl):
    """One row of 400 moves a batch mean by less than any tolerance; all others together do not."""
    with pytest.raises(ValueError, match="rows of the guide are not independent"):
        run(backend, batch_mean(ppl), np.tile(X, (100, 1)))


def test_batch_normalisation_is_refused(backend, ppl):
    """In training mode only: it then reads other rows."""
    if backend.name == "pyro":
        import torch

        norm = torch.nn.BatchNorm1d(3)
        norm.train()
        normalise = norm
    else:
        from flax import nnx

        norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0), use_running_average=False)
        graph, state = nnx.split(norm)
        normalise = lambda x: nnx.merge(graph, state)(x)  # noqa: E731

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(normalise(x)[:, :1], 1.0).to_event(1))

    with pytest.raises(ValueError, match="batch normalisation"):
        run(backend, (bernoulli_pair(ppl)[0], guide))


@pytest.mark.parametrize("role", ["model", "guide"])
@pytest.mark.parametrize("initial", ["value", "function"])
def test_parameters_without_trained_values(backend, ppl, role, initial):
    model, guide = bernoulli_pair(ppl)
    zero = backend.array(np.zeros((), "float32"))

    def with_param(x):
        if backend.name == "numpyro":
            ppl.param("offset", zero if initial == "value" else (lambda key: zero))
        else:
            ppl.param("offset", zero if initial == "value" else (lambda: zero))
        (model if role == "model" else guide)(x)

    pair = (with_param, guide) if role == "model" else (model, with_param)
    remedy = "pass params=" if backend.name == "numpyro" else "get_param_store"
    with pytest.raises(ValueError, match=rf"'offset' of the {role} has no trained value.*{remedy}"):
        run(backend, pair)
    if backend.name == "numpyro":
        kernel = backend.api.MWGKernel(*pair, params={"offset": zero})
        backend.run(kernel, backend.array(X), num_samples=2)
    else:
        import pyro

        assert not list(pyro.get_param_store().keys())  # the refused run left nothing behind
        pyro.param("offset", zero)
        run(backend, pair)


def test_an_untrained_vae(backend):
    """In NumPyro its weights would be drawn anew at every run; in Pyro the module holds them."""
    vae = backend.api.VAE((3,), 2, hidden=(4,))
    if backend.name == "pyro":
        run(backend, (vae.model, vae.guide))
        return
    with pytest.raises(ValueError, match=r"'decoder\$params' of the model.*fitted\.model"):
        run(backend, (vae.model, vae.guide))


# --- likelihoods without a rule -------------------------------------------------------------


def low_rank_pair(ppl):
    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            loc = z + 0 * x
            factor = (0 * x + 0.5)[..., None]
            likelihood = ppl.dist.LowRankMultivariateNormal(loc, factor, 0 * x + 1.0)
            ppl.sample("x", likelihood, obs=x)

    return model, bernoulli_pair(ppl)[1]


def test_a_likelihood_without_a_rule(backend, ppl):
    with pytest.raises(NotImplementedError, match=r"LowRankMultivariateNormal.*register_rule"):
        run(backend, low_rank_pair(ppl))

    def dirichlet(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Dirichlet(1 + 0 * x), obs=x)

    with pytest.raises(NotImplementedError, match=r"Dirichlet.*register_rule"):
        run(backend, (dirichlet, bernoulli_pair(ppl)[1]))


def test_a_registered_rule_mends_it(backend, ppl):
    """The class of the same law whose rule ships stands in for the one without."""
    rules = importlib.import_module(f"ppl_vae.inference.{backend.name}.likelihood")

    def dense(d):
        return ppl.dist.MultivariateNormal(d.loc, covariance_matrix=d.covariance_matrix)

    def sample(*args):
        *key, d, x, mask = args
        return rules.complete(*key, dense(d), x, mask)

    family = ppl.dist.LowRankMultivariateNormal
    backend.api.register_rule(
        family,
        log_prob=lambda d, x, mask: rules.observed_log_prob(dense(d), x, mask),
        sample=sample,
    )
    try:
        draws = backend.draws(run(backend, low_rank_pair(ppl)))["x"]
    finally:
        del rules._RULES[family]
    np.testing.assert_array_equal(draws[..., MASK], np.broadcast_to(X[MASK], (2, 3, 8)))
    with pytest.raises(TypeError, match="Distribution class"):
        backend.api.register_rule("Dirichlet", log_prob=None, sample=None)


def test_good_programs_give_no_warning(backend, ppl):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(backend, bernoulli_pair(ppl))
