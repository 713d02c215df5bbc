"""Programs with stochastic layers: weights without a zero, their densities in numpy, their runs."""

from math import log, pi

import numpy as np
from host_words import words

from ppl_vae.weights import write_weights

__all__ = [
    "LABELS", "PATTERNS", "assert_close", "build", "by_hand", "first_weights", "labelled",
    "log_normal", "normal_block", "one_hot", "opened", "rows_for", "site_densities",
]  # fmt: skip

FEATURES = 6


def build(backend, num_layers=2, *, labels=False, **options):
    """A small program: `HierarchicalVAE`, or `ConditionalVAE` with three classes."""
    dims = (4, 3, 2)[:num_layers]
    hidden = ((7, 5), (6,), ())[:num_layers]
    options = {"hidden": hidden, **options}
    if labels:
        return backend.api.ConditionalVAE((FEATURES,), dims, 3, **options)
    return backend.api.HierarchicalVAE((FEATURES,), dims, **options)


def shapes_of(backend, program):
    if backend.name == "numpyro":
        return program.weight_shapes()
    return {name: array.shape for name, array in program.to_weights().items()}


def opened(backend, program, path, dtype=np.float64):
    """A `Fitted` with random weights by way of a file, and the weights."""
    rng = np.random.default_rng(3)
    shapes = sorted(shapes_of(backend, program).items())  # one order for both twins
    weights = {k: (0.5 * rng.normal(size=shape)).astype(dtype) for k, shape in shapes}
    write_weights(path, weights, {"architecture": program.architecture()})
    return backend.api.load(path), weights


def first_weights(backend, make, seed=0):
    """The weights that training starts from."""
    if backend.name == "numpyro":
        from jax import jit, random

        program = make()
        return program.to_weights(jit(program.initial_params)(random.key(seed)))
    import pyro

    pyro.set_rng_seed(seed)
    return make().to_weights()


def rows_for(program, num_rows=5, dtype=np.float64):
    """Rows, latents by site and labels."""
    rng = np.random.default_rng(4)
    record = program.record
    x = rng.integers(0, record.num_categories or 2, (num_rows, *record.event_shape))
    if record.likelihood == "normal":
        x = rng.normal(size=x.shape)
    z = {f"z{i}": rng.normal(size=(num_rows, d)) for i, d in enumerate(record.latent_dims, 1)}
    labels = rng.integers(0, record.num_classes or 1, num_rows)
    return x.astype(dtype), {k: v.astype(dtype) for k, v in z.items()}, labels


def site_densities(backend, fitted, x, z, *labels):
    """Log density of every site, by role and name."""
    handlers = words(backend).handlers
    fix = handlers.substitute if backend.name == "numpyro" else handlers.condition
    data = {name: backend.array(value) for name, value in z.items()}
    given = [backend.array(a) for a in (x, *labels)]
    found = {}
    for role, fn in (("p", fitted.model), ("q", fitted.guide)):
        trace = handlers.trace(fix(fn, data=data)).get_trace(*given)
        for name in (*z, "x") if role == "p" else z:
            site = trace[name] if backend.name == "numpyro" else trace.nodes[name]
            value = site["fn"].log_prob(site["value"])
            found[role, name] = np.asarray(value.detach() if backend.name == "pyro" else value)
    return found


# --- the same in numpy ----------------------------------------------------------------------


def log_normal(x, loc, scale):
    return (-0.5 * ((x - loc) / scale) ** 2 - np.log(scale) - 0.5 * log(2 * pi)).sum(-1)


def affine(weights, name, h):
    return h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def tanh_layers(weights, name, h):
    num_layers = sum(k.startswith(f"{name}.layers.") and k.endswith("weight") for k in weights)
    for i in range(num_layers - (name == "p_x")):
        h = np.tanh(affine(weights, f"{name}.layers.{i}", h))
    return affine(weights, f"{name}.layers.{num_layers - 1}", h) if name == "p_x" else h


def normal_block(weights, name, h):
    h = tanh_layers(weights, name, h)
    return affine(weights, f"{name}.loc", h), np.exp(affine(weights, f"{name}.log_scale", h))


def one_hot(labels, num_classes=3):
    return np.eye(num_classes)[labels]


def by_hand(weights, x, z, inputs=None, y=None):
    """Log density of every site of a program, as Burda et al. write it; `y` is one-hot."""
    nothing = np.zeros((len(x), 0))
    beside = nothing if y is None else y
    zs = list(z.values())
    top = len(zs)
    h = np.concatenate([x if inputs is None else inputs, beside], -1)
    found = {}
    for i, value in enumerate(zs, 1):
        found["q", f"z{i}"] = log_normal(value, *normal_block(weights, f"q_z{i}", h))
        h = value
    for i in range(1, top):
        found["p", f"z{i}"] = log_normal(zs[i - 1], *normal_block(weights, f"p_z{i}", zs[i]))
    learned = f"p_z{top}.loc.weight" in weights
    prior = normal_block(weights, f"p_z{top}", y) if learned else (0.0, np.ones(1))
    found["p", f"z{top}"] = log_normal(zs[-1], *prior)
    raw = tanh_layers(weights, "p_x", np.concatenate([zs[0], beside], -1))
    found["p", "x"] = log_likelihood(weights, x, raw)
    return found


def log_likelihood(weights, x, raw):
    if "likelihood.raw_scale" in weights:
        return log_normal(x, raw, np.logaddexp(weights["likelihood.raw_scale"], 0) + 0.01)
    if raw.shape == x.shape:
        return (x * raw - np.logaddexp(raw, 0)).sum(-1)
    logits = raw.reshape(*x.shape, -1)
    log_p = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    return np.take_along_axis(log_p, x.astype(int)[..., None], -1)[..., 0].sum(-1)


def assert_close(came, expected, rtol):
    assert came.keys() == expected.keys()
    for site, value in expected.items():
        np.testing.assert_allclose(came[site], value, rtol=rtol, err_msg=str(site))


PATTERNS = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0]])
LABELS = np.array([0, 1, 2, 2, 1, 0, 1])


def labelled(backend, path):
    """A program with two layers whose pixels the label all but decides, and incomplete rows."""
    program = backend.api.ConditionalVAE((6,), (2, 2), 3, ((), ()))
    _, weights = opened(backend, program, path, np.float32)
    weights = {k: 0.3 * w for k, w in weights.items()}
    weights["p_x.layers.0.weight"][:, 2:] = 8.0 * (PATTERNS.T - 0.5)
    write_weights(path, weights, {"architecture": program.architecture()})
    x = PATTERNS[LABELS].astype(np.float32)
    x[np.random.default_rng(5).random(x.shape) < 0.6] = np.nan
    return backend.api.load(path), x
