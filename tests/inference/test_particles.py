"""K particles in chunks, and one encoder for all of them."""

import numpy as np
import pytest
from gaussian_chains import CONDITIONAL_TWO, ONE, TWO
from host_words import clear_parameters, words
from kernel_parts import both_backends, double_precision, real
from objective_runs import loss_and_gradient, losses
from scipy import stats

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
        losses(backend, objective, (model, model_and_guide[1]), x)  # looks at the program, too
        rows.clear()
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
        losses(backend, objective, (model, with_encoder), X)  # the first looks at the program, too
        encoded.clear()
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
    assert len(encoded) <= (3 if backend.name == "pyro" else 4)  # the look at it is not computed


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
