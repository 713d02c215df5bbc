"""The guide refitted by the forward KL divergence: the model stays, the posterior is found."""

import importlib

import numpy as np
from gaussian_chains import BIAS, NOISE, ONE, WEIGHT, regression
from host_words import clear_parameters, words
from kernel_parts import real
from small_training import SMALL, X, same, small_vae, weights


def test_forward_kl_leaves_the_model_as_it_is(backend):
    """Bit by bit; and starts from the weights of the program that it is given."""
    fitted = backend.fit(small_vae(backend), X, **SMALL)
    before = weights(backend, fitted)
    refitted = backend.fit(fitted, X, objective="forward-kl", **SMALL)
    after = weights(backend, refitted)
    assert same(before, after, "decoder")
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
    assert same(before, weights(backend, again))
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
