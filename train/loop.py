"""The training loop: steps, averaged weights, validation, resume."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from .. import __version__
from ..core.console import say
from ..core.errors import S4GError
from ..core.files import write_json
from ..core.spec import EncoderSpec
from .checkpoint import load_state, model_id, save_checkpoint, save_state
from .evaluate import Validation, ValidationRegion, embed, validate, validation_regions
from .grounds import Ground
from .loss import SymmetricInfoNCE
from .model import Encoder, normalise
from .pairs import PairSampler, footprint_range_m, prefetch
from .recipe import Recipe

CHECKPOINT_NAME = "encoder.safetensors"
STATE_NAME = "state.safetensors"
METRICS_NAME = "metrics.jsonl"
RECIPE_NAME = "recipe.json"

# Mean and deviation of RGB in [0, 1]; ImageNet's, which timm's pretrained weights expect as well.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_REPORT_EVERY = 20
# Before validation has calibrated it.
_UNCALIBRATED_TEMPERATURE = 0.05


class Trainer:
    """One training in one run folder."""

    def __init__(
        self, recipe: Recipe, grounds: list[Ground], run: Path, device: str, workers: int
    ) -> None:
        """Build encoder, loss and optimiser with the recipe's seed."""
        torch.manual_seed(recipe.seed)
        self.recipe, self.run, self.workers = recipe, run, workers
        self.device = torch.device(device)
        self.sampler = PairSampler(grounds, recipe)
        self.regions: list[ValidationRegion] = validation_regions(grounds, recipe)
        self.span_m = _trained_footprints(grounds, recipe)
        self.encoder = _on_device(Encoder(recipe.model), self.device)
        self.averaged = _on_device(Encoder(recipe.model), self.device)
        self.averaged.load_state_dict(self.encoder.state_dict())
        self.averaged.eval().requires_grad_(False)
        self.loss = SymmetricInfoNCE(recipe.optim.label_smoothing).to(self.device)
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.encoder, self.loss, recipe))
        self.step = 0
        self.seconds = 0.0
        self._stop = False

    def train(self, on_step: Callable[[int], None]) -> Validation | None:
        """Train to the last step; SIGINT and SIGTERM save and stop.

        Returns:
            The last validation, or None when stopped before the end.

        Raises:
            S4GError: the loss is no longer finite.
        """
        optim = self.recipe.optim
        validation = None
        previous = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            started = time.monotonic()
            for tiles, drones in self._batches():
                loss = self._train_step(tiles, drones)
                self.step += 1
                now = time.monotonic()
                self.seconds += now - started
                started = now
                on_step(1)
                last = self.step == optim.steps
                if self.step % _REPORT_EVERY == 0 or last:
                    self._report(loss)
                if self.step % optim.validate_every == 0 or last:
                    validation = self.validate_and_save()
                if self.step % optim.save_every == 0 or last or self._stop:
                    self.save()
                if self._stop and not last:
                    say(f"stopped at step {self.step}; continue with --resume")
                    return None
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        return validation

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop:  # asked twice: the user does not want to wait for the save
            raise KeyboardInterrupt
        self._stop = True

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        steps = range(self.step, self.recipe.optim.steps)
        for tiles, drones in prefetch(self.sampler, steps, self.workers):
            yield torch.from_numpy(tiles), torch.from_numpy(drones)

    def _train_step(self, tiles: torch.Tensor, drones: torch.Tensor) -> float:
        optim = self.recipe.optim
        rate = _learning_rate(self.step, optim.steps, optim.warmup_steps, optim.learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        both = torch.cat([tiles, drones]).to(self.device, non_blocking=True)
        images = normalise(both, _MEAN, _STD).contiguous(memory_format=torch.channels_last)
        self.encoder.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=optim.bf16):
            embeddings = self.encoder(images)
        loss = self.loss(*embeddings.float().chunk(2))
        if not torch.isfinite(loss):
            raise S4GError(
                f"step {self.step}: the loss is {loss.item()}; lower learning_rate in the recipe "
                "and continue from the last save with --resume"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.encoder.parameters(), 5.0)
        self.optimizer.step()
        self._average()
        return float(loss.detach())

    def _average(self) -> None:
        # Early on the average must follow quickly, or it keeps the random start for long.
        decay = min(self.recipe.optim.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = zip(
                self.averaged.state_dict().values(), self.encoder.state_dict().values(), strict=True
            )
            for mean, value in pairs:
                if mean.dtype.is_floating_point:
                    mean.lerp_(value, 1 - decay)
                else:
                    mean.copy_(value)

    def _report(self, loss: float) -> None:
        optim = self.recipe.optim
        pairs_per_s = self.step * optim.batch_pairs / max(self.seconds, 1e-9)
        left_s = self.seconds / self.step * (optim.steps - self.step)
        self._log(
            {
                "step": self.step,
                "loss": round(loss, 4),
                "temperature": round(1 / float(self.loss.scale.detach()), 4),
                "pairs_per_s": round(pairs_per_s, 1),
            }
        )
        if self.step % (5 * _REPORT_EVERY) == 0:
            say(
                f"step {self.step}/{optim.steps}  loss {loss:.3f}  {pairs_per_s:.0f} pairs/s  "
                f"{left_s / 60:.0f} min left"
            )

    def _log(self, values: dict[str, Any]) -> None:
        with (self.run / METRICS_NAME).open("a") as file:
            file.write(json.dumps(values) + "\n")

    def validate_and_save(self) -> Validation | None:
        """Validate the averaged weights and write them as the run's checkpoint."""
        validation = None
        if self.regions:
            validation = validate(
                self.regions, lambda images: embed(self.averaged, images, _MEAN, _STD)
            )
            self._log({"step": self.step, "validation": validation.as_dict()})
            recall = "  ".join(f"R@{k} {v:.3f}" for k, v in validation.recall.items())
            say(f"step {self.step}: validation {recall}")
        save_checkpoint(
            self.run / CHECKPOINT_NAME,
            self.averaged,
            self._spec(validation),
            overwrite=True,
        )
        return validation

    def _spec(self, validation: Validation | None) -> EncoderSpec:
        recipe = self.recipe
        provenance = {
            "recipe": recipe.name,
            "seed": recipe.seed,
            "steps": self.step,
            "pairs": self.step * recipe.optim.batch_pairs,
            "minutes": round(self.seconds / 60, 1),
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            "version": __version__,
            "credits": sorted({g.credit for g in recipe.grounds if g.credit}),
            "validation": validation.as_dict() if validation else None,
        }
        return EncoderSpec(
            model_id=model_id(self.averaged),
            backbone=recipe.model.backbone,
            input_px=recipe.model.input_px,
            mean=_MEAN,
            std=_STD,
            embedding_dim=recipe.model.embedding_dim,
            nested_dims=(recipe.model.embedding_dim,),
            gsd_min_m=self.span_m[0] / recipe.model.input_px,
            gsd_max_m=self.span_m[1] / recipe.model.input_px,
            north_up=True,
            temperature=validation.temperature if validation else _UNCALIBRATED_TEMPERATURE,
            unknown_score=validation.unknown_score if validation else 0.0,
            provenance=provenance,
        )

    def save(self) -> None:
        """Write everything needed to go on from this step."""
        tensors: dict[str, torch.Tensor] = {"log_scale": self.loss.log_scale}
        for prefix, encoder in (("encoder.", self.encoder), ("averaged.", self.averaged)):
            tensors |= {prefix + k: v for k, v in encoder.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": value for name, value in state.items()}
        save_state(self.run / STATE_NAME, tensors, {"step": self.step, "seconds": self.seconds})

    def resume(self) -> None:
        """Go on from the run folder's last save.

        Raises:
            IntegrityError: the saved state is damaged.
            S4GError: it belongs to another model.
        """
        tensors, values = load_state(self.run / STATE_NAME)
        try:
            for prefix, encoder in (("encoder.", self.encoder), ("averaged.", self.averaged)):
                encoder.load_state_dict(_with_prefix(tensors, prefix))
        except RuntimeError:
            raise S4GError(
                f"{self.run / STATE_NAME}: the state of another model; train into a new folder"
            ) from None
        self.loss.log_scale.data.copy_(tensors["log_scale"])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _with_prefix(tensors, "adam.").items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.step, self.seconds = int(str(values["step"])), float(str(values["seconds"]))

    def write_recipe(self) -> None:
        """Keep the resolved recipe beside the results."""
        write_json(self.run / RECIPE_NAME, dataclasses.asdict(self.recipe), overwrite=True)


def _on_device(encoder: Encoder, device: torch.device) -> Encoder:
    encoder.to(device)
    # torch's own annotations leave this keyword out.
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return encoder


def _with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _parameter_groups(
    encoder: Encoder, loss: SymmetricInfoNCE, recipe: Recipe
) -> list[dict[str, Any]]:
    """Weight decay is for matrices: norms, biases and the scale have none."""
    matrices = [p for p in encoder.parameters() if p.ndim > 1]
    others = [p for p in encoder.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": recipe.optim.weight_decay},
        {"params": [*others, loss.log_scale], "weight_decay": 0.0},
    ]


def _learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _trained_footprints(grounds: list[Ground], recipe: Recipe) -> tuple[float, float]:
    spans = [footprint_range_m(g, recipe) for g in grounds if not g.validates]
    known = [span for span in spans if span is not None]
    return min(low for low, _ in known), max(high for _, high in known)
