"""The VAE programs: formulas in numpy, shapes, randomness, registration of weights."""

import pickle

import numpy as np
import pytest
from vae_cases import CASES, log_normal, rows_of, write_shaken

# Against formulas in numpy


def softplus(a):
    return np.logaddexp(a, 0)


def mlp(weights, net, h, num_layers):
    for i in range(num_layers):
        h = h @ weights[f"{net}.layers.{i}.weight"].T + weights[f"{net}.layers.{i}.bias"]
        h = np.maximum(h, 0) if i < num_layers - 1 else h
    return h


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ["mlp-bernoulli", "mlp-normal", "mlp-categorical"])
def test_log_densities_equal_their_formulas(twin, name, file):
    case = CASES[name]
    weights = write_shaken(file, twin, case, np.float64)
    x, z = rows_of(case, 7, np.float64)
    came = twin.log_densities(twin.load(file), x, z)

    raw = mlp(weights, "decoder", z, 3)
    inputs = x
    if name == "mlp-bernoulli":
        log_x = x * raw - softplus(raw)
    elif name == "mlp-normal":
        log_x = log_normal(x, raw, softplus(weights["likelihood.raw_scale"]) + 0.01)
    else:
        logits = raw.reshape(7, 11, 4)
        log_p = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
        log_x = np.take_along_axis(log_p, x.astype(int)[..., None], -1)[..., 0]
        inputs = np.eye(4)[x.astype(int)].reshape(7, -1)
    out = mlp(weights, "encoder", inputs, 3)
    log_q = log_normal(z, out[:, :3], softplus(out[:, 3:]) + 1e-4)

    np.testing.assert_allclose(came["x"], log_x.sum(-1), rtol=1e-10)
    np.testing.assert_allclose(came["z"], log_normal(z, 0, 1).sum(-1), rtol=1e-10)
    np.testing.assert_allclose(came["q"], log_q.sum(-1), rtol=1e-10)


# Shapes


@pytest.mark.parametrize("name", ["mlp-categorical", "matrix-bernoulli", "odd-conv-categorical"])
def test_any_number_of_rows_and_leading_axes(twin, name):
    case = CASES[name]
    fitted = twin.build(*case)
    x, z = rows_of(case, 6)
    all_rows = twin.log_densities(fitted, x, z)
    for part in (slice(0, 1), slice(2, 6)):
        some = twin.log_densities(fitted, x[part], z[part])
        for site in some:
            np.testing.assert_allclose(some[site], all_rows[site][part], rtol=1e-5)
    folded = twin.log_densities(fitted, x.reshape(2, 3, *case[0]), z.reshape(2, 3, -1))
    for site in folded:
        assert folded[site].shape == (2, 3)
        np.testing.assert_allclose(folded[site].ravel(), all_rows[site], rtol=1e-5)


@pytest.mark.parametrize("name", ["mlp-bernoulli", "mlp-categorical", "odd-conv-normal"])
def test_prior_draws_lie_in_the_support(twin, name):
    case = CASES[name]
    x = twin.draw(twin.build(*case), 4)
    assert x.shape == (4, *case[0])
    if "normal" not in case[3]:
        num_categories = 2 if case[3] == "bernoulli" else case[3][1]
        assert set(np.unique(x)) <= set(range(num_categories))


def test_prior_draws_depend_on_the_seed_only(twin):
    fitted = twin.build((11,), 3, (5,), "normal")
    x = twin.draw(fitted, 4)
    np.testing.assert_array_equal(x, twin.draw(fitted, 4))
    assert not np.array_equal(x, twin.draw(fitted, 4, seed=1))


@pytest.mark.parametrize("size", [(1, 4, 4), (1, 4, 9), (1, 1, 1)])
def test_images_of_any_size(twin, size):
    case = (size, 2, (3, 4, 5), "bernoulli")
    assert twin.log_densities(twin.build(*case), *rows_of(case, 2))["x"].shape == (2,)


def test_images_get_few_channels_by_default(twin):
    shapes = {k: w.shape for k, w in twin.weights(twin.build((1, 28, 28), 8)).items()}
    assert shapes["encoder.layers.0.weight"] == (32, 1, 3, 3)
    assert twin.weights(twin.build((64,), 8))["encoder.layers.0.weight"].shape == (200, 64)


def test_class_codes_may_be_whole_numbers(twin):
    case = CASES["mlp-categorical"]
    fitted = twin.build(*case)
    x, z = rows_of(case, 5)
    as_float = twin.log_densities(fitted, x, z)
    as_int = twin.log_densities(fitted, x.astype(np.int32), z)
    for site in as_float:
        np.testing.assert_array_equal(as_float[site], as_int[site])


# Randomness and registration


@pytest.mark.parametrize("case", [((30,), 5, (40, 20)), ((2, 8, 8), 5, (10, 12))])
def test_first_weights_are_alike(twin, case):
    """Glorot's uniform bound sqrt(6 / (fan_in + fan_out)), nearly reached; biases zero."""
    for name, array in twin.weights(twin.first(*case)).items():
        if name.endswith("bias"):
            assert not array.any()
            continue
        area = np.prod(array.shape[2:])
        bound = np.sqrt(6 / (area * (array.shape[0] + array.shape[1])))
        # P(max < 0.9 bound) is 0.9 ** size, below 1e-4 for the smallest layer, of 100 weights.
        assert 0.9 * bound < np.abs(array).max() <= bound * (1 + 1e-6)


def test_first_weights_depend_on_the_seed_only(twin):
    first, again, other = (twin.weights(twin.first((6,), 2, (5,), seed=s)) for s in (1, 1, 2))
    kernels = [name for name in first if name.endswith("weight")]
    assert all(np.array_equal(first[k], again[k]) for k in first)
    assert not any(np.array_equal(first[k], other[k]) for k in kernels)


def test_the_key_of_a_numpyro_run_decides_its_first_weights():
    numpyro = pytest.importorskip("numpyro")
    from ppl_vae.models.numpyro.vae import VAE

    vae = VAE((6,), 2, (5,), "normal")

    def first(key):
        with numpyro.handlers.seed(rng_seed=key), numpyro.handlers.trace() as sites:
            vae.model(num_rows=3)
        return {k: site["value"] for k, site in sites.items() if site["type"] == "param"}

    def kernel(key):
        return np.asarray(first(key)["decoder$params"]["layers"][0]["kernel"])

    assert set(first(1)) == {"decoder$params", "likelihood$params"}
    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert not np.array_equal(kernel(1), kernel(2))


def test_numpyro_program_runs_unseeded_under_jit_and_vmap():
    jax = pytest.importorskip("jax")
    numpyro = pytest.importorskip("numpyro")
    from ppl_vae.models.numpyro.vae import VAE

    case = ((1, 7, 5), 2, (3,), "normal")
    vae = VAE(*case)
    params = vae.initial_params(jax.random.key(0))
    x, z = rows_of(case, 4)

    def log_prob(params, x, z):
        data = {**params, "z": z}
        sites = numpyro.handlers.trace(numpyro.handlers.substitute(vae.model, data)).get_trace(x)
        return sites["x"]["fn"].log_prob(x)

    plain = log_prob(params, x, z)
    rows = (x.reshape(2, 2, *case[0]), z.reshape(2, 2, -1))
    mapped = jax.jit(jax.vmap(log_prob, (None, 0, 0)))(params, *rows)
    np.testing.assert_allclose(mapped.ravel(), plain, rtol=1e-5)
    # A tracer left behind by the compiled call would make this one fail.
    np.testing.assert_array_equal(log_prob(params, x, z), plain)
    with pytest.raises(ValueError, match=r"decoder\$params has no value: seed the program"):
        log_prob({}, x, z)


def test_numpyro_svi_trains():
    jax = pytest.importorskip("jax")
    numpyro = pytest.importorskip("numpyro")
    from numpyro.infer import SVI, Trace_ELBO

    from ppl_vae.models.numpyro.vae import VAE

    vae = VAE((6,), 2, (16,), "normal")
    x = np.random.default_rng(0).normal(3.0, 0.5, (64, 6)).astype(np.float32)
    svi = SVI(vae.model, vae.guide, numpyro.optim.Adam(1e-2), Trace_ELBO())
    losses = svi.run(jax.random.key(0), 300, x, progress_bar=False).losses
    # One unit of scale at a wrong mean of 3 costs 4.5 nats a feature; a fitted one less than 1.
    assert losses[0] > 64 * 6 * 4 > 64 * 6 * 1.2 > losses[-1]


def test_pyro_svi_trains_the_second_vae_of_a_process():
    """Pyro's store keeps the first tensor of a name; ours must list the VAE that runs."""
    pyro = pytest.importorskip("pyro")
    import torch
    from pyro.infer import SVI, Trace_ELBO

    from ppl_vae.models.pyro.vae import VAE

    x = torch.from_numpy(np.random.default_rng(0).normal(3.0, 0.5, (64, 6)).astype(np.float32))
    for seed in (0, 1):
        pyro.set_rng_seed(seed)
        vae = VAE((6,), 2, (16,), "normal")
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        losses = [svi.step(x) for _ in range(300)]
        assert losses[0] > 64 * 6 * 4 > 64 * 6 * 1.2 > losses[-1]
    pyro.clear_param_store()


def test_pyro_program_can_be_pickled_after_a_run():
    pytest.importorskip("pyro")
    import torch

    from ppl_vae.models.pyro.vae import VAE

    vae = VAE((6,), 2, (5,))
    vae.guide(vae.model(num_rows=3))
    copy = pickle.loads(pickle.dumps(vae))
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), copy.parameters(), strict=True))


def test_frozen_pyro_weights_stay_frozen_and_unlisted():
    pyro = pytest.importorskip("pyro")
    from ppl_vae.models.pyro.vae import VAE

    pyro.clear_param_store()
    vae = VAE((6,), 2, (5,)).requires_grad_(False)
    vae.guide(vae.model(num_rows=3))
    assert len(list(pyro.get_param_store().keys())) == 0
    assert not any(parameter.requires_grad for parameter in vae.parameters())
