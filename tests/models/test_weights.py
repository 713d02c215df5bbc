"""The weight file and the architecture record, in plain numpy."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ppl_vae.models.architecture import Architecture
from ppl_vae.weights import FORMAT_VERSION, check_weights, read_weights, write_weights

WEIGHTS = {
    "single": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32),
    "double": np.random.default_rng(1).normal(size=5),
    "scalar": np.array(7, np.int64),
    "turned": np.arange(6.0).reshape(2, 3).T,
    "strided": np.arange(10.0)[::2],
    "empty": np.zeros((0, 3)),
}
HEADER = {"architecture": Architecture.parse((6,), 2, (5,), "bernoulli").to_dict()}


@pytest.fixture
def written(file: Path) -> Path:
    write_weights(file, WEIGHTS, HEADER)
    return file


def test_arrays_and_header_come_back_as_they_were(written):
    weights, header = read_weights(written)
    assert weights.keys() == WEIGHTS.keys()
    for name, array in WEIGHTS.items():
        assert weights[name].dtype == array.dtype
        np.testing.assert_array_equal(weights[name], array, strict=True)
    assert header["architecture"] == HEADER["architecture"]
    assert header["format"] == FORMAT_VERSION
    assert header["versions"]["numpy"] == np.__version__


def test_special_values_are_kept_to_the_bit(file):
    array = np.array([np.nan, -0.0, np.inf, 5e-324])
    write_weights(file, {"array": array}, {})
    assert read_weights(file)[0]["array"].tobytes() == array.tobytes()


def test_path_may_be_a_string(file):
    write_weights(str(file), WEIGHTS, HEADER)
    assert read_weights(str(file))[1]["architecture"] == HEADER["architecture"]


@pytest.mark.parametrize("fails_in", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(written, monkeypatch, fails_in):
    def fail(*args):
        raise OSError("disk full")

    before = written.read_bytes()
    monkeypatch.setattr(os, fails_in, fail)
    with pytest.raises(OSError, match="disk full"):
        write_weights(written, {"other": np.ones(1000)}, {})
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_a_header_that_is_no_json_leaves_the_old_file(written):
    before = written.read_bytes()
    with pytest.raises(TypeError, match="JSON serializable"):
        write_weights(written, WEIGHTS, {"note": object()})
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_missing_folder_and_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder .*nowhere does not exist"):
        write_weights(tmp_path / "nowhere" / "vae.safetensors", WEIGHTS, HEADER)
    with pytest.raises(FileNotFoundError, match=r"no weight file .*vae\.safetensors"):
        read_weights(tmp_path / "vae.safetensors")


@pytest.mark.parametrize("kept", [0, 3, 8, 9, 60, 500, -1])
def test_truncated_file_is_refused(written, kept):
    content = written.read_bytes()
    assert len(content) > 500
    written.write_bytes(content[:kept])
    with pytest.raises(ValueError, match=r"vae\.safetensors is truncated"):
        read_weights(written)


@pytest.mark.parametrize("content", [b"epoch,loss\n1,2.0\n", b"\x89PNG\r\n\x1a\n" + bytes(90)])
def test_foreign_file_is_refused(file, content):
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is not a safetensors file"):
        read_weights(file)


def test_damaged_header_is_refused(written):
    content = bytearray(written.read_bytes())
    content[20:30] = b"\xff" * 10
    written.write_bytes(content)
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_weights(written)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"ppl_vae": "{"}, {"ppl_vae": "3"}])
def test_safetensors_of_another_program_are_refused(file, metadata):
    save_file({"weight": np.ones(3)}, file, metadata)
    with pytest.raises(ValueError, match="without the header of ppl_vae"):
        read_weights(file)


def test_newer_format_is_refused(file):
    save_file({"weight": np.ones(3)}, file, {"ppl_vae": json.dumps({"format": 99})})
    with pytest.raises(ValueError, match="format 99, this ppl_vae reads up to 1; upgrade"):
        read_weights(file)


def test_weights_that_do_not_fit_are_named_all_at_once():
    weights = {"a": np.ones((2, 3)), "b": np.ones(4), "c": np.ones(1)}
    check_weights(weights, {"a": (2, 3), "b": (4,), "c": (1,)})
    with pytest.raises(ValueError, match="fit") as error:
        check_weights(weights, {"a": (3, 2), "b": (4,), "d": (1,)})
    assert "a: expected shape (3, 2), came (2, 3)" in str(error.value)
    assert "c: not expected" in str(error.value)
    assert "d: missing" in str(error.value)
    assert "b:" not in str(error.value)


RECORDS = [
    Architecture.parse((64,), 8, None, "bernoulli"),
    Architecture.parse([1, 7, 5], np.int64(3), [4, 6], ("categorical", 5)),
    Architecture.parse((4, 3), 1, (), ("normal", 0.5)),
    Architecture.parse((6,), 2, (5,), "normal", own_encoder=True, own_decoder=True),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.likelihood)
def test_architecture_survives_json(record):
    header = json.loads(json.dumps(record.to_dict()))
    assert Architecture.from_dict(header) == record
    record.require_same(header, "itself")


def test_architecture_of_other_fields_is_refused():
    with pytest.raises(ValueError, match=r"has the fields .*got \['latent_dim'\]"):
        Architecture.from_dict({"latent_dim": 3})
    values = RECORDS[0].to_dict()
    with pytest.raises(ValueError, match="must be one of bernoulli"):
        Architecture.from_dict({**values, "likelihood": "poisson"})


def test_every_differing_field_is_named():
    other = Architecture.parse((65,), 8, (3,), ("normal", 0.5)).to_dict()
    with pytest.raises(ValueError, match=r"here\.file holds weights of another") as error:
        RECORDS[0].require_same(other, "here.file")
    for field in ("event_shape: expected [64], came [65]", "hidden", "likelihood", "scale_floor"):
        assert field in str(error.value)
    assert "latent_dim" not in str(error.value)


def test_image_sizes_round_up():
    assert RECORDS[1].image_sizes == ((7, 5), (4, 3), (2, 2))
    assert RECORDS[1].image_channels == 5
    assert RECORDS[1].parameter_shape == (1, 7, 5, 5)
