"""`HierarchicalVAE`: densities from the weights by hand, first weights, bad input."""

import importlib

import numpy as np
import pytest
from kernel_parts import both_backends, double_precision
from layered_cases import (
    assert_close,
    build,
    by_hand,
    first_weights,
    opened,
    rows_for,
    site_densities,
)

PROGRAMS = {
    "one layer": {"num_layers": 1},
    "two layers": {"num_layers": 2},
    "three layers": {"num_layers": 3},
    "normal": {"num_layers": 2, "likelihood": "normal"},
    "categorical": {"num_layers": 2, "likelihood": ("categorical", 4)},
    "labels, one layer": {"num_layers": 1, "labels": True},
    "labels, three layers": {"num_layers": 3, "labels": True},
    "labels, standard prior": {"num_layers": 2, "labels": True, "prior": "standard"},
    "labels, normal": {"num_layers": 2, "labels": True, "likelihood": "normal"},
}
each_program = pytest.mark.parametrize("options", PROGRAMS.values(), ids=PROGRAMS.keys())


def labels_of(program, labels):
    return (labels,) if program.record.num_classes else ()


# --- densities ------------------------------------------------------------------------------


@each_program
def test_log_densities_equal_those_by_hand(backend, options, tmp_path):
    """Oracle 1 of the specification: every term of log p(x, z | y) and log q(z | x, y)."""
    with double_precision(backend):
        program = build(backend, **options)
        fitted, weights = opened(backend, program, tmp_path / "w")
        x, z, labels = rows_for(program)
        came = site_densities(backend, fitted, x, z, *labels_of(program, labels))
    categories, classes = program.record.num_categories, program.record.num_classes
    inputs = None if categories is None else np.eye(categories)[x.astype(int)].reshape(len(x), -1)
    y = None if classes is None else np.eye(classes)[labels]
    assert_close(came, by_hand(weights, x, z, inputs, y), 1e-10)


@pytest.mark.parametrize("writer_first", [True, False], ids=["numpyro writes", "pyro writes"])
@each_program
def test_twins_agree_through_the_weight_file(options, writer_first, tmp_path):
    pytest.importorskip("numpyro")
    pytest.importorskip("pyro")
    writer, reader = both_backends() if writer_first else both_backends()[::-1]
    fitted, weights = opened(writer, build(writer, **options), tmp_path / "a", np.float32)
    fitted.save(tmp_path / "b")
    back = reader.api.load(tmp_path / "b")
    x, z, labels = rows_for(fitted.program, dtype=np.float32)
    labels = labels_of(fitted.program, labels)
    ours, theirs = (
        site_densities(b, f, x, z, *labels) for b, f in ((writer, fitted), (reader, back))
    )
    assert_close(ours, theirs, 1e-5)
    params = () if reader.name == "pyro" else (back.params,)
    for name, array in back.program.to_weights(*params).items():
        assert array.tobytes() == np.ascontiguousarray(weights[name]).tobytes()


def test_double_weights_stay_double(backend, tmp_path):
    with double_precision(backend):
        fitted, _ = opened(backend, build(backend), tmp_path / "w")
        x, z, _ = rows_for(fitted.program)
        came = site_densities(backend, fitted, x, z)
        assert all(value.dtype == np.float64 for value in came.values())
        start = first_weights(backend, lambda: build(backend, output_bias=np.ones(6)))
        assert all(array.dtype == np.float64 for array in start.values())


def test_images_are_taken_as_vectors(backend):
    flat, image = (
        backend.api.HierarchicalVAE(shape, (2,), ((3,),)) for shape in ((12,), (1, 4, 3))
    )
    assert flat.record.blocks == image.record.blocks
    x = np.zeros((2, 1, 4, 3), np.float32)
    trained = backend.fit(image, backend.array(x), num_steps=1)
    assert np.isfinite(trained.losses).all()


# --- first weights --------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [False, True])
def test_layers_of_one_shape_start_differently(backend, labels):
    """The reference code gives every layer the same random numbers; not one pair agrees here."""
    five = {"latent_dims": (5, 5, 5), "hidden": ((5, 5), (5, 5), (5, 5))}

    def make():
        if labels:
            return backend.api.ConditionalVAE((5,), num_classes=5, **five)
        return backend.api.HierarchicalVAE((5,), **five)

    matrices = [w for w in first_weights(backend, make).values() if w.shape == (5, 5)]
    # q: 3 blocks of 4 matrices, less the first, with labels 10 wide; p: 2 or 3, and p_x of 3.
    assert len(matrices) == (11 + 12 + 2 if labels else 12 + 8 + 3)
    assert len({w.tobytes() for w in matrices}) == len(matrices)


def test_first_weights_follow_glorot_and_biases_are_zero(backend):
    """|w| <= sqrt(6 / (inputs + outputs)), nearly reached: 0.9^600 of missing it in any layer."""
    sizes = {"latent_dims": (30, 20), "hidden": ((40, 40), (30, 30))}
    start = first_weights(backend, lambda: backend.api.HierarchicalVAE((50,), **sizes))
    for name, array in start.items():
        if name.endswith("bias"):
            assert not array.any()
        else:
            bound = np.sqrt(6 / sum(array.shape))
            assert 0.9 * bound < np.abs(array).max() <= bound * (1 + 1e-6), name


def test_the_default_is_the_two_layer_model_of_the_paper(backend):
    record = backend.api.HierarchicalVAE((784,)).record
    assert record.blocks == {
        "q_z1": (784, (200, 200), 100),
        "q_z2": (100, (100, 100), 50),
        "p_z1": (50, (100, 100), 100),
    }
    assert record.decoder.hidden == (200, 200)
    assert backend.api.HierarchicalVAE((784,), (50,)).record.blocks == {
        "q_z1": (784, (200, 200), 50)
    }


def test_the_decoder_mirrors_the_encoder(backend):
    program = backend.api.HierarchicalVAE((9,), (4, 3), ((8, 7), (6, 5)))
    shapes = {k: w.shape for k, w in first_weights(backend, lambda: program).items()}
    chain = [shapes[f"p_z1.layers.{i}.weight"] for i in (0, 1)] + [shapes["p_z1.loc.weight"]]
    assert chain == [(5, 3), (6, 5), (4, 6)]
    assert [shapes[f"p_x.layers.{i}.weight"] for i in (0, 1, 2)] == [(7, 4), (8, 7), (9, 8)]


# --- output bias ----------------------------------------------------------------------------


def biased(backend, bias):
    num = len(bias)
    yield lambda: backend.api.VAE((num,), 2, (8,), output_bias=bias), "decoder.layers.1.bias", ()
    yield (
        lambda: backend.api.HierarchicalVAE((num,), (3, 2), ((8,), (4,)), output_bias=bias),
        "p_x.layers.1.bias",
        (),
    )
    yield (
        lambda: backend.api.ConditionalVAE((num,), (2,), 3, ((8,),), output_bias=bias),
        "p_x.layers.1.bias",
        (np.arange(4000) % 3,),
    )


def test_output_bias_gives_the_first_pixels_the_mean_of_the_data(backend):
    """Glorot's weights spread the logits about the bias, which moves the means a little."""
    pixels, datasets = (importlib.import_module(f"ppl_vae.{n}") for n in ("pixels", "datasets"))
    x = datasets.digits(binary=True).x_train
    bias = pixels.pixel_logits(x)
    for make, name, labels in biased(backend, bias):
        np.testing.assert_array_equal(first_weights(backend, make)[name], bias)
        came = prior_draws(backend, make(), *labels).mean(0)
        assert np.abs(came - x.mean(0)).max() < 0.12
        assert np.abs(came - x.mean(0)).mean() < 0.04  # against 0.3 from biases of zero


def prior_draws(backend, program, *labels):
    rows = {} if labels else {"num_rows": 4000}
    args = (None, *map(backend.array, labels)) if labels else ()
    if backend.name == "pyro":
        import torch

        with torch.no_grad():
            return np.asarray(program.model(*args, **rows))
    import numpyro

    return np.asarray(numpyro.handlers.seed(program.model, 0)(*args, **rows))


def test_a_weight_file_overrides_the_output_bias(backend, tmp_path):
    biased = build(backend, output_bias=np.full(6, 3.0))
    fitted, weights = opened(backend, build(backend), tmp_path / "w", np.float32)
    assert biased.architecture() == fitted.program.architecture()
    back = backend.api.load(tmp_path / "w", vae=biased)
    params = () if backend.name == "pyro" else (back.params,)
    came = back.program.to_weights(*params)["p_x.layers.2.bias"]
    np.testing.assert_array_equal(came, weights["p_x.layers.2.bias"])


def test_an_output_bias_that_does_not_fit_is_named(backend):
    api = backend.api
    with pytest.raises(ValueError, match=r"output_bias must have shape \(6,\), got shape \(5,\)"):
        build(backend, output_bias=np.zeros(5))
    with pytest.raises(ValueError, match=r"output_bias must have shape \(6,\), got shape \(\)"):
        api.VAE((6,), 2, output_bias=0.0)
    with pytest.raises(ValueError, match=r"must have shape \(6, 4\)"):
        build(backend, likelihood=("categorical", 4), output_bias=np.zeros(6))
    with pytest.raises(ValueError, match="must be finite"):
        build(backend, output_bias=[0, 0, 0, 0, 0, np.inf])
    with pytest.raises(ValueError, match="one for the convolutional decoder"):
        api.VAE((1, 4, 4), 2, output_bias=np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match="one for your own decoder"):
        api.VAE((6,), 2, decoder=own_decoder(backend), output_bias=np.zeros(6))


def own_decoder(backend):
    if backend.name == "pyro":
        import torch

        return torch.nn.Linear(2, 6)
    from flax import nnx

    return nnx.Linear(2, 6, rngs=nnx.Rngs(0))


# --- bad input ------------------------------------------------------------------------------


WRONG = {
    "two blocks for one layer": (
        {"latent_dims": (3,), "hidden": ((5,), (4,))},
        ValueError,
        r"one block of layers for each of the 1 stochastic layers.*got 2 blocks",
    ),
    "one block for three layers": (
        {"latent_dims": (3, 2, 2), "hidden": ((5,),)},
        ValueError,
        r"each of the 3 .*hidden=\(\(200, 200\), \(100, 100\), \(100, 100\),\); got 1 blocks",
    ),
    "widths and no blocks": (
        {"hidden": (200, 200)},
        TypeError,
        r"one block of layers for each stochastic layer.*got \(200, 200\)",
    ),
    "a width of zero": ({"hidden": ((5, 0), (4,))}, ValueError, r"block of hidden .*\(5, 0\)"),
    "no layers": ({"latent_dims": ()}, ValueError, r"latent_dims must name at least one layer"),
    "a size of zero": ({"latent_dims": (3, 0)}, ValueError, r"latent_dims must be at least 1"),
    "one number": ({"latent_dims": 50}, TypeError, r"latent_dims=\(100, 50\), got 50"),
    "likelihood": ({"likelihood": "poisson"}, ValueError, "one of bernoulli, normal, cat.*poisson"),
    "event": ({"event_shape": ()}, ValueError, "event_shape must have at least one axis"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_named(backend, case):
    arguments, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        backend.api.HierarchicalVAE(**{"event_shape": (6,), **arguments})


def test_data_of_wrong_shape_are_named(backend):
    program = build(backend)
    if backend.name == "numpyro":
        from numpyro.handlers import seed

        run = seed(program.guide, 0)
    else:
        run = program.guide
    with pytest.raises(ValueError, match=r"x must have shape \(rows, 6\), got shape \(2, 5\)"):
        run(backend.array(np.zeros((2, 5), np.float32)))
