"""The encoder: a timm backbone, a head that keeps the coarse layout, L2 norm.

Both views share all weights (Sample4Geo, ICCV 2023). Frames arrive north-up and at the tile's
scale, so where things lie in the image is evidence: the head flattens the last feature map
instead of averaging it away, as patch descriptors do (HardNet, NeurIPS 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..core.errors import InputError
from .timm_compat import import_timm

# Channels of the reduced feature map before it is flattened.
REDUCED_CHANNELS = 64


@dataclass(frozen=True)
class ModelConfig:
    """What is needed to build an encoder again.

    Attributes:
        backbone: timm model name.
        input_px: side of the square input, pixels.
        embedding_dim: length of the embedding.
    """

    backbone: str = "resnet18"
    input_px: int = 128
    embedding_dim: int = 256


class Encoder(nn.Module):
    """Normalised images (B, 3, H, W) float32 to embeddings (B, D) float32, L2-normalised."""

    def __init__(self, config: ModelConfig) -> None:
        """Build with random weights.

        Raises:
            InputError: timm has no such backbone, or the input is too small for it.
        """
        super().__init__()
        timm = import_timm()
        if config.backbone not in timm.list_models():
            raise InputError(
                f"backbone {config.backbone}: timm has no such model; see timm.list_models()"
            )
        self.config = config
        self.backbone = timm.create_model(config.backbone, num_classes=0, global_pool="")
        with torch.no_grad():
            probe = torch.zeros(1, 3, config.input_px, config.input_px)
            features = self.backbone.eval()(probe)
        if features.ndim != 4:
            raise InputError(
                f"backbone {config.backbone}: returns no feature map; choose a convolutional one"
            )
        channels, height, width = features.shape[1:]
        self.reduce = nn.Conv2d(channels, REDUCED_CHANNELS, 1)
        self.project = nn.Linear(REDUCED_CHANNELS * height * width, config.embedding_dim)
        self.train()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed (B, 3, H, W) float32, already normalised; return (B, D), L2-normalised."""
        features = self.reduce(self.backbone(images))
        embeddings = self.project(features.flatten(1))
        return nn.functional.normalize(embeddings.float(), dim=1)


def normalise(
    images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    """Turn images (B, H, W, 3) uint8 into (B, 3, H, W) float32, zero mean and unit variance."""
    scale = torch.tensor(std, device=images.device) * 255
    shift = torch.tensor(mean, device=images.device) * 255
    return ((images.float() - shift) / scale).permute(0, 3, 1, 2)
