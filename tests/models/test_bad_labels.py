"""Bad labels and wrong arguments of a `ConditionalVAE` are named."""

import numpy as np
import pytest
from host_words import words
from layered_cases import LABELS, build, labelled

KERNELS = ("MWGKernel", "ACMWGKernel", "LAIRKernel", "PseudoGibbsKernel")


def run(backend, fn, *args, **kwargs):
    """Call a program once."""
    args = [a if a is None else backend.array(a) for a in args]
    if backend.name == "numpyro":
        fn = words(backend).handlers.seed(fn, 0)
    return fn(*args, **kwargs)


BAD_LABELS = {
    "too large": (
        [0, 2, 3, 1, 5],
        ValueError,
        r"labels must be 0, \.\.\., 2; 2 are not.* 3 at row 2",
    ),
    "negative": ([0, -1, 0, 1, 2], ValueError, "the first is -1 at row 1"),
    "too few": ([0, 1], ValueError, r"labels must have shape \(5,\), got shape \(2,\)"),
    "one-hot": (np.eye(5, 3, dtype=int), ValueError, r"got shape \(5, 3\); give one class a row"),
    "not whole": ([0.0, 1.0, 2.0, 0.5, 1.0], TypeError, "labels must be whole numbers 0, .*float"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels_are_named_with_row_and_value(backend, case):
    labels, error, message = BAD_LABELS[case]
    program = build(backend, 2, labels=True)
    x = np.zeros((5, 6), np.float32)
    labels = np.asarray(labels)
    labels = labels.astype(np.float32) if labels.dtype == float else labels
    with pytest.raises(error, match=message):
        program.check_rows(backend.array(x), backend.array(labels))
    for fn in (program.model, program.guide):
        with pytest.raises(error, match=message):
            run(backend, fn, x, labels)
    program.check_rows(backend.array(x), backend.array(np.arange(5) % 3))


def test_training_without_labels(backend):
    program, x = build(backend, 2, labels=True), np.zeros((5, 6), np.float32)
    with pytest.raises(TypeError, match=r"ConditionalVAE is given labels.*x, labels\)"):
        backend.fit(program, x, num_steps=1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_refuse_a_label_out_of_range(backend, kernel, tmp_path):
    fitted, x = labelled(backend, tmp_path / "w")
    labels = LABELS.copy()
    labels[4] = 3
    with pytest.raises(ValueError, match=r"labels must be 0, \.\.\., 2; 1 are not.* 3 at row 4"):
        backend.run(
            getattr(backend.api, kernel)(fitted.model, fitted.guide),
            backend.array(x), backend.array(labels), num_samples=2,
        )  # fmt: skip


def test_labels_are_looked_at_where_they_are_known():
    """Within a compiled function the values are not; the shape is."""
    jax = pytest.importorskip("jax")
    from numpyro.handlers import seed

    from ppl_vae.numpyro import ConditionalVAE

    program = ConditionalVAE((6,), (2,), 3, ((),))
    compiled = jax.jit(seed(program.model, 0))
    x = np.zeros((2, 6), np.float32)
    compiled(x, np.array([0, 7]))
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\), got shape \(3,\)"):
        compiled(x, np.array([0, 1, 2]))


WRONG = {
    "prior": ({"prior": "flat"}, ValueError, "prior must be one of learned, standard, got 'flat'"),
    "no classes": ({"num_classes": 0}, ValueError, "num_classes must be at least 1"),
    "no number of classes": ({"num_classes": None}, TypeError, "num_classes=10, got .*None"),
    "half a class": ({"num_classes": 2.5}, TypeError, "num_classes=10, got"),
    "blocks": ({"hidden": ((5,),)}, ValueError, "each of the 2 stochastic layers.*got 1 blocks"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_named(backend, case):
    arguments, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        backend.api.ConditionalVAE(
            **{"event_shape": (6,), "latent_dims": (3, 2), "num_classes": 3, **arguments}
        )
