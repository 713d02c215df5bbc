"""What training asks of a program, and subsampled plates: in the objectives, `fit` and SVI."""

import importlib
import warnings

import numpy as np
import pytest
from host_words import words
from kernel_parts import double_precision, real, seeded
from scipy import stats

N, S, NOISE = 100, 10, 0.7
MANY = np.random.default_rng(0).normal(size=(N, 3))
W = np.array([1.0, -0.5, 0.8])


def programs(backend, plate, *, scale=1.0, bias=0.0):
    """z ~ N(0, 1), x ~ N(w z, 0.7^2); the guide is the posterior, moved by `bias`."""
    ppl, w = words(backend), real(backend, W)
    precision = 1 + (W**2).sum() / NOISE**2

    def model(x):
        with plate(ppl, x) as i:
            x = x if i is None else x[i]
            with ppl.handlers.scale(scale=scale):
                z = ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))
            ppl.sample("x", ppl.dist.Normal(z[:, None] * w, NOISE).to_event(1), obs=x)

    def guide(x):
        with plate(ppl, x) as i:
            x = x if i is None else x[i]
            loc = (x * w).sum(-1) / NOISE**2 / precision + bias
            ppl.sample("z", ppl.dist.Normal(loc, precision**-0.5))

    return model, guide


def log_evidence(x):
    """log p(x) of each row."""
    return stats.multivariate_normal(np.zeros(3), np.outer(W, W) + NOISE**2 * np.eye(3)).logpdf(x)


def loss_of(backend, objective, pair, x, seed=0):
    x = real(backend, x)
    if backend.name == "numpyro":
        return float(seeded(backend, lambda key: objective.loss(key, {}, *pair, x), seed))
    return float(seeded(backend, lambda: objective.loss(*pair, x), seed))


PLATES = {
    "of a batch": lambda ppl, x: ppl.plate("rows", N, subsample_size=x.shape[0]),
    "of a fixed size": lambda ppl, x: ppl.plate("rows", N, subsample_size=S),
}


@pytest.mark.parametrize("objective", ["ELBO", "IWAE", "DReG", "STL", "RWS"])
@pytest.mark.parametrize("num_particles", [1, 4, 20])
@pytest.mark.parametrize("plate", PLATES)
@pytest.mark.filterwarnings("ignore:The (model|guide) cannot be run on copies of the rows")
def test_a_batch_of_a_subsampled_plate(backend, plate, num_particles, objective):
    """At the posterior every bound is log p(x), of 10 rows that stand for 100, whatever K."""
    batch = MANY[:S]
    with double_precision(backend):
        bound = getattr(backend.api, objective)(num_particles=num_particles)
        found = loss_of(backend, bound, programs(backend, PLATES[plate]), batch)
    np.testing.assert_allclose(found, -N / S * log_evidence(batch).sum(), rtol=1e-9)


@pytest.mark.filterwarnings("ignore:The (model|guide) cannot be run on copies of the rows")
@pytest.mark.parametrize("num_particles", [1, 20])
def test_a_program_that_takes_its_own_rows(backend, num_particles):
    """Given all 100 rows it draws 10: each time others, on average all."""
    with double_precision(backend):
        bound, pair = (
            backend.api.IWAE(num_particles=num_particles),
            programs(backend, PLATES["of a fixed size"]),
        )
        found = np.array([loss_of(backend, bound, pair, MANY, seed) for seed in range(60)])
    assert len(set(found)) == 60
    error = found.std(ddof=1) / np.sqrt(len(found))
    assert abs(found.mean() + log_evidence(MANY).sum()) < 5 * error
    each = N / S * np.sqrt(S) * log_evidence(MANY).std()
    assert found.std() < 1.3 * each


def test_the_bound_is_formed_before_rows_are_scaled(backend):
    """With a guide that is off the IWAE's loss is N / S times that of a full plate over S rows."""
    full = lambda ppl, x: ppl.plate("rows", len(x))  # noqa: E731
    with double_precision(backend):
        bound = backend.api.IWAE(num_particles=5)
        scaled, plain = (
            loss_of(backend, bound, programs(backend, plate, bias=1.0), MANY[:S])
            for plate in (PLATES["of a batch"], full)
        )
    np.testing.assert_allclose(scaled, N / S * plain, rtol=1e-9)
    assert plain > -log_evidence(MANY[:S]).sum() + 1


def test_fit_reports_the_loss_per_row(backend):
    options = {"num_steps": 1, "batch_size": S, "objective": "iwae"}
    with double_precision(backend):
        ppl = words(backend)

        def with_parameter(pair):
            model, guide = pair

            def trained(x):
                return model(x + ppl.param("nothing", real(backend, 0.0)))

            return trained, guide

        pair = with_parameter(programs(backend, PLATES["of a batch"]))
        losses = backend.fit(pair, real(backend, MANY[:S]), **options).losses
    np.testing.assert_allclose(losses, -log_evidence(MANY[:S]).mean(), rtol=1e-5)


REFUSED = {
    "no to_event": (
        lambda ppl, x: ppl.sample("z", ppl.dist.Normal(0 * x[:, :1], 1.0)),
        r"Site 'z' of the model must have one value a row.*to_event\(1\)",
    ),
    "global": (
        lambda ppl, x: ppl.sample("z", ppl.dist.Normal(0.0 * x[0, 0], 1.0)),
        r"Site 'z' of the model must have one value a row",
    ),
    "factor": (
        lambda ppl, x: (ppl.factor("f", 0.0 * x[0, 0] - 10.0), row_latent(ppl, x)),
        r"Site 'f' of the model must have one value a row",
    ),
    "other names": (
        lambda ppl, x: row_latent(ppl, x, "zz"),
        r"Latent sites \['zz'\] of the model are not sampled by the guide",
    ),
    "annealed": (
        lambda ppl, x: ppl.handlers.scale(scale=0.1)(row_latent)(ppl, x),
        r"scaled differently: 'z' of the model by 0\.1.*kl_weight",
    ),
    "masked": (
        lambda ppl, x: ppl.handlers.mask(mask=x[:, 0] > 0)(row_latent)(ppl, x),
        r"latent site 'z' of the model is masked",
    ),
}


def row_latent(ppl, x, name="z"):
    with ppl.plate("rows", len(x)):
        return ppl.sample(name, ppl.dist.Normal(0 * x[:, 0], 1.0))


@pytest.mark.parametrize("case", REFUSED)
def test_programs_that_no_objective_can_train(backend, case):
    draw, words_of_error = REFUSED[case]
    ppl = words(backend)

    def model(x):
        draw(ppl, x)
        with ppl.plate("rows", len(x)):
            ppl.sample("x", ppl.dist.Normal(0 * x, 1.0).to_event(1), obs=x)

    def guide(x):
        row_latent(ppl, x)

    for objective in (backend.api.ELBO(), backend.api.IWAE(num_particles=3)):
        with pytest.raises(ValueError, match=words_of_error):
            loss_of(backend, objective, (model, guide), MANY[:6])


def test_a_batch_of_another_size_is_refused(backend):
    pair = programs(backend, PLATES["of a fixed size"])
    with pytest.raises(ValueError, match=r"'rows' runs over 10 of 100 rows, and x has 7"):
        loss_of(backend, backend.api.ELBO(), pair, MANY[:7])


def test_a_scale_of_the_whole_program_is_the_hosts(backend):
    full = lambda ppl, x: ppl.plate("rows", len(x))  # noqa: E731
    ppl = words(backend)
    pair = programs(backend, full)
    scaled = tuple(ppl.handlers.scale(fn, scale=0.01) for fn in pair)
    loss = loss_of(backend, backend.api.IWAE(num_particles=3), scaled, MANY[:S])
    np.testing.assert_allclose(loss, -0.01 * log_evidence(MANY[:S]).sum(), rtol=1e-4)


def test_noise_is_not_taken_for_a_program_that_cannot_be_copied():
    """Dropout makes densities differ between any two runs; no warning, which would be an error."""
    pytest.importorskip("pyro")
    import pyro
    import torch
    from pyro import distributions as dist

    from ppl_vae.pyro import IWAE

    net = torch.nn.Sequential(torch.nn.Linear(3, 50), torch.nn.Dropout(0.5), torch.nn.Linear(50, 1))

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z[:, None] + 0 * x, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(net(x)[:, 0], 1.0))

    pyro.set_rng_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(IWAE(num_particles=3).loss(model, guide, torch.ones(5, 3)))


def test_plates_sized_by_an_argument(backend):
    """The loss of 8 rows stands for n, whatever n was in the call before."""
    ppl, x, found = words(backend), MANY[:8], {}

    def plate(n, x):
        return ppl.plate("rows", n, subsample_size=len(x))

    def model(x, n):
        with plate(n, x):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))
            ppl.sample("x", ppl.dist.Normal(z[:, None] + 0 * x, 1.0).to_event(1), obs=x)

    def guide(x, n):
        with plate(n, x):
            ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))

    for n in (8, 80, 800):
        args = (model, guide, real(backend, x), n)
        objective = backend.api.ELBO()
        if backend.name == "numpyro":
            found[n] = float(seeded(backend, lambda key: objective.loss(key, {}, *args), 0))  # noqa: B023
        else:
            found[n] = float(seeded(backend, lambda: objective.loss(*args), 0))  # noqa: B023
    np.testing.assert_allclose([found[80], found[800]], [10 * found[8], 100 * found[8]], 1e-5)


def test_a_new_guide_is_looked_at_even_at_an_old_address(backend):
    """Python gives addresses again: a guide that is gone vouches for no other."""
    ppl = words(backend)
    model, _ = programs(backend, lambda ppl, x: ppl.plate("rows", len(x)))

    def guide_with(*names):
        def guide(x):
            with ppl.plate("rows", len(x)):
                for name in names:
                    ppl.sample(name, ppl.dist.Normal(0 * x[:, 0], 1.0))

        return guide

    objective, x = backend.api.ELBO(), MANY[:S]
    for _ in range(20):
        loss_of(backend, objective, (model, guide_with("z")), x)
        with pytest.raises(ValueError, match="'extra'"):
            loss_of(backend, objective, (model, guide_with("z", "extra")), x)


@pytest.mark.parametrize("name", ["ELBO", "IWAE"])
def test_the_hosts_subsample_statement(backend, name):
    """All rows are given, and `subsample` takes what `x[index]` takes: the very same loss."""
    ppl, host = words(backend), importlib.import_module(backend.name)
    indexed = programs(backend, lambda ppl, x: ppl.plate("rows", N, subsample_size=S))
    w = real(backend, W)
    precision = 1 + (W**2).sum() / NOISE**2

    def model(x):
        with ppl.plate("rows", N, subsample_size=S):
            x = host.subsample(x, event_dim=1)
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))
            ppl.sample("x", ppl.dist.Normal(z[:, None] * w, NOISE).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", N, subsample_size=S):
            x = host.subsample(x, event_dim=1)
            loc = (x * w).sum(-1) / NOISE**2 / precision
            ppl.sample("z", ppl.dist.Normal(loc, precision**-0.5))

    objective = getattr(backend.api, name)(num_particles=3)
    for rows in (MANY, MANY[:S]):
        losses = [loss_of(backend, objective, pair, rows) for pair in (indexed, (model, guide))]
        np.testing.assert_allclose(losses[1], losses[0], 1e-6)
