"""An nnx module as a NumPyro parameter: registered by name, called as a pure function.

It does what `numpyro.contrib.module.nnx_module` does, and draws the first weights of built-in
nets from the key of the seeded run, leaves no tracer in the module, and knows the weight file.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from flax import nnx
from jax import Array
from numpyro.primitives import mutable

from ppl_vae.models.numpyro.networks import MaskedEncoder

__all__ = ["RegisteredNet"]

_KEPT = nnx.Not(nnx.Any(nnx.Param, nnx.RngState))  # what a weight file holds besides the weights


class RegisteredNet:
    """A net whose weights are the parameter `<name>$params`, a nested dict of arrays.

    What a user's module keeps besides them (running means, the random numbers of dropout) is the
    mutable site `<name>$state`, as with `nnx_module`.

    Arguments:
        name: prefix of the parameter and of the names in the weight file.
        module: the user's module, or None for the built-in one.
        build: makes the built-in module from `rngs`.

    Raises:
        TypeError: the user's module is no `nnx.Module`.
    """

    def __init__(
        self, name: str, module: nnx.Module | None, build: Callable[..., nnx.Module]
    ) -> None:
        if module is not None and not isinstance(module, nnx.Module):
            raise TypeError(
                f"{name} must be a flax.nnx.Module, got {type(module).__name__}; "
                "wrap a function in a module."
            )
        self.name = name
        self.is_own = module is not None
        self._is_ours = module is None or isinstance(module, MaskedEncoder)
        # A built-in net is only planned here: no arrays until a key is known.
        self._module = nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0))) if module is None else module
        self._build = build

    @property
    def site(self) -> str:
        """Name of the NumPyro parameter."""
        return f"{self.name}$params"

    @property
    def state_site(self) -> str:
        """Name of the mutable site."""
        return f"{self.name}$state"

    def initial(self, key: Array | None) -> dict[str, Any]:
        """Return the first weights: drawn with the key, or those that the own module holds."""
        if self.is_own:
            return self._held(nnx.Param)
        if key is None:
            raise ValueError(
                f"{self.site} has no value: seed the program, numpyro.handlers.seed(model, 0), or "
                "give it weights, numpyro.handlers.substitute(model, data=params)."
            )
        return nnx.to_pure_dict(nnx.state(self._build(rngs=nnx.Rngs(key)), nnx.Param))

    def register(self) -> Callable[..., Any]:
        """Declare the sites in the running program and return the net with their values."""
        params: dict[str, Any] = {}
        if self._leaves(nnx.Param):
            params = numpyro.param(self.site, self.initial(None) if self.is_own else self.initial)
        if not (first := self._held(nnx.Not(nnx.Param))):
            return self.with_params(params)
        kept = mutable(self.state_site, {"state": first})

        def call(*args: Any, **kwargs: Any) -> Any:
            net = self.with_params(params, kept["state"])
            out = net(*args, **kwargs)
            kept["state"] = nnx.to_pure_dict(nnx.state(net, nnx.Not(nnx.Param)))
            return out

        return call

    def with_params(
        self, params: Mapping[str, Any], kept: Mapping[str, Any] | None = None
    ) -> Callable[..., Any]:
        """Return a copy of the net, as it is now, with these weights and this state."""
        parts: Any = nnx.split(self._module, nnx.Param, ...)
        graph, weights, rest = parts
        # Copies, so that no tracer stays in the module.
        weights, rest = (jax.tree.map(lambda leaf: leaf, part) for part in (weights, rest))
        nnx.replace_by_pure_dict(weights, dict(params))
        nnx.replace_by_pure_dict(rest, dict(kept or {}))
        return nnx.merge(graph, weights, rest, copy=True)

    def to_weights(self, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return the weights by their names in the weight file, running means among them."""
        kept = params.get(self.state_site, {"state": self._held(_KEPT)})["state"]
        parts = ((params.get(self.site, {}), nnx.Param), (kept, _KEPT))
        return {
            self._weight_name(path): self._turn(path, np.asarray(_at(tree, path)))
            for tree, kind in parts
            for path, _ in self._leaves(kind)
        }

    def from_weights(self, weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the sites' values from the weights of a file, their dtype kept."""

        def read(kind: Any, tree: dict[str, Any]) -> dict[str, Any]:
            for path, _ in self._leaves(kind):
                array = self._turn_back(path, weights[self._weight_name(path)])
                branch = tree
                for step in path[:-1]:
                    branch = branch.setdefault(step, {})
                branch[path[-1]] = _to_device(array)
            return tree

        params, kept = read(nnx.Param, {}), read(_KEPT, self._held(nnx.Not(nnx.Param)))
        values = {self.site: params, self.state_site: {"state": kept} if kept else {}}
        return {site: value for site, value in values.items() if value}

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the weights by their names in the weight file."""
        return {
            self._weight_name(path): self._turn(path, np.broadcast_to(0, leaf.shape)).shape
            for kind in (nnx.Param, _KEPT)
            for path, leaf in self._leaves(kind)
        }

    def _held(self, kind: Any) -> dict[str, Any]:
        """Return what the module itself holds of a kind."""
        return nnx.to_pure_dict(nnx.state(self._module, kind))

    def _leaves(self, kind: Any) -> list[tuple[tuple[Any, ...], Any]]:
        return list(_walk(self._held(kind)))

    def _weight_name(self, path: tuple[Any, ...]) -> str:
        last = "weight" if self._is_kernel(path) else path[-1]
        return ".".join(map(str, (self.name, *path[:-1], last)))

    def _is_kernel(self, path: tuple[Any, ...]) -> bool:
        """Whether the array is stored turned; those of foreign modules are stored as they are."""
        return self._is_ours and path[-1] == "kernel"

    def _turn(self, path: tuple[Any, ...], array: np.ndarray) -> np.ndarray:
        """(in, out) to (out, in), (height, width, in, out) to (out, in, height, width)."""
        if not self._is_kernel(path):
            return array
        return array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)

    def _turn_back(self, path: tuple[Any, ...], array: np.ndarray) -> np.ndarray:
        if not self._is_kernel(path):
            return array
        return array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)


def _walk(tree: Mapping[Any, Any], path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, Any]]:
    for step, value in tree.items():
        if isinstance(value, Mapping):
            yield from _walk(value, (*path, step))
        else:
            yield (*path, step), value


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def _to_device(array: np.ndarray) -> Array:
    held = jnp.asarray(array)
    if held.dtype != array.dtype:
        warnings.warn(
            f"These weights are {array.dtype} and JAX holds them as {held.dtype}; call "
            'jax.config.update("jax_enable_x64", True) first to keep them.',
            stacklevel=2,
        )
    return held
