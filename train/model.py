"""The encoder: a timm backbone, a head, L2 norm; both views share all weights.

Sharing is Sample4Geo's (ICCV 2023). Two heads. `layout` keeps the coarse layout: frames arrive
north-up and at the tile's scale, so where things lie in the image is evidence, and the last
feature map is flattened instead of averaged away, as patch descriptors do (HardNet, NeurIPS
2017). `pool` is Sample4Geo's: the backbone's own pooling and norm, no projection; it takes inputs
of any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.errors import InputError
from .timm_compat import import_timm

# Channels of the reduced feature map before it is flattened.
REDUCED_CHANNELS = 64
HEADS = ("layout", "pool")
# Mean and deviation of RGB in [0, 1]; ImageNet's, which timm's pretrained weights expect as well.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelConfig:
    """What is needed to build an encoder again, and where its first weights come from.

    Attributes:
        backbone: timm model name, with or without the tag of its pretrained weights.
        input_px: side of the square input: map tiles, and queries unless `query_px` is given.
        embedding_dim: length of the embedding; 0: what the backbone gives (head `pool`).
        head: `layout` or `pool`.
        query_px: height and width of the queries where they are no squares of `input_px`.
        pretrained: start from timm's weights for the backbone, fetched over the network.
        pretrained_file: start from this safetensors file of the backbone instead.
        init: start from all weights of this checkpoint of s4g-train instead.
    """

    backbone: str = "resnet18"
    input_px: int = 128
    embedding_dim: int = 256
    head: str = "layout"
    query_px: tuple[int, ...] = ()
    pretrained: bool = False
    pretrained_file: str = ""
    init: str = ""

    @property
    def query_size_px(self) -> tuple[int, int]:
        """Height and width of a query."""
        return (self.query_px[0], self.query_px[1]) if self.query_px else (self.input_px,) * 2

    def check(self, origin: str) -> None:
        """Refuse what cannot be built; `origin` names the recipe.

        Raises:
            InputError: an unknown head, a size that is no pair, or sizes that the head cannot take.
        """
        if self.head not in HEADS:
            raise InputError(f"{origin}: head = {self.head!r} must be one of {', '.join(HEADS)}")
        if self.query_px and (
            len(self.query_px) != 2 or not all(type(v) is int and v > 0 for v in self.query_px)
        ):
            raise InputError(
                f"{origin}: query_px = {list(self.query_px)} must be [height, width] in pixels"
            )
        if self.head == "layout" and self.query_size_px != (self.input_px,) * 2:
            raise InputError(
                f"{origin}: head = 'layout' takes queries of {self.input_px} x {self.input_px} px "
                f"only, query_px is {list(self.query_px)}; use head = 'pool'"
            )
        if self.head == "layout" and self.embedding_dim < 1:
            raise InputError(
                f"{origin}: embedding_dim = {self.embedding_dim}; head = 'layout' needs a length"
            )


class Encoder(nn.Module):
    """Normalised images (B, 3, H, W) float32 to embeddings (B, D) float32, L2-normalised."""

    def __init__(self, config: ModelConfig, initialise: bool = True) -> None:
        """Build the network.

        Args:
            config: what to build.
            initialise: take the pretrained weights that the config names; False where others
                are loaded next.

        Raises:
            InputError: timm has no such backbone, the input is too small for it, the weights
                cannot be had, or the head does not fit it.
        """
        super().__init__()
        self.config = config
        self.head = config.head
        self.backbone = _backbone(config, initialise)
        self.embedding_dim = config.embedding_dim
        with torch.no_grad():
            probe = torch.zeros(1, 3, config.input_px, config.input_px)
            features = self.backbone.eval()(probe)
        if config.head == "pool":
            self.embedding_dim = features.shape[1]
            if config.embedding_dim not in (0, self.embedding_dim):
                raise InputError(
                    f"backbone {config.backbone}: gives {self.embedding_dim} numbers with head = "
                    f"'pool', embedding_dim is {config.embedding_dim}; set embedding_dim = 0"
                )
        elif features.ndim != 4:
            raise InputError(
                f"backbone {config.backbone}: returns no feature map; choose a convolutional one "
                "or head = 'pool'"
            )
        else:
            channels, height, width = features.shape[1:]
            self.reduce = nn.Conv2d(channels, REDUCED_CHANNELS, 1)
            self.project = nn.Linear(REDUCED_CHANNELS * height * width, config.embedding_dim)
        self.train()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed (B, 3, H, W) float32, already normalised; return (B, D), L2-normalised."""
        embeddings = self.backbone(images)
        if self.head == "layout":
            embeddings = self.project(self.reduce(embeddings).flatten(1))
        return nn.functional.normalize(embeddings.float(), dim=1)

    def checkpoint_gradients(self) -> None:
        """Trade time for memory: keep no activations inside blocks, compute them again.

        Raises:
            InputError: the backbone has no such mode.
        """
        try:
            self.backbone.set_grad_checkpointing(True)
        except (AttributeError, AssertionError, NotImplementedError):
            raise InputError(
                f"backbone {self.config.backbone}: has no gradient checkpointing; "
                "set grad_checkpointing = false and use chunk_pairs to save memory"
            ) from None


def _backbone(config: ModelConfig, initialise: bool) -> Any:
    timm = import_timm()
    architecture = config.backbone.split(".")[0]
    if not timm.is_model(architecture):
        raise InputError(
            f"backbone {config.backbone}: timm has no such model; see timm.list_models()"
        )
    options: dict[str, Any] = {"num_classes": 0}
    if config.head == "layout":
        options["global_pool"] = ""
    if timm.get_pretrained_cfg(architecture).fixed_input_size:  # transformers
        options["img_size"] = config.input_px
        if config.query_size_px != (config.input_px,) * 2:
            options["dynamic_img_size"] = True
    try:
        backbone = timm.create_model(config.backbone, **options)
    except Exception as error:
        raise InputError(
            f"backbone {config.backbone}: cannot be built for an input of {config.input_px} px "
            f"({_one_line(error)}); choose another input_px"
        ) from error
    if not initialise or not (config.pretrained or config.pretrained_file):
        return backbone
    if config.pretrained_file:
        path = Path(config.pretrained_file)
    else:
        path = _fetched(config.backbone, timm.get_pretrained_cfg(config.backbone).hf_hub_id)
    _check_weights(path, config.backbone, backbone)
    # Once more, by timm, which fits a transformer's positions to another size.
    options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}
    try:
        return timm.create_model(config.backbone, **options)
    except RuntimeError as error:
        raise InputError(
            f"pretrained_file {path}: is not of {config.backbone} ({_one_line(error)}); "
            "save the weights of this backbone"
        ) from error


def _fetched(backbone: str, repository: str | None) -> Path:
    """Return timm's weights of a backbone, from its hub or the cache of earlier fetches.

    Only the safetensors file: timm itself would fall back to a pickle.
    """
    from huggingface_hub import hf_hub_download

    try:
        if not repository:
            raise ValueError("timm publishes none")
        return Path(hf_hub_download(repository, "model.safetensors"))
    except Exception as error:
        raise InputError(
            f"backbone {backbone}: timm's pretrained weights cannot be had ({_one_line(error)}); "
            "name a safetensors file in pretrained_file, or set pretrained = false"
        ) from error


def _check_weights(path: Path, name: str, backbone: nn.Module) -> None:
    """Refuse a file that lacks weights of the backbone; timm would leave those at random."""
    if path.suffix != ".safetensors" or not path.is_file():
        raise InputError(
            f"pretrained_file {path}: no such safetensors file; save the backbone's weights with "
            "safetensors, other formats can run code"
        )
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            there = set(file.keys())
    except SafetensorError as error:
        raise InputError(f"pretrained_file {path}: not a safetensors file ({error})") from None
    if missing := [key for key, _ in backbone.named_parameters() if key not in there]:
        raise InputError(
            f"pretrained_file {path}: is not of {name}, it lacks {missing[0]} ({len(missing)} in "
            "all); save the weights of this backbone"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def normalise(
    images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    """Turn (B, H, W, 3) in [0, 255] into (B, 3, H, W) float32 of zero mean and unit variance."""
    scale = torch.tensor(std, device=images.device) * 255
    shift = torch.tensor(mean, device=images.device) * 255
    return ((images.float() - shift) / scale).permute(0, 3, 1, 2)
