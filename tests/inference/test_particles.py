"""K particles in chunks, one encoder for all of them, and particles of no weight."""

import numpy as np
import pytest
from gaussian_chains import CONDITIONAL_TWO, ONE, TWO, flat
from host_words import clear_parameters, words
from kernel_parts import bind, both_backends, double_precision, module, real, seeded
from objective_runs import loss_and_gradient, losses
from scipy import stats
from scipy.special import logsumexp, softmax

RNG = np.random.default_rng(0)
X = 1.5 * RNG.normal(size=(6, 3))
MASK = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
LABEL = np.array([0.0, 1.0, -1.0, 1.0, 2.0, 0.5])
ALL = (
    "AnalyticELBO", "CIWAE", "DReG", "ELBO", "GDReG", "IWAE", "IWAESTL", "JVI", "NormalisedIWAE",
    "RWS", "RWSDReG", "Renyi", "STL",
)  # fmt: skip


# --- chunks ---------------------------------------------------------------------------------


TWO_SITES = ("AnalyticELBO", "DReG", "GDReG", "STL")  # whose gradients look into the sites
CHUNKED = [(name, ONE) for name in ALL] + [(name, CONDITIONAL_TWO) for name in TWO_SITES]


@pytest.mark.parametrize(("name", "chain"), CHUNKED)
def test_chunks_change_nothing(backend, name, chain):
    """Five particles two at a time: value and gradient as all at once, to rounding."""
    label = {"label": LABEL} if "prior_gain" in chain.parameters else {}
    make = getattr(backend.api, name)
    with double_precision(backend):
        whole, chunked = (
            loss_and_gradient(
                backend, make(num_particles=5, chunk_size=size), chain, X, mask=MASK, **label
            )
            for size in (5, 2)
        )
    np.testing.assert_allclose(chunked[0], whole[0], rtol=1e-12)
    np.testing.assert_allclose(chunked[1], whole[1], rtol=1e-10, atol=1e-12)


def wide_pair(backend):
    """A decoder of 300 hidden units for each latent, whose activations are what takes memory."""
    ppl, out = words(backend), real(backend, np.ones((300, 3)) / 300)

    def model(x):
        weight = ppl.param("weight", real(backend, np.ones((1, 300))))
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))
            hidden = (z[..., None] @ weight) ** 2
            ppl.sample("x", ppl.dist.Normal(hidden @ out, 1.0).to_event(1), obs=x)

    def guide(x):
        loc = x @ ppl.param("gain", real(backend, np.ones(3)))
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(loc, 1.0))

    return model, guide


def bytes_held(backend, objective, x):
    """What is held from the value to its gradient, in bytes."""
    clear_parameters(backend)
    pair = wide_pair(backend)
    if backend.name == "numpyro":
        import jax
        from jax import random

        params = {"weight": real(backend, np.ones((1, 300))), "gain": real(backend, np.ones(3))}
        gradient = jax.jit(jax.grad(lambda p: objective.loss(random.key(0), p, *pair, x)))
        return gradient.lower(params).compile().memory_analysis().temp_size_in_bytes
    import torch

    held = {}

    def hold(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        objective.differentiable_loss(*pair, x)
    return sum(held.values())


@pytest.mark.parametrize("name", ["IWAE", "RWS", "ELBO", "AnalyticELBO"])
def test_chunks_take_less_memory(backend, name):
    """A tenth of the particles at a time; all activations are 200 x 20 x 300 floats of 4 bytes."""
    rng = np.random.default_rng(0)
    x, make = real(backend, rng.normal(size=(20, 3))), getattr(backend.api, name)
    whole = bytes_held(backend, make(num_particles=200, chunk_size=200), x)
    chunked = bytes_held(backend, make(num_particles=200, chunk_size=20), x)
    assert whole > 200 * 20 * 300 * 4
    assert chunked < 0.4 * whole, (chunked, whole)


def test_a_processor_gets_some_two_thousand_rows_at_a_time(backend):
    """By default: 32 of 50 particles of 64 rows."""
    rng = np.random.default_rng(0)
    rows, model_and_guide = [], wide_pair(backend)
    x = real(backend, rng.normal(size=(64, 3)))

    def model(x):
        rows.append(len(x))
        model_and_guide[0](x)

    objective = backend.api.IWAE(num_particles=50)
    if backend.name == "pyro":
        losses(backend, objective, (model, model_and_guide[1]), x)
        assert rows == [32 * 64, 18 * 64]
        return
    import jax
    from jax import random

    params = {"weight": real(backend, np.ones((1, 300))), "gain": real(backend, np.ones(3))}
    loss = jax.make_jaxpr(lambda p: objective.loss(random.key(0), p, *model_and_guide, x))
    assert "[32,64,300]" in str(loss(params))
    assert "[50,64,300]" not in str(loss(params))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [0, -1, 2.0, True, "all"])
def test_bad_chunks(backend, name, size):
    with pytest.raises(ValueError, match=rf"chunk_size must be an integer >= 1.*got {size!r}"):
        getattr(backend.api, name)(chunk_size=size)


# --- one encoder ----------------------------------------------------------------------------


@pytest.mark.parametrize("chain", [ONE, TWO], ids=["one site", "two sites"])
@pytest.mark.parametrize("name", ALL)
def test_particles_share_the_encoder(backend, name, chain):
    """No hidden unit of a row has a copy for each particle, and five particles take three runs."""
    inner, (model, guide) = real(backend, np.ones((3, 17))), chain.pair(backend)
    encoded = []

    def with_encoder(x):
        hidden = x @ inner
        encoded.append(tuple(hidden.shape))
        guide(x + 0 * hidden.sum(-1, keepdims=True))

    objective, x = getattr(backend.api, name)(num_particles=5), real(backend, X)
    if backend.name == "pyro":
        losses(backend, objective, (model, with_encoder), X)
    else:
        import jax
        from jax import random

        params = chain.on(backend)
        loss = jax.make_jaxpr(
            jax.grad(lambda p: objective.loss(random.key(0), p, model, with_encoder, x))
        )
        assert "[5,6,17]" not in str(loss(params))
    assert set(encoded) == {(6, 17)}
    assert len(encoded) <= 3


def test_a_guide_that_torch_cannot_map_is_run_on_copies():
    """One that branches on its values; the means of 300 runs agree, false alarms 1e-5."""
    pytest.importorskip("pyro")
    import pyro

    _, backend = both_backends()
    with double_precision(backend):
        model, guide = TWO.pair(backend)
    rows = []

    def branching(x):
        rows.append(len(x))
        z1 = pyro.poutine.trace(guide).get_trace(x).nodes["z1"]["value"]
        guide(x)
        assert float(z1.sum()) < 1e9

    objective = backend.api.IWAE(num_particles=4)
    with double_precision(backend):
        mapped, copied = (
            losses(backend, objective, (model, fn), X, range(300)) for fn in (guide, branching)
        )
    assert rows[-1] == 4 * len(X)
    error = np.sqrt((mapped.var() + copied.var()) / 300)
    assert abs(mapped.mean() - copied.mean()) < stats.norm.isf(0.5e-5) * error


def test_the_first_run_draws_as_the_second(backend):
    """With one seed, though a guide's sites are not known before it has run."""
    pair, objective = TWO.pair(backend), backend.api.IWAE(num_particles=4)
    first, second = (losses(backend, objective, pair, X) for _ in range(2))
    np.testing.assert_array_equal(first, second)


# --- no weight ------------------------------------------------------------------------------

POSITIVE = np.abs(X)  # so that no row is left without any weight
A, B, GAIN, WEIGHT = 0.3, 0.7, 0.4, ONE.parameters["weight"]


def half_line(backend):
    """z ~ LogNormal(a, b) in the model, where the guide draws z ~ N(gain x_0, 1), also below 0."""
    ppl = words(backend)

    def model(x):
        a, b = (ppl.param(n, real(backend, v)) for n, v in (("a", A), ("b", B)))
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.LogNormal(a + 0 * x[:, 0], b))
            loc = z[..., None] * real(backend, WEIGHT)
            ppl.sample("x", ppl.dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x):
        gain = ppl.param("gain", real(backend, GAIN))
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(gain * x[:, 0], 1.0))

    return model, guide


class HalfLine:
    """In place of a `Chain`."""

    parameters = {"a": np.array(A), "b": np.array(B), "gain": np.array(GAIN)}  # noqa: RUF012

    def on(self, backend):
        return {name: real(backend, value) for name, value in self.parameters.items()}

    def pair(self, backend):
        return half_line(backend)


def drawn(backend, num_particles):
    """The draws of `loss_and_gradient` with its first seed, (K, B)."""
    clear_parameters(backend)
    program = bind(backend, half_line(backend), POSITIVE, np.ones(POSITIVE.shape, bool))
    if backend.name == "numpyro":
        from dataclasses import replace

        program = replace(program, params=HalfLine().on(backend))
        return np.asarray(
            seeded(backend, module(backend, "particles").draw, 0, program, num_particles)["z"]
        )
    sites = seeded(backend, module(backend, "particles").draw_particles, 0, program, num_particles)
    return np.asarray(sites["z"]["value"])


def by_hand(z, name):
    """Bound and gradient by (a, b, gain) of what has weight, at draws z (K, B)."""

    def log_prior(z):
        safe = np.where(z > 0, z, 1.0)
        return np.where(z > 0, stats.norm.logpdf(np.log(safe), A, B) - np.log(safe), -np.inf)

    loc = GAIN * POSITIVE[:, 0]
    log_x = stats.norm.logpdf(POSITIVE, z[..., None] * WEIGHT).sum(-1)
    log_weight = log_x + log_prior(z) - stats.norm.logpdf(z, loc)
    share, safe = softmax(log_weight, 0), np.where(z > 0, z, 1.0)
    noise = (np.log(safe) - A) / B
    slope_x = ((POSITIVE - safe[..., None] * WEIGHT) * WEIGHT).sum(-1)
    slope_p, slope_q = -(noise / B + 1) / safe, loc - safe
    slope = slope_x + slope_p - slope_q
    coefficient = {"DReG": share**2, "GDReG": share**2, "RWSDReG": share - share**2}
    path = coefficient.get(name, share) * slope  # of a draw z = gain x_0 + noise
    if name in ("IWAE", "NormalisedIWAE"):
        path = share * (slope + slope_q)  # and less what log q changes at the draw as it is
    if name == "RWS":
        path = -share * slope_q
    by_a, by_b = share * noise / B, share * (noise**2 - 1) / B
    if name == "GDReG":
        by_a = share * ((1 - share) * slope + slope_q - slope_p) * safe
        by_b = by_a * noise
    gradient = {"a": by_a.sum(), "b": by_b.sum(), "gain": (path.sum(0) * POSITIVE[:, 0]).sum()}
    return (logsumexp(log_weight, 0) - np.log(len(z))).sum(), flat(gradient)


WEIGHED = ["DReG", "GDReG", "IWAE", "IWAESTL", "NormalisedIWAE", "RWS", "RWSDReG"]


@pytest.mark.parametrize("name", WEIGHED)
def test_particles_without_weight_count_for_nothing(backend, name):
    """A prior on the half line: finite, and as by hand from what is left."""
    with double_precision(backend):
        z = drawn(backend, 8)
        objective = getattr(backend.api, name)(num_particles=8)
        loss, gradient = loss_and_gradient(backend, objective, HalfLine(), POSITIVE)
    assert ((z <= 0).any(0) & (z > 0).any(0)).sum() >= 4
    assert (z > 0).any(0).all()
    bound, exact = by_hand(z, name)
    if name != "NormalisedIWAE":
        np.testing.assert_allclose(-loss, bound, rtol=1e-10)
    np.testing.assert_allclose(-gradient, exact, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("name", "options"), [("JVI", {}), ("Renyi", {}), ("CIWAE", {"beta": 0})])
def test_other_bounds_are_finite_without_weight(backend, name, options):
    with double_precision(backend):
        objective = getattr(backend.api, name)(num_particles=8, **options)
        loss, gradient = loss_and_gradient(backend, objective, HalfLine(), POSITIVE)
    assert np.isfinite([loss, *gradient]).all()


@pytest.mark.parametrize("name", ["ELBO", "STL", "IWAE", "DReG"])
def test_no_weight_of_the_divergence_leaves_the_likelihood(backend, name):
    """0 times an infinite log p(z) is 0: the first step of a warm-up is finite."""
    with double_precision(backend):
        objective = getattr(backend.api, name)(num_particles=8, kl_weight=0.0)
        loss, gradient = loss_and_gradient(backend, objective, HalfLine(), POSITIVE)
    assert np.isfinite([loss, *gradient]).all()
