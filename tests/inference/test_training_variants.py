"""Training beyond the ELBO: names, the hosts' SVI, schedules, refitted and masked guides."""

import importlib

import numpy as np
import pytest
from gaussian_chains import BIAS, NOISE, ONE, WEIGHT, regression
from host_words import clear_parameters, words
from kernel_parts import double_precision, module, real, seeded

from ppl_vae.schedules import Constant, Cosine, Cyclic, Linear, Schedule, at_step

RNG = np.random.default_rng(0)
X = (RNG.random((24, 6)) < 0.4).astype("float32")
MASK = RNG.random(X.shape) < 0.6
NAMES = [
    "analytic-elbo", "ciwae", "dreg", "elbo", "forward-kl", "gdreg", "iwae", "iwae-stl", "jvi",
    "normalised-iwae", "renyi", "rws", "rws-dreg", "stl",
]  # fmt: skip
UNWEIGHTED = ["ForwardKL", "RWS", "RWSDReG"]
WEIGHTED = [
    "ELBO", "STL", "AnalyticELBO", "IWAE", "NormalisedIWAE", "IWAESTL", "DReG", "GDReG", "CIWAE",
    "Renyi", "JVI",
]  # fmt: skip
SMALL = {"num_steps": 12, "batch_size": 8, "mask": MASK}


def seed_torch(backend):
    if backend.name == "pyro":
        importlib.import_module("pyro").set_rng_seed(1)


def often(names):
    """Each objective is trained; `make test` takes one of each kind, `make test-slow` the rest."""
    first = {"analytic-elbo", "stl", "forward-kl", "dreg", "rws", "AnalyticELBO", "STL", "IWAE",
             "ForwardKL", "DReG", "RWS"}  # fmt: skip
    return [name if name in first else pytest.param(name, marks=pytest.mark.slow) for name in names]


def small_vae(backend, **options):
    """A VAE whose first weights are the same at every call."""
    seed_torch(backend)
    return backend.api.VAE((6,), 2, hidden=(8,), **options)


def weights(backend, fitted):
    """Copies of all weights by name."""
    params = (fitted.params,) if backend.name == "numpyro" else ()
    return fitted.program.to_weights(*params)


def assert_same_weights(one, other, part=""):
    assert one.keys() == other.keys()
    for name in (name for name in one if name.startswith(part)):
        np.testing.assert_array_equal(one[name], other[name])


# --- by name, and in the hosts' SVI ---------------------------------------------------------


@pytest.mark.parametrize("name", often(NAMES))
def test_every_name_trains_on_incomplete_rows(backend, name):
    options = {**SMALL, "num_steps": 90, "learning_rate": 0.02}
    losses = backend.fit(small_vae(backend), X, objective=name, **options).losses
    assert np.isfinite(losses).all()
    assert losses[-15:].mean() < losses[:15].mean()


def test_the_names(backend):
    assert sorted(module(backend, "named_objectives").OBJECTIVES) == NAMES
    with pytest.raises(ValueError, match=r"'analytic-elbo'.*'stl'\], got 'iwea'"):
        backend.fit(small_vae(backend), X, objective="iwea", **SMALL)


@pytest.mark.parametrize("name", often(UNWEIGHTED + WEIGHTED))
def test_the_hosts_svi_takes_every_objective(backend, name):
    schedule = {} if name in UNWEIGHTED else {"kl_weight": Linear(0.0, 1.0, 10)}
    objective = getattr(backend.api, name)(**schedule)
    losses = hosts_svi(backend, small_vae(backend), objective, num_steps=30)
    assert np.isfinite(losses).all()
    assert not np.array_equal(losses[:-1], losses[1:])


def hosts_svi(backend, vae, objective, num_steps):
    """Losses of the host's own SVI, told the step and the mask."""
    x, mask = backend.array(X), backend.array(MASK)
    if backend.name == "pyro":
        import pyro

        pyro.clear_param_store()
        optimiser = pyro.optim.Adam({"lr": 1e-2})
        svi = pyro.infer.SVI(vae.model, vae.guide, optimiser, objective)
        return np.array([svi.step(x, mask=mask, step=i) for i in range(num_steps)])
    import jax
    import optax
    from numpyro.infer import SVI

    svi = SVI(vae.model, vae.guide, optax.adam(1e-2), objective)
    update = jax.jit(lambda state, i: svi.update(state, x, mask=mask, step=i))
    state, losses = svi.init(jax.random.key(0), x), []
    for i in range(num_steps):
        state, loss = update(state, i)
        losses.append(float(loss))
    return np.array(losses)


# --- schedules ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "at"),
    [
        (Constant(0.3), {0: 0.3, 10**6: 0.3}),
        (Linear(0.2, 1.0, 4), {0: 0.2, 1: 0.4, 3: 0.8, 4: 1.0, 50: 1.0}),
        (Linear(1.0, 0.0, 2, begin=10), {0: 1.0, 10: 1.0, 11: 0.5, 12: 0.0, 13: 0.0}),
        (Cyclic(0.0, 2.0, period=4), {0: 0.0, 1: 1.0, 2: 2.0, 3: 2.0, 4: 0.0, 9: 1.0}),
        (Cyclic(0.0, 1.0, period=4, ramp=1.0), {0: 0.0, 3: 0.75, 4: 0.0}),
        (Cosine(2.0, 1.0, 4), {0: 2.0, 1: 1.8535534, 2: 1.5, 4: 1.0, 9: 1.0}),
    ],
    ids=str,
)
def test_values_of_schedules(backend, schedule, at):
    for step, value in at.items():
        assert schedule(step) == pytest.approx(value)
        assert float(schedule(backend.array(step))) == pytest.approx(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(0.0, 1.0, 0), "num_steps must be at least 1, got 0"),
        (lambda: Cosine(0.0, 1.0, 0), "num_steps must be at least 1, got 0"),
        (lambda: Cyclic(0.0, 1.0, 0), "period must be at least 1, got 0"),
        (lambda: Cyclic(0.0, 1.0, 5, ramp=0.0), r"ramp must be above 0 and at most 1, got 0\.0"),
        (lambda: Cyclic(0.0, 1.0, 5, ramp=1.5), r"ramp must be above 0 and at most 1, got 1\.5"),
    ],
)
def test_bad_schedules(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_at_a_step_are_a_copy(backend):
    objective = backend.api.IWAE(kl_weight=Linear(0.0, 1.0, 4), num_particles=3)
    at = at_step(objective, 1)
    assert (at.kl_weight, at.num_particles) == (0.25, 3)
    assert isinstance(objective.kl_weight, Schedule)
    assert at_step(at, None) is at


class Alternating(Schedule):
    """A user's own: 0 at even steps, 1 at odd ones."""

    def __call__(self, step):
        return step % 2 * 1.0


@pytest.mark.parametrize("schedule", [Linear(0.0, 1.0, 8), Alternating()], ids=["linear", "own"])
def test_fit_counts_the_steps(backend, schedule):
    """With weights that stay where they are a loss is linear in the weight of its divergence."""

    def losses(kl_weight):
        options = {**SMALL, "learning_rate": 1e-30}
        objective = backend.api.ELBO(kl_weight=kl_weight)
        return backend.fit(small_vae(backend), X, objective=objective, **options).losses

    without, whole = losses(0.0), losses(1.0)
    share = np.array([schedule(step) for step in range(12)])
    np.testing.assert_allclose(losses(schedule), without + share * (whole - without), rtol=1e-4)


@pytest.mark.parametrize("name", ["IWAE", "ForwardKL"])
def test_an_interrupted_run_is_resumed_bit_by_bit(backend, tmp_path, name):
    """Stopped within the climb of a schedule, in the third epoch."""
    schedule = {"num_particles": 3, "kl_weight": Cyclic(0.1, 1.0, period=16)}
    objective = getattr(backend.api, name)(**(schedule if name == "IWAE" else {}))
    options = {**SMALL, "objective": objective, "num_steps": 12}
    whole = backend.fit(small_vae(backend), X, **options)
    options["checkpoint"] = tmp_path / "run.npz"
    backend.fit(small_vae(backend), X, **{**options, "num_steps": 7})
    resumed = backend.fit(small_vae(backend), X, **options)
    np.testing.assert_array_equal(whole.losses, resumed.losses)
    assert_same_weights(weights(backend, whole), weights(backend, resumed))


# --- the guide refitted to a frozen model ---------------------------------------------------


def test_forward_kl_leaves_the_model_as_it_is(backend):
    """Bit by bit; and starts from the weights of the program that it is given."""
    fitted = backend.fit(small_vae(backend), X, **SMALL)
    before = weights(backend, fitted)
    refitted = backend.fit(fitted, X, objective="forward-kl", **SMALL)
    after = weights(backend, refitted)
    assert_same_weights(before, after, "decoder")
    assert all((before[n] != after[n]).any() for n in before if n.startswith("encoder"))


def test_forward_kl_has_no_gradient_of_the_model(backend):
    """Neither by x nor by z, though both are drawn with the model's parameters."""
    clear_parameters(backend)
    ppl, one = words(backend), real(backend, np.ones(()))

    def model(x):
        prior = ppl.param("prior", one + 0.0)
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(prior + 0 * x[:, 0], 1.0))
            loc = z[..., None] * ppl.param("weight", one + 0.0) + 0 * x
            ppl.sample("x", ppl.dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(x.sum(-1) * ppl.param("gain", one + 0.0), 1.0))

    objective, x = backend.api.ForwardKL(), real(backend, X)
    if backend.name == "numpyro":
        import jax

        params = dict.fromkeys(("prior", "weight", "gain"), one)
        gradient = jax.grad(lambda p: objective.loss(jax.random.key(0), p, model, guide, x))(params)
    else:
        import pyro

        objective.loss_and_grads(model, guide, x)
        gradient = {name: p.unconstrained().grad for name, p in pyro.get_param_store().items()}
    assert not gradient["prior"]
    assert not gradient["weight"]
    assert abs(gradient["gain"]) > 1


def test_a_fitted_program_is_trained_on(backend, tmp_path):
    fitted = backend.fit(small_vae(backend), X, **SMALL)
    before = weights(backend, fitted)
    again = backend.fit(fitted, X, learning_rate=1e-30, **SMALL)
    assert_same_weights(before, weights(backend, again))
    again.save(tmp_path / "vae.safetensors")
    assert (tmp_path / "vae.safetensors").exists()


PATTERNS = np.array([[1, 0, 1], [1, 1, 0]], bool)  # told apart by their second entry


def guide_per_pattern(backend):
    """A linear guide with a gain for each of the two masks, all of them 0 at first."""
    ppl = words(backend)
    zeros, ones = np.zeros((2, 3)), np.ones(2)

    def guide(x, mask):
        pattern = mask[:, 1] * 1
        gain = ppl.param("gain_of", real(backend, zeros))[pattern]
        loc = (gain * x).sum(-1) + ppl.param("shift_of", real(backend, 0 * ones))[pattern]
        positive = ppl.dist.constraints.positive
        scale = ppl.param("scale_of", real(backend, ones), constraint=positive)[pattern]
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z1", ppl.dist.Normal(loc, scale))

    return guide


def value_of(backend, fitted, name):
    if backend.name == "numpyro":
        return np.asarray(fitted.params[name])
    return importlib.import_module("pyro").param(name).detach().numpy()


def test_forward_kl_finds_the_posterior_of_incomplete_rows(backend):
    """One for each mask, whatever the data; Adam's noise leaves about 0.01 (s.d.)."""
    clear_parameters(backend)
    mask = np.repeat(PATTERNS, 200, 0)
    x = np.full(mask.shape, 50.0, "float32")
    model, _ = ONE.pair(backend)
    pair = model, guide_per_pattern(backend)
    options = {"num_steps": 1000, "batch_size": 200, "learning_rate": 0.01, "mask": mask}
    fitted = backend.fit(pair, x, objective="forward-kl", **options)
    gain, shift, scale = (value_of(backend, fitted, f"{n}_of") for n in ("gain", "shift", "scale"))
    for i, seen in enumerate(PATTERNS):
        exact = regression(WEIGHT[seen], NOISE**2 * np.eye(seen.sum()), BIAS[seen])
        np.testing.assert_allclose(gain[i][seen], exact["gain"], atol=0.06)
        np.testing.assert_array_equal(gain[i][~seen], 0)
        np.testing.assert_allclose(shift[i], exact["shift"], atol=0.06)
        np.testing.assert_allclose(scale[i], exact["scale"], atol=0.06)


def test_forward_kl_takes_discrete_latents_and_labels(backend):
    """z ~ Bernoulli(share[y]): the guide learns the shares from the draws alone."""
    ppl, share = words(backend), np.array([0.2, 0.7], "float32")
    zeros = np.zeros(2, "float32")

    def model(x, y):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Bernoulli(backend.array(share)[y]))
            ppl.sample("x", ppl.dist.Normal(0.0 * z[..., None] + 0 * x, 1.0).to_event(1), obs=x)

    def guide(x, y):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Bernoulli(logits=ppl.param("q", backend.array(zeros))[y]))

    y = backend.array(np.arange(400) % 2)
    options = {"num_steps": 300, "batch_size": 200, "learning_rate": 0.03}
    x = np.zeros((400, 2), "float32")
    fitted = backend.fit((model, guide), x, y, objective="forward-kl", **options)
    learned = 1 / (1 + np.exp(-value_of(backend, fitted, "q")))
    np.testing.assert_allclose(learned, share, atol=0.06)


# --- a guide that sees the mask -------------------------------------------------------------


def masked_encoder(backend, *sizes):
    return seeded(backend, backend.api.masked_encoder, 1, *sizes)


@pytest.mark.parametrize("event_shape", [(6,), (1, 5, 4)])
def test_a_masked_encoder_sees_the_mask_and_nothing_behind_it(backend, event_shape):
    encoder = masked_encoder(backend, event_shape, 2, (8,))
    x = RNG.normal(size=(7, *event_shape)).astype("float32")
    mask = RNG.random(x.shape) < 0.5

    def loc(x, mask=None):
        mask = None if mask is None else backend.array(mask)
        return seeded(backend, lambda *_: np.asarray(encoder(backend.array(x), mask=mask)[0]), 0)

    assert loc(x, mask).shape == (7, 2)
    for filler in (1e6, np.nan):
        np.testing.assert_array_equal(loc(x, mask), loc(np.where(mask, x, filler), mask))
    zeroed = np.where(mask, x, 0)
    assert (loc(zeroed, mask) != loc(zeroed)).any(1).all()
    np.testing.assert_array_equal(loc(x), loc(x, np.ones(x.shape, bool)))


def test_a_masked_encoder_trains_and_samples(backend):
    """Rows of which nothing is observed have a posterior of their own: the prior."""
    vae = small_vae(backend, encoder=masked_encoder(backend, (6,), 2, (8,)))
    x = np.where(MASK, X, np.nan)
    x[::2] = np.nan
    options = {"num_steps": 400, "batch_size": 24, "learning_rate": 0.02}
    fitted = backend.fit(vae, x, objective="stl", **options)
    loc, scale = location_and_scale(backend, fitted, x, ~np.isnan(x))
    unmasked, _ = location_and_scale(backend, fitted, x, np.ones(x.shape, bool))
    assert (np.abs(loc - unmasked)[::2] > 0.01).any(1).all()
    np.testing.assert_allclose(loc[::2], 0, atol=0.25)
    np.testing.assert_allclose(scale[::2], 1, atol=0.25)
    for name in ("MWGKernel", "LAIRKernel"):
        kernel = getattr(backend.api, name)(fitted.model, fitted.guide)
        draws = backend.draws(backend.run(kernel, backend.array(x[:5]), num_samples=4))["x"]
        assert np.isfinite(draws).all()


def location_and_scale(backend, fitted, x, mask):
    program = module(backend, "program").Program(
        fitted.model, fitted.guide, backend.array(np.nan_to_num(x)), backend.array(mask)
    )

    def run(*key):
        options = {"key": key[0]} if key else {}
        site = program.trace_guide(program.x_obs, **options)["z"]
        return np.asarray(site["fn"].base_dist.loc), np.asarray(site["fn"].base_dist.scale)

    return seeded(backend, run, 0)


def test_double_precision(backend):
    with double_precision(backend):
        vae = small_vae(backend, encoder=masked_encoder(backend, (6,), 2, (8,)))
        x = np.where(MASK, X, np.nan).astype(float)
        fitted = backend.fit(vae, x, objective="iwae", num_steps=2, batch_size=8)
        assert all(array.dtype == np.float64 for array in weights(backend, fitted).values())
