"""Files of checkpoints: their permissions, and what a failed write leaves."""

import os

import numpy as np
import pytest

from ppl_vae.checkpoints import read_checkpoint, write_checkpoint

ARRAYS = {"weights": np.arange(3.0)}


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_permissions_are_those_of_any_new_file(tmp_path, umask):
    path, before = tmp_path / "run.npz", os.umask(umask)
    try:
        write_checkpoint(path, ARRAYS)
        write_checkpoint(path, ARRAYS)  # the second replaces the first
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("fails_in", ["savez", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, fails_in):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    path = tmp_path / "folder" / "run.npz"
    write_checkpoint(path, ARRAYS)
    monkeypatch.setattr(np if fails_in == "savez" else os, fails_in, fail)
    with pytest.raises(OSError, match="disk full"):
        write_checkpoint(path, {"weights": np.zeros(3)})
    np.testing.assert_array_equal(read_checkpoint(path, ARRAYS)["weights"], ARRAYS["weights"])
    assert list(path.parent.iterdir()) == [path]
