"""Functions of tensors, recorded once and compiled: what `jit_compile=True` does.

PyTorch runs a function operation by operation, and Pyro's handlers with it.  Here a recorder
(`make_fx`) listens while the function runs for the first time; from then on the recorded operations
take its place, fused and compiled by `torch.compile`.  Random numbers are those of the function.
"""

import copy
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor, fx
from torch.distributions import Distribution, Transform
from torch.distributions.transforms import _InverseTransform
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.overrides import TorchFunctionMode

__all__ = ["Compiled", "is_recording", "record"]

OPTIONS: dict[str, Any] = {
    "fallback_random": True,  # draw as the function itself does
    "pattern_matcher": False,  # it would join again what `_add_bias` takes apart
}


class Compiled:
    """A function of one tree of tensors, compiled for each structure of the tree that it meets.

    A tree is made of tensors, dicts, tuples and distributions; its structure is all of it but the
    tensors' values. The first call with a structure runs the function and records it, the second
    compiles. Tensors that the function reads beside the tree, such as weights, are read anew in
    every call, and it may write into tensors that lie in memory in order; any other Python code
    in it runs once, what it makes of the lengths of selections (`len(x[x > 0])`) included.

    Args:
        fn: the function; returns a tree.

    Raises:
        NotImplementedError: when called, if values of tensors are read in Python (`if`, `.item()`).
        RuntimeError: when called, if there is no C++ compiler.
    """

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self.fn = fn
        self._recorded: dict[Any, Callable[[list[Tensor]], Any]] = {}

    def __call__(self, tree: Any) -> Any:
        """Return `fn(tree)`."""
        leaves = list(_leaves(tree))
        tensors = [leaf.contiguous() for _, leaf in leaves if isinstance(leaf, Tensor)]
        structure = tuple((path, *_kind(leaf)) for path, leaf in leaves)
        if structure in self._recorded:
            return self._recorded[structure](tensors)
        out, run = record(lambda tensors: self.fn(_with_tensors(tree, tensors)), tensors)
        self._recorded[structure] = run
        return out


def record(
    fn: Callable[[list[Tensor]], Any], tensors: list[Tensor]
) -> tuple[Any, Callable[[list[Tensor]], Any]]:
    """Return `fn(tensors)`, a tree, and a compiled function that does the same."""
    trees: list[Any] = []

    def run(*tensors: Tensor) -> list[Tensor]:
        trees.append(fn(list(tensors)))
        return [leaf for _, leaf in _leaves(trees[0]) if isinstance(leaf, Tensor)]

    tensors = [t.view_as(t) for t in tensors]  # one tensor may be in several places
    with pyro.validation_enabled(False), _NothingRead():
        try:
            module = make_fx(run, OTHERWISE)(*tensors)
        except RuntimeError as error:
            if "tracing tensor" not in str(error):
                raise
            raise NotImplementedError(READ) from error
    read = _as_arguments(module)
    in_bytes = _masks_in_bytes(module, [*tensors, *read])
    compiled = torch.compile(module, fullgraph=True, dynamic=False, options=OPTIONS)
    like = _map(trees[0], lambda tensor: tensor.new_empty(0))  # it outlives the results
    return trees[0], partial(_run, compiled, like, read, in_bytes)


def is_recording() -> bool:
    """Whether operations are being recorded: checks of values have their place before."""
    return get_proxy_mode() is not None


READ = (
    "jit_compile records the operations of model and guide once for all, and these read values of "
    "tensors in Python: they branch on them, take `.item()` or `.numpy()`, or call a function that "
    "does, such as `one_hot` (take `torch.eye(n)[y]`). Change that, or leave jit_compile out."
)
READERS = {
    getattr(Tensor, name)
    for name in (
        "item", "tolist", "numpy", "__array__", "__bool__", "__float__", "__int__", "__index__",
    )
}  # fmt: skip


class _NothingRead(TorchFunctionMode):
    """Refuses what takes a tensor's values to Python."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in READERS:
            raise NotImplementedError(READ)
        return func(*args, **(kwargs or {}))


def _run(
    compiled: Any, like: Any, read: list[Tensor], in_bytes: set[int], tensors: list[Tensor]
) -> Any:
    arguments = [*tensors, *read]
    for i in in_bytes:
        arguments[i] = arguments[i].view(torch.uint8)
    try:
        with torch.no_grad():
            return _with_tensors(like, compiled(*arguments))
    except torch._dynamo.exc.BackendCompilerFailed as error:
        if "InvalidCxxCompiler" not in str(error):
            raise
        raise RuntimeError(
            "jit_compile needs a C++ compiler such as g++, and finds none: install one, name it "
            "in the environment variable CXX, or leave jit_compile out."
        ) from error


def _as_arguments(module: fx.GraphModule) -> list[Tensor]:
    """Turn the tensors that recorded operations read of themselves into further arguments."""
    graph = module.graph
    read: list[Tensor] = []
    arguments: dict[int, fx.Node] = {}
    last = next(node for node in reversed(graph.nodes) if node.op == "placeholder")
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        tensor = getattr(module, node.target)
        if id(tensor) not in arguments:
            with graph.inserting_after(last):
                last = arguments[id(tensor)] = graph.placeholder(f"read_{len(read)}")
            read.append(tensor)
        node.replace_all_uses_with(arguments[id(tensor)])
        graph.erase_node(node)
    module.recompile()
    return read


# --- what torch's compiler (2.13) makes slow or wrong code of, on a CPU ---------------------


def _masks_in_bytes(module: fx.GraphModule, tensors: list[Tensor]) -> set[int]:
    """Turn arguments that are masks into bytes, and return which; bools are read branch by branch.

    What is written to stays as it is.
    """
    graph = module.graph
    arguments = [node for node in graph.nodes if node.op == "placeholder"]
    each = zip(arguments, tensors, strict=True)
    masks = [a for a, tensor in each if tensor.dtype == torch.bool and not _is_written(a)]
    with graph.inserting_before(arguments[-1].next):
        for mask in masks:
            users = list(mask.users)
            number = graph.call_function(_ATEN._to_copy.default, (mask,), {"dtype": torch.float32})
            is_set = graph.call_function(_ATEN.ne.Scalar, (number, 0))
            for user in users:
                user.replace_input_with(mask, is_set)
    module.recompile()
    return {arguments.index(mask) for mask in masks}


def _is_written(node: fx.Node) -> bool:
    """Whether an operation writes into a tensor, or into a view of it."""
    for user in node.users:
        if user.op == "call_function":
            op: Any = user.target
            parameters = {p.name: p.alias_info for p in op._schema.arguments}
            given = dict(zip(parameters, user.args, strict=False)) | user.kwargs
            shared = [parameters[name] for name, value in given.items() if node in _all(value)]
            if any(alias and (alias.is_write or _is_written(user)) for alias in shared):
                return True
    return False


def _all(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


def _add_bias(bias: Tensor, x: Tensor, y: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """Multiply matrices and add to the product, the latter within what follows."""
    if beta != 1 or alpha != 1:
        return NotImplemented
    return x @ y + bias


def _in_line(draw: Any) -> Callable[..., Any]:
    """Draw entry by entry from parameters of one axis."""

    def draw_in_line(*parameters: Any, **options: Any) -> Any:
        shape = torch.broadcast_shapes(*(p.shape for p in parameters if isinstance(p, Tensor)))
        if len(shape) < 2:
            return NotImplemented  # it is as it should be
        flat = (p.expand(shape).reshape(-1) if isinstance(p, Tensor) else p for p in parameters)
        return draw(*flat, **options).reshape(shape)

    return draw_in_line


# Of draws with several axes it misjudges how they lie in memory.
_ATEN = torch.ops.aten
DRAWS = (
    _ATEN.normal.Tensor_Tensor, _ATEN.normal.Tensor_float, _ATEN.normal.float_Tensor,
    _ATEN._standard_gamma.default, _ATEN.poisson.default, _ATEN.binomial.default,
    _ATEN.bernoulli.default,
)  # fmt: skip
OTHERWISE: dict[Any, Any] = {_ATEN.addmm.default: _add_bias} | {d: _in_line(d) for d in DRAWS}


# --- trees ----------------------------------------------------------------------------------


def _parts(tree: Any) -> dict[Any, Any] | None:
    """What a tree is made of, by name, or None of a leaf."""
    if isinstance(tree, dict):
        return tree
    if isinstance(tree, tuple | list) and not isinstance(tree, torch.Size):
        return dict(enumerate(tree))
    if isinstance(tree, Distribution):
        return vars(tree)
    if isinstance(tree, Transform):
        return {name: part for name, part in vars(tree).items() if not _closes_circle(tree, name)}
    return None


def _closes_circle(transform: Transform, name: str) -> bool:
    """A transform may know its inverse, and the inverse knows it."""
    return name == "_inv" and not isinstance(transform, _InverseTransform)


def _leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    parts = _parts(tree)
    if parts is None:
        yield path, tree
        return
    yield path, type(tree)
    for name, part in parts.items():
        yield from _leaves(part, (*path, name))


def _kind(leaf: Any) -> tuple[Any, ...]:
    """What of a leaf must not change: all but the values of a tensor."""
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.dtype, leaf.device
    if not isinstance(leaf, Hashable):
        raise NotImplementedError(
            f"jit_compile cannot tell one {type(leaf).__name__} from another."
        )
    return type(leaf), leaf


def _with_tensors(tree: Any, tensors: list[Tensor]) -> Any:
    """Return the tree with other tensors, in the order of its leaves."""
    following = iter(tensors)
    return _map(tree, lambda _: next(following))


def _map(tree: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """Return the tree with `fn` of each tensor."""
    if isinstance(tree, Tensor):
        return fn(tree)
    parts = _parts(tree)
    if parts is None:
        return tree
    new = {name: _map(part, fn) for name, part in parts.items()}
    if isinstance(tree, dict):
        return new
    if isinstance(tree, Distribution | Transform):
        out = copy.copy(tree)
        vars(out).update(new)
        if isinstance(tree, Transform) and _closes_circle(tree, "_inv"):
            vars(out)["_inv"] = None
        return out
    return type(tree)(*new.values()) if hasattr(tree, "_fields") else type(tree)(new.values())
