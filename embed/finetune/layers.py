"""The blocks of an encoder, and what is trained of it: rates by depth, the last blocks, adapters, recomputation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from embed.finetune.recipe import FinetuneRecipe
from embed.forward.convnet import is_convnet, stages
from embed.forward.passes import half_type
from store.errors import EncoderError

MERGE_WHOLE = "unload_and_optionally_merge_module"  # of peft's layers that hold other adapted layers
AFTER_BLOCKS = ("proj", "text_projection")  # of open_clip: declared before the blocks, applied after them


@dataclass(frozen=True)
class Layers:
    """An encoder's blocks, in the order that data passes them."""

    blocks: list[nn.Module]
    depth: dict[
        str, int
    ]  # parameter -> 0 before the first block, 1 the first, len(blocks) + 1 after the last

    @classmethod
    def of(cls, module: nn.Module) -> "Layers":
        """Find them: the largest list of modules of one kind, or the blocks of a convolutional network."""
        blocks = _blocks(module)
        inside = {id(p): at for at, block in enumerate(blocks, 1) for p in block.parameters()}
        depth, current = {}, 0
        for name, parameter in module.named_parameters():
            if id(parameter) in inside:
                current = depth[name] = inside[id(parameter)]
            else:
                is_after = current > 0 or name.rpartition(".")[2] in AFTER_BLOCKS
                depth[name] = len(blocks) + 1 if is_after else 0
        return cls(blocks, depth)

    def untrained(self, module: nn.Module) -> list[nn.Module]:
        """The largest parts of the encoder that are not trained: whole blocks, and the modules around blocks."""
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            return [module]
        if any(module is block for block in self.blocks):
            return []
        return [part for child in module.children() for part in self.untrained(child)]


def _blocks(module: nn.Module) -> list[nn.Module]:
    if is_convnet(module):
        return [stage for stage in stages(module) if sum(1 for m in stage.modules() if _owns(m)) > 1]
    lists = [
        m
        for m in module.modules()
        if isinstance(m, nn.ModuleList | nn.Sequential) and len(m) > 1 and len({type(one) for one in m}) == 1
    ]
    if not lists:
        return []
    return list(max(lists, key=lambda m: sum(p.numel() for p in m.parameters())).children())


def _owns(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def prepare_tower(module: nn.Module, name: str, recipe: FinetuneRecipe) -> Layers:
    """Decide what is trained of an encoder; the rest no longer asks for gradients.

    Raises:
        EncoderError: it has no blocks that could be chosen from, or fewer than asked for.
    """
    layers = Layers.of(module)
    first_trained = 0
    if half_type(module) is not None and not recipe.lora:
        raise EncoderError(
            f"{name}: its weights are stored in {half_type(module)}, which is too coarse for training: pass --lora 16"
        )
    if recipe.last_blocks:
        if recipe.last_blocks > len(layers.blocks):
            raise EncoderError(
                f"{name}: the last {recipe.last_blocks} blocks can't be trained, it has {len(layers.blocks)}: "
                "pass a smaller --last-blocks"
            )
        first_trained = len(layers.blocks) + 1 - recipe.last_blocks
    for parameter_name, parameter in module.named_parameters():
        parameter.requires_grad_(layers.depth[parameter_name] >= first_trained)
    trained_blocks = layers.blocks[max(0, first_trained - 1) :]
    if recipe.lora:
        _add_adapters(module, name, recipe.lora, trained_blocks)
        layers = Layers(layers.blocks, Layers.of(module).depth)
    if recipe.checkpointing:
        for block in trained_blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    return layers


def rate_groups(
    module: nn.Module, layers: Layers, rate: float, layer_decay: float
) -> list[tuple[float, list[nn.Parameter]]]:
    """Trained parameters with their peak rate: each block's is `layer_decay` times that of the one after it."""
    top = len(layers.blocks) + 1
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(layers.depth[name], []).append(parameter)
    return [(rate * layer_decay ** (top - depth), groups[depth]) for depth in sorted(groups)]


# ---- adapters ------------------------------------------------------------------------------------


def _add_adapters(module: nn.Module, name: str, rank: int, blocks: Sequence[nn.Module]) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise EncoderError("--lora needs peft: pip install 'shelfprice[finetune]'") from error
    inside = {id(m) for block in blocks for m in block.modules()}
    names = [n for n, m in module.named_modules() if id(m) in inside and _is_adaptable(module, n, m)]
    if not names:
        raise EncoderError(
            f"{name}: no layer can take adapters: leave out --lora, or use it with a transformer"
        )
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=names)
    inject_adapter_in_model(config, module)
    for (
        own,
        parameter,
    ) in module.named_parameters():  # peft gives them the type of the weights that they stand beside
        if "lora_" in own:
            parameter.data = parameter.data.float()


def _is_adaptable(module: nn.Module, name: str, layer: nn.Module) -> bool:
    """Linear layers and 1 x 1 convolutions; attention of torch's own kind as a whole, never the layers in it."""
    parent = module.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention):
        return False
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.kernel_size == (1, 1)
    return isinstance(layer, nn.Linear | nn.MultiheadAttention)


@torch.no_grad()
def merge_adapters(module: nn.Module) -> None:
    """Add what the adapters learned to the weights that they stand beside, and take them out."""
    try:
        from peft.tuners.lora import LoraLayer
    except ImportError:
        return
    adapted = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, LoraLayer)]
    whole = tuple(f"{name}." for name, layer in adapted if hasattr(layer, MERGE_WHOLE))
    for name, found in adapted:
        layer: Any = found
        if name.startswith(whole):  # part of an attention that is merged as a whole
            continue
        if hasattr(layer, MERGE_WHOLE):
            plain = getattr(layer, MERGE_WHOLE)(merge=True, safe_merge=False, adapter_names=None)
        else:
            layer.merge()
            plain = layer.get_base_layer()
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent), own, plain)
