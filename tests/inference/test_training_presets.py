"""Optimisers of training: the host's own, the presets of IWAE's sources, and staged rates."""

import numpy as np
import pytest
from host_words import clear_parameters, words

from ppl_vae.presets import PRESETS
from ppl_vae.schedules import Cosine, Stages

RNG = np.random.default_rng(0)
X = (RNG.random((24, 6)) < 0.4).astype("float32")
SMALL = {"num_steps": 9, "batch_size": 8}


def small_vae(backend):
    """A VAE whose first weights are the same at every call."""
    if backend.name == "pyro":
        import pyro

        pyro.set_rng_seed(1)
    return backend.api.VAE((6,), 2, hidden=(8,))


def fit(backend, **options):
    return backend.fit(small_vae(backend), X, **{**SMALL, **options})


def weights(backend, fitted):
    params = (fitted.params,) if backend.name == "numpyro" else ()
    return fitted.program.to_weights(*params)


def same(one, other, part=""):
    names = [name for name in one if name.startswith(part)]
    assert names
    return all(np.array_equal(one[name], other[name]) for name in names)


# --- the host's own optimiser ----------------------------------------------------------------


def own_adam(backend, learning_rate, **options):
    """Adam of the host's own words."""
    if backend.name == "pyro":
        import pyro

        return pyro.optim.Adam({"lr": learning_rate, "fused": True, **options})
    import optax

    make = optax.amsgrad if options.pop("amsgrad", False) else optax.adam
    return make(learning_rate, **options)


def test_the_default_is_adam(backend):
    default = weights(backend, fit(backend))
    assert same(default, weights(backend, fit(backend, learning_rate=1e-3)))
    assert same(default, weights(backend, fit(backend, optimizer=own_adam(backend, 1e-3))))


def test_amsgrad(backend):
    """Its step is at most Adam's, for it divides by the largest second moment: another one."""
    options = {"num_steps": 60, "clip_norm": 1e3}
    rate = 0.02
    adam = fit(backend, optimizer=own_adam(backend, rate), **options)
    amsgrad = fit(backend, optimizer=own_adam(backend, rate, amsgrad=True), **options)
    assert not same(weights(backend, adam), weights(backend, amsgrad))
    assert amsgrad.losses[-15:].mean() < amsgrad.losses[:15].mean() - 0.1


def rate_of_each_net(backend, encoder, decoder):
    """One learning rate for the guide's net and one for the model's."""
    rates = {"encoder": encoder, "decoder": decoder}
    if backend.name == "pyro":
        import pyro

        return pyro.optim.Adam(lambda name: {"lr": rates[name.split("$")[0]], "fused": True})
    import optax

    nets = {net: optax.adam(rate) for net, rate in rates.items()}
    return optax.multi_transform(nets, lambda params: {n: n.split("$")[0] for n in params})


def test_a_learning_rate_for_each_net(backend):
    """That of the decoder is zero, or zero from step 3 on."""
    start = weights(backend, fit(backend, optimizer=rate_of_each_net(backend, 0.0, 0.0)))
    both = weights(backend, fit(backend, learning_rate=0.01))
    fixed = weights(backend, fit(backend, optimizer=rate_of_each_net(backend, 0.01, 0.0)))
    assert same(fixed, start, "decoder")
    assert not same(fixed, start, "encoder")
    assert not same(fixed, both, "encoder")
    falling = rate_of_each_net(backend, 0.01, Stages((0.01, 0.0), (3, 1)))
    stopped = weights(backend, fit(backend, optimizer=falling))
    third = weights(backend, fit(backend, num_steps=3, learning_rate=0.01))
    assert same(stopped, third, "decoder")
    assert not same(stopped, third, "encoder")


def test_the_gradient_is_that_of_the_mean_loss_per_row(backend):
    """Plain descent: one step is the learning rate times the gradient, the same in both twins."""
    if backend.name == "pyro":
        import pyro

        optimizer = pyro.optim.SGD({"lr": 0.1})
    else:
        import optax

        optimizer = optax.sgd(0.1)
    for rows in (1, 20):
        offset = descend(backend, optimizer, batch_size=rows)
        np.testing.assert_allclose(offset, -0.1 * G.sum(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": "adam"}, TypeError, r"optimizer must be.*got str"),
        ({"optimizer": "own", "learning_rate": 1e-3}, ValueError, r"learning_rate=0\.001.*own"),
    ],
)
def test_bad_optimisers(backend, options, error, message):
    if options["optimizer"] == "own":
        options = {**options, "optimizer": own_adam(backend, 1e-3)}
    with pytest.raises(error, match=message):
        fit(backend, **options)


def test_pyro_optimisers_with_a_scheduler_or_a_clip_of_their_own():
    pyro = pytest.importorskip("pyro")
    from torch.optim.lr_scheduler import StepLR

    from ppl_vae.pyro import VAE, fit

    options = {"optimizer": torch_adam(), "optim_args": {"lr": 0.1}, "step_size": 1}
    with pytest.raises(TypeError, match=r"schedule of ppl_vae\.schedules, got PyroLRScheduler"):
        fit(VAE((6,), 2), X, optimizer=pyro.optim.PyroLRScheduler(StepLR, options), num_steps=1)
    clipped = pyro.optim.Adam({"lr": 0.1}, {"clip_norm": 1.0})
    with pytest.raises(ValueError, match="Give clip_norm to fit"):
        fit(VAE((6,), 2), X, optimizer=clipped, num_steps=1)


def torch_adam():
    import torch

    return torch.optim.Adam


# --- presets ---------------------------------------------------------------------------------

# Gradients of eight steps: of three parameters, for the last of which eps is all that counts.
G = np.random.default_rng(1).normal(size=(8, 3)) * [0.3, 1e-3, 1e-6] + [0.1, 1e-3, 1e-6]
RATES = np.array([1e-2] * 3 + [3e-3] * 5)
STAGES = Stages((1e-2, 3e-3), (3, 5))


def descend(backend, optimizer, *, batch_size=20):
    """Eight steps from zero of a parameter whose gradient at each step is known: G."""
    ppl = words(backend)
    clear_parameters(backend)

    def model(x):
        offset = ppl.param("offset", backend.array(np.zeros(3, "float32")))
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            zero = offset - without_gradient(backend, offset)
            ppl.sample("x", ppl.dist.Normal(zero + 0 * z + 0 * x, 1.0).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1))

    x = np.repeat(-G, batch_size, 0).astype("float32")  # d log N(x; 0, 1) / d loc = x
    options = {"num_steps": 8, "batch_size": batch_size, "shuffle": False}
    fitted = backend.fit((model, guide), backend.array(x), optimizer=optimizer, **options)
    if backend.name == "numpyro":
        return np.asarray(fitted.params["offset"])
    import pyro

    return pyro.param("offset").detach().numpy()


def without_gradient(backend, value):
    if backend.name == "pyro":
        return value.detach()
    import jax

    return jax.lax.stop_gradient(value)


def adam_of_the_paper(mean_gradients, rates):
    """Kingma and Ba, algorithm 1, with the eps of Burda et al., on the sum over 20 rows."""
    theta, m, v = 0.0, 0.0, 0.0
    for t, (g, alpha) in enumerate(zip(20 * mean_gradients, rates, strict=True), start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        theta = theta - alpha * m_hat / (np.sqrt(v_hat) + 1e-4)
    return theta


def adam_of_yburda(mean_gradients, rates):
    """Theano makes all updates at once: a step sees the moments that the last one left behind."""
    theta, m, v, timestep = 0.0, 0.0, 1.0, 1
    for g, learning_rate in zip(20 * mean_gradients, rates, strict=True):
        alpha = learning_rate * np.sqrt(1 - 0.999**timestep) / (1 - 0.99**timestep)
        new_theta = theta - alpha * m / (np.sqrt(v) + 1e-4)
        new_m, new_v = 0.99 * m + 0.01 * g, 0.999 * v + 0.001 * g**2
        theta, m, v, timestep = new_theta, new_m, new_v, timestep + 1
    return theta


def adam_of_nbip(mean_gradients, rates):
    """That of Keras, whose epsilon is the paper's epsilon hat."""
    theta, m, v = 0.0, 0.0, 0.0
    for t, (g, learning_rate) in enumerate(zip(mean_gradients, rates, strict=True), start=1):
        m = m + (g - m) * 0.1
        v = v + (g**2 - v) * 0.001
        alpha = learning_rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        theta = theta - alpha * m / (np.sqrt(v) + 1e-4)
    return theta


ADAMS = {"paper": adam_of_the_paper, "yburda": adam_of_yburda, "nbip": adam_of_nbip}


@pytest.mark.parametrize("name", ADAMS)
def test_the_steps_of_a_preset(backend, name):
    """Against a loop by hand; 1 - 0.999^t has four digits in single precision."""
    offset = descend(backend, backend.api.preset_optimizer(PRESETS[name], STAGES))
    np.testing.assert_allclose(offset, ADAMS[name](G, RATES), rtol=3e-4, atol=1e-9)


def test_the_presets_are_told_apart():
    steps = {name: adam(G, RATES) for name, adam in ADAMS.items()}
    for one, other in (("paper", "yburda"), ("paper", "nbip"), ("yburda", "nbip")):
        assert (np.abs(steps[one] / steps[other] - 1) > 0.05).sum() >= 2


def test_a_number_is_a_learning_rate_of_a_preset(backend):
    offset = descend(backend, backend.api.preset_optimizer(PRESETS["nbip"], 1e-2))
    expected = adam_of_nbip(G, np.full(8, 1e-2))
    np.testing.assert_allclose(offset, expected, rtol=3e-4, atol=1e-9)


def test_batches_and_rates_of_the_presets():
    assert {name: preset.shuffle for name, preset in PRESETS.items()} == {
        "paper": False, "yburda": False, "nbip": True,
    }  # fmt: skip
    assert {preset.batch_size for preset in PRESETS.values()} == {20}
    assert PRESETS["paper"].rates == PRESETS["nbip"].rates
    rounded = np.array([10, 7.2, 5.2, 3.7, 2.7, 1.9, 1.4, 1]) * 1e-4
    np.testing.assert_allclose(PRESETS["yburda"].rates, rounded, rtol=1e-12)
    exact = [1e-3 * 10 ** (-i / 7) for i in range(8)]
    np.testing.assert_allclose(PRESETS["paper"].rates, exact, rtol=1e-12)


# --- stages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_eight_stages_of_3280_epochs(backend, name):
    preset = PRESETS[name]
    stages = preset.stages(2980)
    assert stages.ends == tuple(2980 * n for n in (1, 4, 13, 40, 121, 364, 1093, 3280))
    for i, end in enumerate(stages.ends):
        for step in (end - 1, backend.array(end - 1)):
            assert float(stages(step)) == pytest.approx(preset.rates[i], rel=1e-6)
        if i < 7:
            assert stages(end) == preset.rates[i + 1]
    assert stages(stages.ends[-1] + 5) == preset.rates[-1]
    assert stages(0) == preset.rates[0] == 1e-3


@pytest.mark.parametrize(
    ("values", "lengths", "message"),
    [
        ((), (), "one length for each value, got 0 values"),
        ((1.0, 2.0), (1,), "one length for each value, got 2 values and 1 lengths"),
        ((1.0, 2.0), (1, 0), "the length of a stage must be at least 1, got 0"),
    ],
)
def test_bad_stages(values, lengths, message):
    with pytest.raises(ValueError, match=message):
        Stages(values, lengths)


def test_a_shortened_schedule_keeps_the_rates_of_its_stages(backend):
    """The first two stages alone are the beginning of all eight, step by step."""
    stages = PRESETS["paper"].stages(steps_per_epoch=3)
    short = fit(backend, num_steps=stages.ends[1], learning_rate=stages)
    longer = fit(backend, num_steps=stages.ends[1] + 6, learning_rate=stages)
    np.testing.assert_array_equal(short.losses, longer.losses[:12])
    by_hand = Stages(PRESETS["paper"].rates[:2], (3, 9))
    same_rates = fit(backend, num_steps=12, learning_rate=by_hand)
    assert same(weights(backend, short), weights(backend, same_rates))


@pytest.mark.parametrize("stopped_after", [6, 12, 13])
def test_interrupted_within_a_stage_and_resumed(backend, tmp_path, stopped_after):
    """In stage 1, at its end, and in stage 2; the moments of Adam and the rate go on."""
    preset = PRESETS["yburda"]
    stages = preset.stages(steps_per_epoch=3)

    def run(num_steps, **options):
        optimizer = backend.api.preset_optimizer(preset, stages)
        return fit(backend, num_steps=num_steps, optimizer=optimizer, shuffle=False, **options)

    whole, path = run(18), tmp_path / "run.npz"
    run(stopped_after, checkpoint=path)
    resumed = run(18, checkpoint=path)
    np.testing.assert_array_equal(whole.losses, resumed.losses)
    assert same(weights(backend, whole), weights(backend, resumed))


@pytest.mark.parametrize("kind", ["amsgrad", "each net"])
def test_own_optimisers_are_resumed_bit_by_bit(backend, tmp_path, kind):
    def run(num_steps, **options):
        if kind == "amsgrad":
            optimizer = own_adam(backend, Cosine(0.02, 0.0, 12), amsgrad=True)
        else:
            optimizer = rate_of_each_net(backend, 0.01, Cosine(0.02, 0.0, 12))
        return fit(backend, num_steps=num_steps, optimizer=optimizer, **options)

    whole, path = run(12), tmp_path / "run.npz"
    run(7, checkpoint=path)
    resumed = run(12, checkpoint=path)
    np.testing.assert_array_equal(whole.losses, resumed.losses)
    assert same(weights(backend, whole), weights(backend, resumed))


# --- a checkpoint of another run -------------------------------------------------------------


def test_a_checkpoint_of_another_preset(backend, tmp_path):
    """Same shapes everywhere: only the numbers inside the optimiser tell them apart."""

    def run(name, rate=1e-3):
        optimizer = backend.api.preset_optimizer(PRESETS[name], rate)
        return fit(backend, optimizer=optimizer, checkpoint=tmp_path / "run.npz")

    run("paper")
    with pytest.raises(ValueError, match=r"another run: optimizer was .*gradient='sum'.* and is "):
        run("nbip")
    with pytest.raises(ValueError, match=r"another run: optimizer was .*0\.001.* and is .*0\.002"):
        run("paper", rate=2e-3)
    run("paper")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "iwae"}, "objective was 'elbo' and is 'iwae'"),
        ({"batch_size": 6}, "batch_size was 8 and is 6"),
        ({"shuffle": False}, "shuffle was True and is False"),
        ({"clip_norm": 1.0}, r"clip_norm was None and is 1\.0"),
        ({"learning_rate": 1e-2}, r"learning_rate was None and is 0\.01"),
        ({"learning_rate": Cosine(1e-2, 0.0, 9)}, r"learning_rate was None and is Cosine\("),
        ({"transform": "own"}, r"transform was None and is .*plus_noise"),
        ({"mask": X > 2}, "data was"),
    ],
    ids=str,
)
def test_a_checkpoint_of_other_settings(backend, tmp_path, change, message):
    def plus_noise(*key_and_x):
        return key_and_x[-1]

    if "transform" in change:
        change = {"transform": plus_noise}
    fit(backend, checkpoint=tmp_path / "run.npz")
    with pytest.raises(ValueError, match=rf"belongs to another run: {message}.*Remove it"):
        fit(backend, checkpoint=tmp_path / "run.npz", **change)


def test_settings_inside_an_objective(backend, tmp_path):
    path = tmp_path / "run.npz"
    fit(backend, objective=backend.api.IWAE(num_particles=3), checkpoint=path)
    with pytest.raises(ValueError, match=r"objective was .*num_particles=3.*num_particles=4"):
        fit(backend, objective=backend.api.IWAE(num_particles=4), checkpoint=path)
