"""EncoderSpec: everything needed to use an encoder without its training code.

It travels as JSON in the checkpoint's safetensors header, in the ONNX metadata and in every pack.
Two artefacts whose `model_id` differ never work together.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from .errors import EncoderMismatchError, InputError

SPEC_VERSION = 1
SPEC_KEY = "s4g_encoder_spec"  # name of the entry in safetensors and ONNX metadata
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class EncoderSpec:
    """How to feed an encoder and how to read what it returns.

    Attributes:
        model_id: SHA-256 (hex) of the checkpoint's weights; engines derived from it keep it.
        backbone: timm name of the backbone.
        input_px: side of the square input image, pixels.
        mean: per-channel mean of RGB in [0, 1], subtracted inside the graph.
        std: per-channel standard deviation of RGB in [0, 1], divided by inside the graph.
        embedding_dim: length of the embedding.
        nested_dims: prefix lengths at which the embedding is trained to work as well.
        gsd_min_m: finest ground sample distance seen in training, metres per pixel.
        gsd_max_m: coarsest ground sample distance seen in training, metres per pixel.
        north_up: whether images must be turned north-up before embedding.
        temperature: softmax temperature that calibrates cosine scores to probabilities.
        unknown_score: cosine at which "this place is in no tile" weighs as much as one tile with
            that cosine; rivals the tiles in the softmax (0 where not calibrated).
        precision: arithmetic of this artefact, `fp32`, `fp16` or `int8`.
        head: how features become an embedding, `layout` or `pool` (docs/training.md).
        query_px: height and width of queries that are no squares of `input_px` (panoramas).
        provenance: recipe, data, seed, date and tool version, for the reader.
    """

    model_id: str
    backbone: str
    input_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    embedding_dim: int
    nested_dims: tuple[int, ...]
    gsd_min_m: float
    gsd_max_m: float
    north_up: bool
    temperature: float
    unknown_score: float = 0.0
    precision: str = "fp32"
    head: str = "layout"
    query_px: tuple[int, int] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the spec as canonical JSON (sorted keys, no spaces)."""
        value = {"spec_version": SPEC_VERSION, **dataclasses.asdict(self)}
        return json.dumps(value, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, origin: str) -> EncoderSpec:
        """Read a spec; `origin` names the file in errors.

        Raises:
            InputError: the text is no spec of a version this program reads, or a value is absurd.
        """
        try:
            value = json.loads(text)
            version = value.pop("spec_version")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            raise InputError(
                f"{origin}: its encoder spec is not valid JSON; export it again"
            ) from None
        if version != SPEC_VERSION:
            raise InputError(
                f"{origin}: encoder spec version {version!r}, this program reads {SPEC_VERSION}; "
                "update s4g"
            )
        names = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(value) - names):
            raise InputError(f"{origin}: encoder spec has unknown entries {', '.join(unknown)}")
        required = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory}
        if missing := sorted(required - set(value)):
            raise InputError(f"{origin}: encoder spec lacks {', '.join(missing)}; export it again")
        try:
            for name in ("mean", "std", "nested_dims"):
                value[name] = tuple(value[name]) if isinstance(value[name], list) else None
            if isinstance(value.get("query_px"), list):
                value["query_px"] = tuple(value["query_px"])
            sane = (spec := cls(**value))._is_sane()
        except (TypeError, ValueError, OverflowError):  # a value of another type than expected
            sane = False
        if not sane:
            raise InputError(f"{origin}: encoder spec holds values out of range; export it again")
        return spec

    def _is_sane(self) -> bool:
        scores = (self.temperature, self.unknown_score)
        numbers = (*self.mean, *self.std, self.gsd_min_m, self.gsd_max_m, *scores)
        query_px = (self.input_px,) * 2 if self.query_px is None else self.query_px
        whole = (self.input_px, self.embedding_dim, *self.nested_dims, *query_px)
        texts = (self.model_id, self.backbone, self.precision, self.head)
        return (
            all(isinstance(text, str) for text in texts)
            and _SHA256.fullmatch(self.model_id) is not None
            and len(self.mean) == len(self.std) == 3
            and all(isinstance(v, (int, float)) and math.isfinite(v) for v in numbers)
            and all(type(v) is int for v in whole)
            and 16 <= self.input_px <= 4096
            and isinstance(query_px, tuple)
            and len(query_px) == 2
            and all(16 <= side <= 4096 for side in query_px)
            and 1 <= self.embedding_dim <= 65536
            and all(0 < d <= self.embedding_dim for d in self.nested_dims)
            and min(self.std) > 0
            and self.temperature > 0
            and 0 < self.gsd_min_m <= self.gsd_max_m
            and isinstance(self.north_up, bool)
            and isinstance(self.provenance, dict)
        )


def check_same_encoder(
    first: str, first_spec: EncoderSpec, second: str, second_spec: EncoderSpec
) -> None:
    """Refuse two artefacts made by different encoders; `first` and `second` name their files.

    Raises:
        EncoderMismatchError: the model ids differ; the message names both.
    """
    if first_spec.model_id != second_spec.model_id:
        raise EncoderMismatchError(
            f"{first} was made by encoder {first_spec.model_id[:12]}, {second} by encoder "
            f"{second_spec.model_id[:12]}; use the encoder the pack was built with (--encoder) "
            "or build the pack again"
        )
