"""Weight files name their program: another kind is refused, files from before open."""

import numpy as np
import pytest
from layered_cases import build, opened

from ppl_vae.weights import write_weights


def test_a_file_of_another_kind_of_program_is_refused(backend, tmp_path):
    api, path = backend.api, tmp_path / "w"
    opened(backend, build(backend), path, np.float32)
    expected = r"program: expected VAE, came HierarchicalVAE.*Build the HierarchicalVAE"
    with pytest.raises(ValueError, match=expected):
        api.load(path, vae=api.VAE((6,), 2))
    with pytest.raises(ValueError, match="program: expected ConditionalVAE, came HierarchicalVAE"):
        api.load(path, vae=build(backend, labels=True))
    with pytest.raises(ValueError, match=r"latent_dims: expected \[4, 3, 2\], came \[4, 3\]"):
        api.load(path, vae=build(backend, 3))
    opened(backend, api.VAE((6,), 2, (5,)), path, np.float32)
    with pytest.raises(ValueError, match="program: expected HierarchicalVAE, came VAE"):
        api.load(path, vae=build(backend))
    write_weights(path, {}, {"architecture": {"program": "Tree"}})
    with pytest.raises(ValueError, match="weights of a Tree; this ppl_vae knows VAE, Hier"):
        api.load(path)


@pytest.mark.parametrize("header", [{"note": "mine"}, {"architecture": ["VAE"]}])
def test_weights_without_an_architecture_are_refused(backend, tmp_path, header):
    write_weights(tmp_path / "w", {"scale": np.ones(3)}, header)
    for vae in (None, backend.api.VAE((6,), 2, (5,))):
        with pytest.raises(ValueError, match=r"w names no architecture.*`fitted\.save`.*read_weig"):
            backend.api.load(tmp_path / "w", vae=vae)


def test_files_of_a_vae_from_before_open(backend, tmp_path):
    """Their record does not name the program."""
    record = {
        "event_shape": [4], "latent_dim": 2, "hidden": [3], "likelihood": "bernoulli",
        "num_categories": None, "scale_floor": None, "own_encoder": False, "own_decoder": False,
    }  # fmt: skip
    weights = {
        f"{net}.layers.{i}.{kind}": np.ones(shape if kind == "weight" else shape[:1], np.float32)
        for net, shapes in (("encoder", [(3, 4), (4, 3)]), ("decoder", [(3, 2), (4, 3)]))
        for i, shape in enumerate(shapes)
        for kind in ("weight", "bias")
    }
    write_weights(tmp_path / "w", weights, {"architecture": record})
    program = backend.api.load(tmp_path / "w").program
    assert type(program) is backend.api.VAE
    assert program.architecture() == record
