"""Pyro with `jit_compile=True`: what a recorded function holds on to, and what it lets go."""

import gc
import importlib
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")
dist = pytest.importorskip("pyro.distributions")
compiled = importlib.import_module("ppl_vae.inference.pyro.compiled")


@pytest.fixture
def only_recorded(monkeypatch):
    """Run what was recorded as it is: compiling takes ten seconds a function, recording one."""
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)


def test_tensors_read_beside_the_arguments_are_read_anew(only_recorded):
    weight = torch.nn.Parameter(torch.ones(3))
    fn = compiled.Compiled(lambda tree: {"y": tree["x"] * weight + torch.rand(3)})
    for scale in (1.0, 2.0, 3.0):
        weight.data.fill_(scale)
        torch.manual_seed(0)
        found = fn({"x": torch.ones(3)})["y"]
        torch.manual_seed(0)
        torch.testing.assert_close(found, scale + torch.rand(3), rtol=0, atol=0)


def test_what_is_written_in_place_is_written_once_a_call(only_recorded):
    def fn(tree):
        tree["x"][0] += 1
        counter.add_(1)
        return tree

    counter = torch.zeros(())
    step, tree = compiled.Compiled(fn), {"x": torch.zeros(2)}
    for _ in range(4):
        tree = step(tree)
    assert tree["x"].tolist() == [4, 0]
    assert counter == 4


def test_results_are_freed_when_they_are_dropped(only_recorded):
    """Held until Python's collector comes by, they take fresh memory in each step."""
    step = compiled.Compiled(lambda tree: {"x": tree["x"] + 1})
    gc.disable()
    try:
        for _ in range(3):
            out = step({"x": torch.zeros(3)})
            dropped = weakref.ref(out["x"])
            assert dropped() is not None
            del out
            assert dropped() is None
    finally:
        gc.enable()


def test_masks_are_bytes_to_the_compiler_unless_they_are_written_to(monkeypatch):
    """Of bools torch's compiler makes a branch for each."""

    def compile_nothing(module, **options):
        def run(*arguments):
            kinds[:] = [a.dtype for a in arguments]
            return module(*arguments)

        return run

    def fn(tree):
        written[1:].copy_(tree["given"][1:])  # through a view
        return torch.where(read & tree["given"], tree["x"], 0.0), tree["given"], written.clone()

    monkeypatch.setattr(torch, "compile", compile_nothing)
    read, written = torch.tensor([True, False, True]), torch.zeros(3, dtype=torch.bool)
    step, kinds = compiled.Compiled(fn), []
    for given in ([True, True, True], [True, True, False], [False, False, True]):
        x, read[2] = torch.randn(3), not read[2]  # it is read anew in each call
        found = step({"given": torch.tensor(given), "x": x})
        expected = torch.where(read & torch.tensor(given), x, 0.0)
        torch.testing.assert_close(found[0], expected, rtol=0, atol=0)
        assert found[1].tolist() == given
        assert found[2].tolist() == written.tolist() == [False, *given[1:]]
    assert sorted(map(str, kinds)) == ["torch.bool", "torch.float32", "torch.uint8", "torch.uint8"]


def test_another_structure_is_recorded_anew(only_recorded):
    """A number that is no tensor belongs to the structure: it is not frozen at its first value."""
    fn = compiled.Compiled(lambda tree: (tree[0] * tree[1], tree[1] + 1))
    x, n = torch.ones(2), 1
    for expected in (1, 2, 6, 24):
        x, n = fn((x, n))
        assert x.tolist() == [expected] * 2
    assert fn((torch.ones(3), 2))[0].shape == (3,)
    assert fn((torch.ones(3).double(), 2))[0].dtype == torch.float64


def test_distributions_come_back_with_other_parameters(only_recorded):
    def fn(d):
        return torch.distributions.Independent(torch.distributions.Normal(d.mean + 1, 2.0), 1)

    step, d = compiled.Compiled(fn), fn(torch.distributions.Normal(torch.zeros(3), 1.0))
    for i in range(2, 5):
        d = step(d)
        assert d.mean.tolist() == [i] * 3
        assert d.event_shape == (3,)
        assert d.log_prob(torch.full((3,), float(i))) == pytest.approx(-3 * np.log(2 * 2.5066283))


def test_what_tells_structures_apart(only_recorded):
    """The type of a number, a transform's settings, and not which leaves are one tensor."""
    times = compiled.Compiled(lambda tree: tree[0] * tree[1])
    x = torch.ones(2, dtype=torch.int64)
    assert [times((x, n)).dtype for n in (1, 1.0)] == [torch.int64, torch.float32]

    log_prob = compiled.Compiled(lambda d: d.log_prob(torch.ones(())))
    for loc in (0.0, 1.0, 0.0):
        for transform in (affine(loc), dist.transforms.ComposeTransform([affine(loc)])):
            d = dist.TransformedDistribution(dist.Normal(torch.zeros(()), 1.0), [transform])
            assert log_prob(d) == pytest.approx(-0.9189385 - 0.5 * (1 - loc) ** 2)

    both = compiled.Compiled(lambda tree: tree["a"] + 10 * tree["b"])
    one = torch.ones(())
    assert both({"a": one, "b": one}) == 11
    assert both({"a": one, "b": 5 * one}) == 51


def affine(loc):
    return dist.transforms.AffineTransform(torch.tensor(loc), 1.0)
