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

from ppl_vae.models.numpyro.networks import MaskedEncoder

__all__ = ["RegisteredNet"]


class RegisteredNet:
    """A net whose weights are the parameter `<name>$params`, a nested dict of arrays.

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
        held = nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0))) if module is None else module
        parts: Any = nnx.split(held, nnx.Param, ...)
        self._graph, self._state, self._rest = parts
        self._build = build

    @property
    def site(self) -> str:
        """Name of the NumPyro parameter."""
        return f"{self.name}$params"

    def initial(self, key: Array | None) -> dict[str, Any]:
        """Return the first weights: drawn with the key, or those that the own module holds."""
        if self.is_own:
            return nnx.to_pure_dict(self._state)
        if key is None:
            raise ValueError(
                f"{self.site} has no value: seed the program, numpyro.handlers.seed(model, 0), or "
                "give it weights, numpyro.handlers.substitute(model, data=params)."
            )
        return nnx.to_pure_dict(nnx.state(self._build(rngs=nnx.Rngs(key)), nnx.Param))

    def register(self) -> Callable[..., Any]:
        """Declare the parameter in the running program and return the net with its weights."""
        if not self._leaves():
            return nnx.merge(self._graph, self._state, self._rest, copy=True)
        first = self.initial(None) if self.is_own else self.initial
        return self.with_params(numpyro.param(self.site, first))

    def with_params(self, params: Mapping[str, Any]) -> Callable[..., Any]:
        """Return the net with these weights."""
        state = jax.tree.map(lambda leaf: leaf, self._state)  # a copy, so that no tracer stays
        nnx.replace_by_pure_dict(state, dict(params))
        return nnx.merge(self._graph, state, self._rest, copy=True)

    def to_weights(self, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return the weights by their names in the weight file."""
        return {
            self._weight_name(path): self._turn(path, np.asarray(_at(params[self.site], path)))
            for path, _ in self._leaves()
        }

    def from_weights(self, weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return `{"<name>$params": ...}` from the weights of a file, their dtype kept."""
        tree: dict[str, Any] = {}
        for path, _ in self._leaves():
            array = self._turn_back(path, weights[self._weight_name(path)])
            branch = tree
            for step in path[:-1]:
                branch = branch.setdefault(step, {})
            branch[path[-1]] = _to_device(array)
        return {self.site: tree} if tree else {}

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the weights by their names in the weight file."""
        return {
            self._weight_name(path): self._turn(path, np.broadcast_to(0, leaf.shape)).shape
            for path, leaf in self._leaves()
        }

    def _leaves(self) -> list[tuple[tuple[Any, ...], Any]]:
        return list(_walk(nnx.to_pure_dict(self._state)))

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
