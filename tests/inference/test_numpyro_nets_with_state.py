"""Nets that keep a state (running means) or draw besides their sites (dropout), trained in NumPyro.

The bound's value is the same for IWAE, DReG, GDReG, RWS and RWSDReG, draw by draw.
"""

import numpy as np
import pytest

pytest.importorskip("numpyro")

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from flax import nnx
from jax import random
from numpyro import handlers
from numpyro.contrib.module import nnx_module
from numpyro.infer import SVI, Trace_ELBO

from ppl_vae.numpyro import (
    ELBO,
    IWAE,
    MCMC,
    RWS,
    STL,
    DReG,
    Fitted,
    GDReG,
    MWGKernel,
    RWSDReG,
    fit,
    fit_replicas,
    gradient_quality,
)

X = np.random.default_rng(0).normal(2, 3, (24, 4)).astype("float32")
KINDS = ["nnx dropout", "batch norm", "keyed dropout"]
MOMENTUM = 0.9


class KeyedDropout:
    """Asks NumPyro for its keys, as flax linen modules do with `apply_rng`."""

    def __call__(self, h):
        return jnp.where(random.bernoulli(numpyro.prng_key(), 0.5, h.shape), 2 * h, 0)


class Net(nnx.Module):
    def __init__(self, num_in, num_out, kind, rngs):
        self.first = nnx.Linear(num_in, 8, rngs=rngs)
        self.last = nnx.Linear(8, num_out, rngs=rngs)
        make = {
            "nnx dropout": lambda: nnx.Dropout(0.5, rngs=rngs),
            "batch norm": lambda: nnx.BatchNorm(8, momentum=MOMENTUM, rngs=rngs),
            "keyed dropout": KeyedDropout,
        }
        self.between = make[kind]()

    def __call__(self, x):
        return self.last(nnx.relu(self.between(self.first(x))))


class Programs:
    """A model and a guide with nets of one kind."""

    def __init__(self, kind):
        rngs = nnx.Rngs(0)
        self.encoder, self.decoder = Net(4, 4, kind, rngs), Net(2, 4, kind, rngs)

    def model(self, x):
        decoder = nnx_module("decoder", self.decoder)
        with numpyro.plate("rows", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            numpyro.sample("x", dist.Normal(decoder(z), 0.5).to_event(1), obs=x)

    def guide(self, x):
        loc, raw = jnp.split(nnx_module("encoder", self.encoder)(x), 2, -1)
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("z", dist.Normal(loc, 0.01 * jnp.exp(raw)).to_event(1))

    def eval(self):
        self.encoder.eval()
        self.decoder.eval()


def one_step(kind, objective):
    """SVI's state before and after a step that changes no weight, and the loss."""
    programs = Programs(kind)
    svi = SVI(programs.model, programs.guide, optax.sgd(0.0), objective)
    before = svi.init(random.key(0), X)
    after, loss = jax.jit(svi.update)(before, X)
    return before, after, float(loss)


def fitted(programs, **options):
    options = {"num_steps": 12, "batch_size": 8, "progress_bar": False, **options}
    return fit(random.key(0), (programs.model, programs.guide), X, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_run_of_the_guide_is_that_of_the_draw(kind):
    *_, expected = one_step(kind, IWAE(num_particles=4))
    for objective in (DReG, GDReG, RWS, RWSDReG):
        *_, found = one_step(kind, objective(num_particles=4))
        assert found == pytest.approx(expected, rel=1e-5), objective.__name__


@pytest.mark.parametrize("kind", KINDS)
def test_sticking_the_landing_has_the_value_of_the_bound(kind):
    found = [one_step(kind, objective(num_particles=4))[-1] for objective in (STL, ELBO)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("kind", ["nnx dropout", "keyed dropout"])
def test_each_step_drops_others(kind):
    """The guide is all but deterministic, so that only what is dropped moves the loss."""
    programs = Programs(kind)
    svi = SVI(programs.model, programs.guide, optax.sgd(0.0), ELBO(num_particles=200))
    state, losses, update = svi.init(random.key(0), X), [], jax.jit(svi.update)
    for _ in range(3):
        state, loss = update(state, X)
        losses.append(float(loss))
    assert np.ptp(losses) > 0.01 * losses[0], losses


@pytest.mark.parametrize(
    "objective",
    [Trace_ELBO(), ELBO(), IWAE(num_particles=5)],
    ids=["the host's ELBO", "ELBO", "IWAE"],
)
def test_running_means_follow_the_batch(objective):
    """As with the host's own objective: those of the encoder at x, of the decoder at its draws."""
    before, after, _ = one_step("batch norm", objective)
    encoder, decoder = Programs("batch norm").encoder, Programs("batch norm").decoder
    units = _linear(encoder.first, X)
    old, new = (s.mutable_state["encoder$state"]["state"]["between"] for s in (before, after))
    for name, of_batch in (("mean", units.mean(0)), ("var", units.var(0))):
        expected = MOMENTUM * old[name] + (1 - MOMENTUM) * of_batch
        np.testing.assert_allclose(new[name], expected, rtol=1e-4)
    relu = np.maximum((units - units.mean(0)) / (units.std(0) + 1e-5), 0)
    z = _linear(encoder.last, relu)[:, :2]
    old, new = (s.mutable_state["decoder$state"]["state"]["between"] for s in (before, after))
    of_batch = (new["mean"] - MOMENTUM * old["mean"]) / (1 - MOMENTUM)
    np.testing.assert_allclose(of_batch, _linear(decoder.first, z).mean(0), atol=0.05)


def _linear(layer, h):
    return h @ np.asarray(layer.kernel) + np.asarray(layer.bias)


def test_evaluation_mode_uses_what_training_kept():
    programs = Programs("batch norm")
    result = fitted(programs, num_steps=30, objective="iwae", learning_rate=1e-2)
    programs.eval()
    kept = result.params["encoder$state"]["state"]["between"]
    weights = result.params["encoder$params"]
    units = X @ weights["first"]["kernel"] + weights["first"]["bias"]
    norm = weights["between"]
    units = (units - kept["mean"]) / np.sqrt(kept["var"] + 1e-5) * norm["scale"] + norm["bias"]
    loc = (np.maximum(units, 0) @ weights["last"]["kernel"] + weights["last"]["bias"])[:, :2]
    sites = handlers.trace(handlers.seed(result.guide, 0)).get_trace(X)
    np.testing.assert_allclose(sites["z"]["fn"].base_dist.loc, loc, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS[:2])
def test_state_goes_through_checkpoints_and_replicas(kind, tmp_path):
    programs = Programs(kind)
    whole = fitted(programs, shuffle=True)
    options = {"shuffle": True, "checkpoint": tmp_path / "a.checkpoint"}
    fitted(programs, **options, num_steps=5)
    resumed = fitted(programs, **options)
    expected, found = _leaves(whole.params), _leaves(resumed.params)
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)

    key, options = random.key(3), {"num_steps": 12, "batch_size": 8, "progress_bar": False}
    pair = (programs.model, programs.guide)
    replica = fit_replicas(key, lambda: pair, X, num_replicas=2, **options)[1]
    alone = fit(random.split(key, 2)[1], pair, X, **options)
    assert _leaves(alone.params).keys() == _leaves(replica.params).keys()
    np.testing.assert_allclose(replica.losses, alone.losses, rtol=1e-3)


def test_gradients_are_those_of_the_trained_state():
    programs = Programs("batch norm")
    result = fitted(programs, num_steps=30, learning_rate=1e-2)
    programs.eval()
    key, params = random.key(5), result.params
    quality = gradient_quality(key, result, X[:6], num_particles=(2,), num_draws=3)
    state = {name: value for name, value in params.items() if name.endswith("$state")}
    pair = (handlers.substitute(fn, data=state) for fn in (programs.model, programs.guide))
    weights = {name: value for name, value in params.items() if name not in state}
    same = gradient_quality(
        key, Fitted(tuple(pair), weights), X[:6], num_particles=(2,), num_draws=3
    )
    np.testing.assert_allclose(quality.norm, same.norm, rtol=1e-5)


def _leaves(params):
    def raw(leaf):
        return random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf

    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path): np.asarray(raw(leaf)) for path, leaf in leaves}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_kernels_want_evaluation_mode(kind, role):
    programs = Programs(kind)
    result = fitted(programs)
    if kind == "keyed dropout":  # it has no evaluation mode
        getattr(programs, {"encoder": "decoder", "decoder": "encoder"}[role]).between = lambda h: h
    else:
        programs.eval()
        getattr(programs, role).train()
    x = np.where(np.arange(4) < 2, X, np.nan)

    def run():
        kernel = MWGKernel(result.model, result.guide)
        mcmc = MCMC(kernel, num_warmup=1, num_samples=3, progress_bar=False)
        mcmc.run(random.key(1), x)
        return mcmc.get_samples()["x"]

    with pytest.raises(ValueError, match=r"rows of the (guide|model) are not|evaluation mode"):
        run()
    if kind != "keyed dropout":
        programs.eval()
        assert np.isfinite(run()).all()
