"""Which part of a network takes what another makes, seen by running it; and parts exchanged, so that it can be undone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Pair:
    """Two parts of which the second does nothing but take what the first makes."""

    maker: str
    taker: str
    arriving: tuple[int, ...]  # shape of what comes to the first


def find_pairs(
    module: nn.Module, run: Callable[[], torch.Tensor], makers: tuple[type, ...], takers: tuple[type, ...]
) -> tuple[list[Pair], torch.Tensor]:
    """Pairs of these very types that follow one another alone and once, in order; and what the run gave."""
    made: dict[int, tuple[str, torch.Tensor]] = {}  # holds the tensors, so that no id is given twice
    shapes: dict[str, tuple[int, ...]] = {}
    taken: dict[str, list[str]] = {}
    calls: dict[str, int] = {}
    hooks: list[Any] = []

    def watch(name: str, child: nn.Module) -> None:
        def arriving(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            for value in inputs:
                if id(value) in made:
                    taken.setdefault(made[id(value)][0], []).append(name)

        def leaving(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if type(child) in makers:
                made[id(output)] = (name, output)
                shapes[name] = tuple(inputs[0].shape)

        hooks.append(child.register_forward_pre_hook(arriving))
        hooks.append(child.register_forward_hook(leaving))

    children = dict(module.named_modules())
    for name, child in children.items():
        if type(child) in takers or not list(child.children()):
            watch(name, child)
    try:
        output = run()
    finally:
        for hook in hooks:
            hook.remove()
    pairs = [
        Pair(maker, after[0], shapes[maker])
        for maker, after in taken.items()
        if len(after) == 1 and calls[maker] == calls[after[0]] == 1 and type(children[after[0]]) in takers
    ]
    return pairs, output


class Exchange:
    """Submodules set in place of others, until `undo`."""

    def __init__(self, module: nn.Module) -> None:
        self.n = 0
        self._module = module
        self._undo: list[Callable[[], None]] = []

    def put(self, name: str, new: nn.Module) -> None:
        """Set a submodule, by its dotted name."""
        parent_name, _, attribute = name.rpartition(".")
        parent = self._module.get_submodule(parent_name)
        old = getattr(parent, attribute)
        setattr(parent, attribute, new)
        self._undo.append(lambda: setattr(parent, attribute, old))
        self.n += 1

    def undo(self) -> None:
        """Put back what was there."""
        for restore in reversed(self._undo):
            restore()
        self._undo.clear()
