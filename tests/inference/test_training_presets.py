"""Presets of the optimisers of IWAE's sources, and staged learning rates."""

import numpy as np
import pytest
from host_words import clear_parameters, words
from small_training import same, train, weights

from ppl_vae.presets import PRESETS
from ppl_vae.schedules import Stages

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
    short = train(backend, num_steps=stages.ends[1], learning_rate=stages)
    longer = train(backend, num_steps=stages.ends[1] + 6, learning_rate=stages)
    np.testing.assert_array_equal(short.losses, longer.losses[:12])
    by_hand = Stages(PRESETS["paper"].rates[:2], (3, 9))
    same_rates = train(backend, num_steps=12, learning_rate=by_hand)
    assert same(weights(backend, short), weights(backend, same_rates))


@pytest.mark.parametrize("stopped_after", [6, 12, 13])
def test_interrupted_within_a_stage_and_resumed(backend, tmp_path, stopped_after):
    """In stage 1, at its end, and in stage 2; the moments of Adam and the rate go on."""
    preset = PRESETS["yburda"]
    stages = preset.stages(steps_per_epoch=3)

    def run(num_steps, **options):
        optimizer = backend.api.preset_optimizer(preset, stages)
        return train(backend, num_steps=num_steps, optimizer=optimizer, shuffle=False, **options)

    whole, path = run(18), tmp_path / "run.npz"
    run(stopped_after, checkpoint=path)
    resumed = run(18, checkpoint=path)
    np.testing.assert_array_equal(whole.losses, resumed.losses)
    assert same(weights(backend, whole), weights(backend, resumed))
