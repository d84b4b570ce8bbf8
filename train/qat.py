"""Quantisation-aware training: layers compute with weights and inputs rounded as INT8 will.

Weights: int8, symmetric, one scale per output channel, the greatest magnitude at 127: the rule of
both exported graphs. The scale of a batch norm behind the layer, or of ConvNeXt's LayerScale, is
per output channel as well, so folding it in at export moves no weight to another step. Inputs: one
range per tensor, that of the batch. Nothing is learnt or remembered for it, so the state of a
training and its checkpoint have the usual names, and export calibrates as for any checkpoint. The
gradient passes the rounding unchanged (straight-through, Bengio et al., arXiv:1308.3432; the ranges
clip nothing).
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

TARGETS = ("both", "cpu")
_WEIGHT_MAX = 127  # of int8 weights; -128 is not used, as in ONNX Runtime
_LEVELS_U8 = 255
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
        target: `both`: inputs as signed integers, symmetric around 0, the coarser of the two
            grids; `cpu`: as unsigned integers with a free zero point.
        length: share of the recipe's steps or epochs.
        learning_rate_factor: of the recipe's peak.
        freeze_norms: share of the training after which batch norms keep the statistics they have,
            as at inference.
    """

    enabled: bool = False
    target: str = "both"
    length: float = 0.25
    learning_rate_factor: float = 0.1
    freeze_norms: float = 0.5

    def check(self, origin: str) -> None:
        """Refuse values out of range; `origin` names the recipe.

        Raises:
            InputError: an unknown target or a share out of range.
        """
        if self.target not in TARGETS:
            raise InputError(
                f"{origin}: target = {self.target!r} must be one of {', '.join(TARGETS)}"
            )
        for name in ("length", "learning_rate_factor"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{origin}: {name} = {getattr(self, name)} must lie in (0, 1]")
        if not 0 <= self.freeze_norms <= 1:
            raise InputError(f"{origin}: freeze_norms = {self.freeze_norms} must lie in [0, 1]")


def prepare(encoder: nn.Module, target: str, backbone: str) -> int:
    """Make the layers of an encoder compute with rounded weights and inputs; return how many do.

    Convolutions and linear layers change their class, in place: names and values of all weights
    stay. Everything else computes in float, as the L2 norm of the embedding does after export.

    Args:
        encoder: with weights; not yet compiled or wrapped.
        target: one of `TARGETS`.
        backbone: for errors.

    Raises:
        InputError: a layer cannot be rounded as its exported form will be, or there is none.
    """
    unsigned = target == "cpu"
    count = _prepare_children(encoder, unsigned, backbone, "")
    if not count:
        raise InputError(f"backbone {backbone}: has no layer that INT8 applies to; leave out --qat")
    return count


def freeze_norms(encoder: nn.Module) -> None:
    """Let batch norms use the statistics they have, as at inference, until `train()` is called."""
    for module in encoder.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def rounded_input(values: torch.Tensor, unsigned: bool) -> torch.Tensor:
    """Round a tensor to 256 steps of its own range; returns float32.

    Args:
        values: any shape, float.
        unsigned: steps from the least to the greatest value, 0 among them, as in the CPU graph;
            else symmetric around 0, as in the TensorRT graph.
    """
    with torch.no_grad():
        low, high = (bound.float() for bound in values.aminmax())
        if unsigned:
            low, high = low.clamp(max=0), high.clamp(min=0)
            scale = _scale(high - low, _LEVELS_U8)
            zero = (-low / scale).round().int()
            least, greatest = 0, _LEVELS_U8
        else:
            scale = _scale(torch.maximum(-low, high), _WEIGHT_MAX)
            zero = torch.zeros_like(scale, dtype=torch.int32)
            least, greatest = -_WEIGHT_MAX - 1, _WEIGHT_MAX
    rounded: torch.Tensor = _StraightThrough.apply(  # type: ignore[no-untyped-call]
        values.float(), scale, zero, least, greatest
    )
    return rounded


def rounded_weight(weight: torch.Tensor) -> torch.Tensor:
    """Round a weight (O, …) to 255 symmetric steps per output channel; returns float32."""
    with torch.no_grad():
        scale = _scale(weight.float().flatten(1).abs().amax(1), _WEIGHT_MAX)
        zero = torch.zeros_like(scale, dtype=torch.int32)
    rounded: torch.Tensor = _StraightThrough.apply(  # type: ignore[no-untyped-call]
        weight.float(), scale, zero, -_WEIGHT_MAX, _WEIGHT_MAX
    )
    return rounded


def _scale(span: torch.Tensor, steps: int) -> torch.Tensor:
    # A channel of zeros has no range; any step holds it exactly.
    return torch.where(span == 0, 1.0, span / steps)


class _StraightThrough(torch.autograd.Function):
    """Rounding whose gradient is that of doing nothing; it keeps no tensor for it.

    torch's own gradient is 0 outside the range and needs a mask as large as the activations. Here
    the range holds every value.
    """

    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        scale: torch.Tensor,
        zero: torch.Tensor,
        least: int,
        greatest: int,
    ) -> torch.Tensor:
        if scale.ndim:
            return torch.fake_quantize_per_channel_affine(values, scale, zero, 0, least, greatest)
        return torch.fake_quantize_per_tensor_affine(values, scale, zero, least, greatest)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        return gradient, None, None, None, None


class _Conv(nn.modules.conv._ConvNd):
    """A convolution with rounded weight and input."""

    s4g_unsigned: bool

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weight = rounded_weight(self.weight)
        out: torch.Tensor = self._conv_forward(
            rounded_input(images, self.s4g_unsigned), weight, self.bias
        )
        return out


class _ConvSame(_Conv):
    """A convolution padded as TensorFlow does, with rounded weight and input."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pad_same = import_timm().layers.pad_same
        return super().forward(pad_same(images, self.kernel_size, self.stride, self.dilation))


class _Linear(nn.Linear):
    """A linear layer with rounded weight and input."""

    s4g_unsigned: bool

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values, weight = rounded_input(values, self.s4g_unsigned), rounded_weight(self.weight)
        return nn.functional.linear(values, weight, self.bias)


class _MergedBlock(nn.Module):
    """A block of branches that export merges into one convolution, rounded as that one will be.

    The branches compute in float from the rounded input, so that gradients and batch norms are
    theirs. What rounding does to the merged kernel is added to their sum: with the norms'
    statistics at rest the block then computes just what its exported form does.
    """

    s4g_unsigned: bool
    s4g_sum: str

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = rounded_input(images, self.s4g_unsigned)
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
def _rounding_class(kind: str, unsigned: bool) -> type[nn.Module]:
    """Return what a layer or block of this full class name becomes."""
    module, name = kind.rsplit(".", 1)
    original = getattr(importlib.import_module(module), name)
    bases = (_LAYERS.get(kind, _MergedBlock), original)
    settings = {"s4g_unsigned": unsigned, "s4g_sum": _MERGED_BLOCKS.get(kind, "")}
    return type(f"Rounded{name}", bases, settings)


def _prepare_children(module: nn.Module, unsigned: bool, backbone: str, place: str) -> int:
    """Prepare all layers below a module; return how many layers of the export they are."""
    count = 0
    for name, child in module.named_children():
        where = f"{place}.{name}" if place else name
        kind = f"{type(child).__module__}.{type(child).__qualname__}"
        if kind in _LAYERS or kind in _MERGED_BLOCKS:
            child.__class__ = _rounding_class(kind, unsigned)
            count += 1
        elif isinstance(child, _WEIGHTED) or (place and _merges_otherwise(child)):
            raise InputError(
                f"backbone {backbone}: its layer {where} ({type(child).__name__}) is not known to "
                "--qat; leave out --qat, or choose another backbone"
            )
        if kind not in _MERGED_BLOCKS:
            count += _prepare_children(child, unsigned, backbone, where)
        elif after := _MERGED_BLOCKS[kind]:
            count += _prepare_children(getattr(child, after), unsigned, backbone, where)
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
