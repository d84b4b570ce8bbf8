"""Quantisation-aware training: layers compute with weights and inputs rounded as INT8 will.

Weights: int8, symmetric, one scale per output channel, the greatest magnitude at 127: the rule of
both exported graphs. The scale of a batch norm behind the layer, or of ConvNeXt's LayerScale, is
per output channel as well, so folding it in at export moves no weight to another step. Inputs:
int8, symmetric around 0, one scale per tensor, as in the TensorRT graph; the CPU graph's free zero
point is finer, never coarser. The range is that of the batch. Nothing is learnt or remembered for
it, so the state of a training and its checkpoint have the usual names, and export calibrates as for
any checkpoint. The gradient passes the rounding unchanged (straight-through, Bengio et al.,
arXiv:1308.3432; the range clips nothing).
"""

from __future__ import annotations

import copy
import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from ..core.errors import InputError
from .timm_compat import import_timm

GREATEST = 127  # of int8; -128 is not used, so that the steps are symmetric
# Blocks whose branches export merges into one convolution: the child that takes the sum of the
# branches, or "" where the sum is the block's output.
_MERGED_BLOCKS = {
    "timm.models.byobnet.MobileOneBlock": "attn",
    "timm.models.byobnet.RepVggBlock": "attn",
    "timm.models.fastvit.MobileOneBlock": "se",
    "timm.models.fastvit.RepConditionalPosEnc": "",
    "timm.models.fastvit.RepMixer": "",
    "timm.models.fastvit.ReparamLargeKernelConv": "se",
    "timm.models.repvit.RepVggDw": "",
}
# What timm's reparameterize_model calls.
_MERGES = ("fuse", "reparameterize", "switch_to_deploy")
_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)


@dataclass(frozen=True)
class QatConfig:
    """Fine-tuning of a trained encoder for INT8; the rest is as in any training.

    Attributes:
        enabled: round weights and inputs of layers; the command's `--qat`.
        length: share of the recipe's steps or epochs.
        learning_rate_factor: of the recipe's peak.
    """

    enabled: bool = False
    length: float = 0.25
    learning_rate_factor: float = 0.05

    def check(self, origin: str) -> None:
        """Refuse values out of range; `origin` names the recipe.

        Raises:
            InputError: a share is out of range.
        """
        for name in ("length", "learning_rate_factor"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{origin}: {name} = {getattr(self, name)} must lie in (0, 1]")


def prepare(encoder: nn.Module, backbone: str) -> int:
    """Make the layers of an encoder compute with rounded weights and inputs; return how many do.

    Convolutions and linear layers change their class, in place: names and values of all weights
    stay. Everything else computes in float, as the L2 norm of the embedding does after export.

    Args:
        encoder: with weights; not yet compiled or wrapped.
        backbone: for errors.

    Raises:
        InputError: a layer cannot be rounded as its exported form will be, or there is none.
    """
    count = _prepare_children(encoder, backbone, "")
    if not count:
        raise InputError(f"backbone {backbone}: has no layer that INT8 applies to; leave out --qat")
    return count


def rounded_input(values: torch.Tensor) -> torch.Tensor:
    """Round a tensor of any shape to 255 symmetric steps; returns float32."""
    with torch.no_grad():
        low, high = values.aminmax()
        scale = _scale(torch.maximum(-low, high))
    return _rounded(values, scale)


def rounded_weight(weight: torch.Tensor) -> torch.Tensor:
    """Round a weight (O, …) to 255 symmetric steps per output channel; returns float32."""
    with torch.no_grad():
        scale = _scale(weight.flatten(1).abs().amax(1))
    return _rounded(weight, scale)


def _scale(greatest: torch.Tensor) -> torch.Tensor:
    # A tensor of zeros has no range; any step holds it exactly.
    return torch.where(greatest == 0, 1.0, greatest.float() / GREATEST)


def _rounded(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    # In float32 also where the rest is in half precision, which has no number for every step.
    rounded: torch.Tensor = _StraightThrough.apply(  # type: ignore[no-untyped-call]
        values.float(), scale
    )
    return rounded


class _StraightThrough(torch.autograd.Function):
    """Rounding whose gradient is that of doing nothing; it keeps no tensor for it.

    torch's own gradient is 0 outside the range and needs a mask as large as the activations. Here
    the range holds every value.
    """

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        zero = torch.zeros_like(scale, dtype=torch.int32)
        steps = -GREATEST, GREATEST
        if scale.ndim:
            return torch.fake_quantize_per_channel_affine(values, scale, zero, 0, *steps)
        return torch.fake_quantize_per_tensor_affine(values, scale, zero, *steps)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


class _Conv(nn.modules.conv._ConvNd):
    """A convolution with rounded weight and input."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weight = rounded_weight(self.weight)
        out: torch.Tensor = self._conv_forward(rounded_input(images), weight, self.bias)
        return out


class _ConvSame(_Conv):
    """A convolution padded as TensorFlow does, with rounded weight and input."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pad_same = import_timm().layers.pad_same
        return super().forward(pad_same(images, self.kernel_size, self.stride, self.dilation))


class _Linear(nn.Linear):
    """A linear layer with rounded weight and input."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        weight = rounded_weight(self.weight)
        return nn.functional.linear(rounded_input(values), weight, self.bias)


class _MergedBlock(nn.Module):
    """A block of branches that export merges into one convolution, rounded as that one will be.

    The branches compute in float from the rounded input, so that gradients and batch norms are
    theirs. What rounding does to the merged kernel is added to their sum: with the norms'
    statistics at rest the block then computes just what its exported form does.
    """

    s4g_sum: str

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = rounded_input(images)
        error = _rounding_error(self, images)
        out: torch.Tensor
        if not self.s4g_sum:
            out = super().forward(images) + error
            return out
        after = getattr(self, self.s4g_sum)
        with after.register_forward_pre_hook(lambda module, inputs: (inputs[0] + error,)):
            out = super().forward(images)
        return out


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _rounding_error(block: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return what the rounding of a block's merged kernel adds to the sum of its branches."""
    with torch.no_grad():
        merged = _merged(block)
        error = rounded_weight(merged.weight) - merged.weight
    out: torch.Tensor = merged._conv_forward(images, error, None)
    return out


def _merged(block: nn.Module) -> nn.Conv2d:
    """Return the convolution that export makes of a block, from its present weights."""
    from timm.utils.model import reparameterize_model

    holder = nn.Sequential(copy.deepcopy(block))  # timm merges the children of what it is given
    (merged,) = reparameterize_model(holder, inplace=True).children()
    convolution = getattr(merged, "reparam_conv", merged)
    assert isinstance(convolution, nn.Conv2d)
    return convolution


# By full class name: what a layer with a weight becomes.
_LAYERS: dict[str, type[nn.Module]] = {
    "timm.layers.conv2d_same.Conv2dSame": _ConvSame,
    "timm.layers.linear.Linear": _Linear,
    "torch.nn.modules.conv.Conv1d": _Conv,
    "torch.nn.modules.conv.Conv2d": _Conv,
    "torch.nn.modules.conv.Conv3d": _Conv,
    "torch.nn.modules.linear.Linear": _Linear,
}


@cache
def _rounding_class(kind: str) -> type[nn.Module]:
    """Return what a layer or block of this full class name becomes."""
    module, name = kind.rsplit(".", 1)
    original = getattr(importlib.import_module(module), name)
    bases = (_LAYERS.get(kind, _MergedBlock), original)
    return type(f"Rounded{name}", bases, {"s4g_sum": _MERGED_BLOCKS.get(kind, "")})


def _prepare_children(module: nn.Module, backbone: str, place: str) -> int:
    """Prepare all layers below a module; return how many layers of the export they are."""
    count = 0
    for name, child in module.named_children():
        where = f"{place}.{name}" if place else name
        kind = f"{type(child).__module__}.{type(child).__qualname__}"
        if kind in _LAYERS or kind in _MERGED_BLOCKS:
            child.__class__ = _rounding_class(kind)
            count += 1
        elif isinstance(child, _WEIGHTED) or (place and _merges_otherwise(child)):
            raise InputError(
                f"backbone {backbone}: its layer {where} ({type(child).__name__}) is not known to "
                "--qat; leave out --qat, or choose another backbone"
            )
        if kind not in _MERGED_BLOCKS:
            count += _prepare_children(child, backbone, where)
        elif after := _MERGED_BLOCKS[kind]:
            count += _prepare_children(getattr(child, after), backbone, where)
    return count


def _merges_otherwise(module: nn.Module) -> bool:
    """Tell whether export makes more of a module than a layer with its batch norm folded in.

    That a norm behind the layer is folded in changes nothing (see above). Everything else would
    make other weights of those that were rounded. The backbone as a whole is not asked: export
    merges what is in it.
    """
    if not any(hasattr(module, method) for method in _MERGES):
        return False
    weighted = [m for m in module.modules() if isinstance(m, _WEIGHTED)]
    return bool(weighted) and weighted != [next(module.children(), None)]
