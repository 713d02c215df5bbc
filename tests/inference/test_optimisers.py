"""The optimisers of training: the host's own, and what is refused."""

import numpy as np
import pytest
from small_training import X, same, train, weights

from ppl_vae.schedules import Cosine, Stages

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
    default = weights(backend, train(backend))
    assert same(default, weights(backend, train(backend, learning_rate=1e-3)))
    assert same(default, weights(backend, train(backend, optimizer=own_adam(backend, 1e-3))))


def test_amsgrad(backend):
    """Its step is at most Adam's, for it divides by the largest second moment: another one."""
    options = {"num_steps": 60, "clip_norm": 1e3}
    rate = 0.02
    adam = train(backend, optimizer=own_adam(backend, rate), **options)
    amsgrad = train(backend, optimizer=own_adam(backend, rate, amsgrad=True), **options)
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
    start = weights(backend, train(backend, optimizer=rate_of_each_net(backend, 0.0, 0.0)))
    both = weights(backend, train(backend, learning_rate=0.01))
    fixed = weights(backend, train(backend, optimizer=rate_of_each_net(backend, 0.01, 0.0)))
    assert same(fixed, start, "decoder")
    assert not same(fixed, start, "encoder")
    assert not same(fixed, both, "encoder")
    falling = rate_of_each_net(backend, 0.01, Stages((0.01, 0.0), (3, 1)))
    stopped = weights(backend, train(backend, optimizer=falling))
    third = weights(backend, train(backend, num_steps=3, learning_rate=0.01))
    assert same(stopped, third, "decoder")
    assert not same(stopped, third, "encoder")


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
        train(backend, **options)


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


@pytest.mark.parametrize("kind", ["amsgrad", "each net"])
def test_own_optimisers_are_resumed_bit_by_bit(backend, tmp_path, kind):
    def run(num_steps, **options):
        if kind == "amsgrad":
            optimizer = own_adam(backend, Cosine(0.02, 0.0, 12), amsgrad=True)
        else:
            optimizer = rate_of_each_net(backend, 0.01, Cosine(0.02, 0.0, 12))
        return train(backend, num_steps=num_steps, optimizer=optimizer, **options)

    whole, path = run(12), tmp_path / "run.npz"
    run(7, checkpoint=path)
    resumed = run(12, checkpoint=path)
    np.testing.assert_array_equal(whole.losses, resumed.losses)
    assert same(weights(backend, whole), weights(backend, resumed))
