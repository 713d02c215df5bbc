"""What the Pyro twin writes out by hand because torch does not fuse: the same numbers, exactly."""

import importlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")
dist = pytest.importorskip("pyro.distributions")
masking = importlib.import_module("ppl_vae.inference.pyro.masking")
pairwise = importlib.import_module("ppl_vae.inference.pyro.pairwise")

C, P, K, B, L = 2, 5, 4, 3, 6


def normals(spread, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    loc = 3 * draw(C, K, B, L)
    scale = spread * draw(C, K, B, L).exp()
    own = loc + scale * draw(C, K, B, L)  # near one of the means, far from the others
    return loc, scale, torch.cat([own, draw(C, P - K, B, L)], 1)


@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4])
def test_normal_densities_of_all_pairs(spread):
    """The scales may be 1e-4 of the means' distances: only rounding to single precision is lost."""
    loc, scale, z = normals(spread)
    found = pairwise.log_prob_of_each(dist.Normal(loc, scale).to_event(1), z)
    direct = dist.Normal(loc.double(), scale.double()).to_event(1)
    expected = direct.log_prob(z.double()[:, :, None].movedim(1, 0)).movedim(0, 1)
    assert found.shape == (C, P, K, B)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-4)


@pytest.mark.parametrize("kind", ["scalar", "matrix", "student"])
def test_other_shapes_and_families(kind):
    loc, scale, z = normals(0.5)
    if kind == "scalar":
        d, z = dist.Normal(loc[..., 0], scale[..., 0]), z[..., 0]
    elif kind == "matrix":
        shape = (3, 2)
        d = dist.Normal(loc.reshape(C, K, B, *shape), scale.reshape(C, K, B, *shape)).to_event(2)
        z = z.reshape(C, P, B, *shape)
    else:
        d = dist.StudentT(4.0, loc, scale).to_event(1)
    found = pairwise.log_prob_of_each(d, z)
    for p in range(P):
        np.testing.assert_allclose(found[:, p], d.log_prob(z[:, p, None]), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_selection_is_bit_identical(dtype):
    mask = torch.tensor([[True, False, True, False], [False, True, True, False]])
    x = torch.tensor([[-0.0, torch.inf, torch.nan, 1.0], [2.0, -1e-40, -torch.inf, 3.0]])
    x, y = (x if dtype.is_floating_point else x.nan_to_num(5, 7, -7)).to(dtype), x.flip(1)
    y = (y if dtype.is_floating_point else y.nan_to_num(5, 7, -7)).to(dtype)
    for mask_ in (mask, mask[:1].expand(2, 4), torch.ones_like(mask), torch.zeros_like(mask)):
        found = masking.where(mask_, x, y)
        expected = torch.where(mask_, x, y)
        assert found.dtype == dtype
        assert found.numpy().tobytes() == expected.numpy().tobytes()
        kept = masking.keep(mask_, x)
        assert (
            kept.numpy().tobytes() == torch.where(mask_, x, torch.zeros_like(x)).numpy().tobytes()
        )


def test_selection_has_a_gradient():
    x = torch.tensor([1.0, torch.inf], requires_grad=True)
    masking.keep(torch.tensor([True, False]), x).sum().backward()
    assert x.grad.tolist() == [1.0, 0.0]
