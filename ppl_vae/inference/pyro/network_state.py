"""What nets keep besides their parameters: running means, in torch's buffers.

Every run of a net in training mode changes them.  They belong to a training as its parameters do,
though Pyro does not know of them.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

__all__ = ["buffers_kept", "kept"]


@contextmanager
def buffers_kept() -> Iterator[list[Tensor]]:
    """Yield a list that fills with the buffers of nets that run; in the end they are as before."""
    found: list[Tensor] = []
    before: dict[int, Tensor] = {}

    def note(net: nn.Module, args: Any) -> None:
        del args
        for buffer in net.buffers(recurse=False):
            if id(buffer) not in before:
                found.append(buffer)
                before[id(buffer)] = buffer.clone()

    hook = register_module_forward_pre_hook(note)
    try:
        yield found
    finally:
        hook.remove()
        _restore(found, before.values())


@contextmanager
def kept(buffers: list[Tensor]) -> Iterator[None]:
    """Let these buffers be in the end as they were before."""
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        _restore(buffers, before)


def _restore(buffers: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    with torch.no_grad():
        for buffer, value in zip(buffers, values, strict=True):
            buffer.copy_(value)
