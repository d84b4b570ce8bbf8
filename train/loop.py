"""The training loop: steps, averaged weights, validation, resume."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .. import __version__
from ..core.console import say
from ..core.errors import S4GError
from ..core.spec import EncoderSpec
from .checkpoint import (
    CHECKPOINT_NAME,
    load_state,
    model_id,
    save_checkpoint,
    save_state,
    start_from,
)
from .distill import Teacher
from .distributed import World, any_process, average, gather
from .gradcache import TwoViews, backward
from .loss import SymmetricInfoNCE
from .model import MEAN, STD, Encoder, normalise
from .monitor import Monitor
from .optimiser import (
    average_weights,
    learning_rate,
    load_state_tensors,
    make_optimizer,
    set_learning_rate,
    state_tensors,
)
from .qat import prepare
from .recipe import Recipe
from .seeds import mixed_seed
from .source import Batch, BatchSource, Floats, Validation, View
from .state import STATE_NAME

_REPORT_EVERY = 20
_SAY_EVERY = 5  # reports
# Before validation has calibrated it.
_UNCALIBRATED_TEMPERATURE = 0.05
# Sample4Geo starts loss scaling here; far below it half precision has lost the gradient.
_START_LOSS_SCALE = 2.0**10
_LEAST_LOSS_SCALE = 2.0**-10


class Trainer:
    """One training in one run folder."""

    def __init__(
        self,
        recipe: Recipe,
        source: BatchSource,
        run: Path,
        device: torch.device,
        world: World | None = None,
        resuming: bool = False,
    ) -> None:
        """Build encoder, loss and optimiser with the recipe's seed.

        Args:
            recipe: the training.
            source: its batches.
            run: folder for results.
            device: where to compute.
            world: the processes of this training; None: this one alone.
            resuming: `resume` follows, so the weights to start from need not be read.

        Raises:
            InputError: a model or weights that cannot be had (see `Encoder`, `start_from`), or
                layers that cannot be trained for INT8.
        """
        torch.manual_seed(recipe.seed)
        if device.type == "cuda":  # batches are of one size: look for the quickest kernels once
            torch.backends.cudnn.benchmark = True
        self.recipe, self.source, self.run, self.device = recipe, source, run, device
        self.world = world or World()
        init = recipe.model.init
        self.encoder = _on_device(Encoder(recipe.model, not (init or resuming)), device)
        if init and not resuming:
            start_from(self.encoder, Path(init), recipe.name)
        self.started_from = model_id(self.encoder) if init else ""
        if recipe.optim.grad_checkpointing:
            self.encoder.checkpoint_gradients()
        self.averaged = _on_device(Encoder(recipe.model, initialise=False), device)
        self.averaged.load_state_dict(self.encoder.state_dict())
        self.averaged.eval().requires_grad_(False)
        if recipe.qat.enabled:
            for encoder in (self.encoder, self.averaged):
                prepare(encoder, recipe.model.backbone)
        self.loss = SymmetricInfoNCE(recipe.loss).to(device)
        self.optimizer = make_optimizer(self.encoder, self.loss, recipe.optim)
        self.scaler = torch.amp.GradScaler(
            device.type, _START_LOSS_SCALE, enabled=recipe.optim.precision == "fp16"
        )
        self.teacher = (
            Teacher(recipe.distill, self.encoder.embedding_dim, device)
            if recipe.distill.teacher
            else None
        )
        self.views = self._wrapped()
        self.monitor: Monitor | None = None
        self.step = 0  # steps done
        self.epoch = 0  # running, or next
        self.first = 0  # steps of it already done
        self.best_recall = -1.0
        self.seconds = 0.0
        # Since the last report: all seconds, those spent waiting for data, sum of losses, steps.
        self._report_s = self._report_waited_s = self._report_loss = 0.0
        self._report_steps = 0
        self._stop = False

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        if self.recipe.data is None:
            return self.recipe.optim.steps
        return self.source.epochs * self.source.steps_per_epoch

    def _wrapped(self) -> nn.Module:
        views: nn.Module = TwoViews(self.encoder)
        if self.world.size > 1:
            if self.device.type == "cuda":
                views = nn.SyncBatchNorm.convert_sync_batchnorm(views)  # type: ignore[no-untyped-call]
            views = nn.parallel.DistributedDataParallel(views)
        if self.recipe.optim.compile:
            views.compile()
        return views

    def train(self, on_step: Callable[[int], None]) -> Validation | None:
        """Train to the last step; SIGINT and SIGTERM save and stop.

        Returns:
            The last validation, or None when stopped before the end.

        Raises:
            S4GError: the loss is no longer finite, or the GPU's memory is too small.
        """
        if self.world.is_first:
            self.monitor = Monitor(self.run, self.step)
        validation = None
        previous = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            if self.started_from and self.step == 0:  # what is to be bettered
                self.validate_and_save()
            while self.epoch < self.source.epochs and not self._stop:
                validation = self._train_epoch(on_step)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self.source.close()
            if self.monitor is not None:
                self.monitor.draw()
                self.monitor.close()
        if self.epoch < self.source.epochs:
            self._say(f"stopped at step {self.step}; continue with --resume")
            return None
        return validation

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop:  # asked twice: the user does not want to wait for the save
            raise KeyboardInterrupt
        self._stop = True

    def _train_epoch(self, on_step: Callable[[int], None]) -> Validation | None:
        """Train the running epoch from where it stands; validate and save at its end."""
        figures = self.source.prepare(self.epoch, self.embed)
        if figures and self.first == 0:
            self._log_event(figures)
        batches = self.source.batches(self.first)
        started = time.monotonic()
        for batch in batches:
            waited_s = time.monotonic() - started
            loss, gradient_norm = self._train_step(batch)
            self.step += 1
            self.first += 1
            on_step(1)
            now = time.monotonic()
            self._count(now - started, waited_s, loss)
            started = now
            self._report(gradient_norm)
            self._stop = any_process(self._stop, self.world, self.device)
            if self.first == self.source.steps_per_epoch or self.step == self.steps:
                break
            if self._stop:
                self.save()
                return None
            if self.step % self.recipe.optim.save_every == 0:
                self.save()
        self.epoch, self.first = self.epoch + 1, 0
        validation = None
        if self.recipe.data is None or self._validates():
            validation = self.validate_and_save()
        self.save()
        return validation

    def _validates(self) -> bool:
        every = self.recipe.optim.validate_epochs
        return self.epoch % every == 0 or self.epoch == self.source.epochs

    def _count(self, seconds: float, waited_s: float, loss: float) -> None:
        self.seconds += seconds
        self._report_loss += loss
        self._report_s += seconds
        self._report_waited_s += waited_s
        self._report_steps += 1

    def _train_step(self, batch: Batch) -> tuple[float, float]:
        optim = self.recipe.optim
        # All that is random in a step follows from its number, so that a resumed training draws
        # the same dropout.
        torch.manual_seed(mixed_seed(self.recipe.seed, self.step, self.world.rank))
        warmup = optim.warmup_steps
        if self.recipe.data is not None and optim.warmup_epochs > 0:
            warmup = round(optim.warmup_epochs * self.source.steps_per_epoch)
        set_learning_rate(self.optimizer, learning_rate(self.step, self.steps, warmup, optim))
        self.encoder.train()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss.log_scale.grad = None
        try:
            loss = backward(
                self.views,
                batch.queries,
                batch.references,
                self._loss_of(batch),
                optim.chunk_pairs,
                self._autocast,
                self.scaler.scale,
            )
        except torch.cuda.OutOfMemoryError as error:
            raise S4GError(self._out_of_memory(len(batch.queries))) from error
        assert self.loss.log_scale.grad is not None
        average(self.loss.log_scale.grad, self.world)
        average(loss, self.world)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(
            self.encoder.parameters(), optim.clip_norm if optim.clip_norm > 0 else torch.inf
        )
        self._check_finite(float(loss), float(norm))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if optim.ema_decay > 0:
            average_weights(self.averaged, self.encoder, optim.ema_decay, self.step)
        return float(loss), float(norm)

    def _loss_of(self, batch: Batch) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        taught = None
        if self.teacher is not None:
            chunk = self.recipe.optim.chunk_pairs
            with self._autocast():
                taught = self.teacher.embed(batch.queries, batch.references, MEAN, STD, chunk)
        rows = self.world.share(len(batch.queries) * self.world.size)

        def loss_of(queries: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
            whole = gather(queries, self.world), gather(references, self.world)
            loss: torch.Tensor = self.loss(*whole, batch.targets, rows)
            if self.teacher is not None and taught is not None:
                theirs = gather(taught[0], self.world), gather(taught[1], self.world)
                if batch.targets is not None:  # pictures that could not be read teach nothing
                    read = batch.targets.counted.diagonal()
                    whole = whole[0][read], whole[1][read]
                    theirs = theirs[0][read], theirs[1][read]
                loss = loss + self.teacher.loss(whole, theirs)
            return loss

        return loss_of

    def _autocast(self) -> torch.autocast:
        precision = self.recipe.optim.precision
        dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=precision != "fp32")

    def _check_finite(self, loss: float, gradient_norm: float) -> None:
        scaling = self.scaler.is_enabled()
        overflown = scaling and self.scaler.get_scale() < _LEAST_LOSS_SCALE
        if np.isfinite(loss) and not overflown and (scaling or np.isfinite(gradient_norm)):
            return
        seen = f"the loss is {loss:g}" if not np.isfinite(loss) else "the gradient is not finite"
        raise S4GError(
            f"step {self.step}: {seen}; lower learning_rate in the recipe"
            + (" or use precision = 'bf16'" if scaling else "")
            + " and train into a new --out; the last checkpoint and state are as they were"
        )

    def _out_of_memory(self, pairs: int) -> str:
        optim = self.recipe.optim
        chunk = optim.chunk_pairs or pairs
        knobs = [f"chunk_pairs = {max(1, chunk // 2)}"] if chunk > 1 else []
        if not optim.grad_checkpointing:
            knobs.append("grad_checkpointing = true")
        knobs.append(f"batch_pairs = {max(2, optim.batch_pairs // 2)}")
        return (
            f"step {self.step}: the GPU's memory is too small for {chunk} pairs at a time; "
            f"set in [optim] {' or '.join(knobs)}"
        )

    def _report(self, gradient_norm: float) -> None:
        if self.step % _REPORT_EVERY and self.step != self.steps:
            return
        seconds = max(self._report_s, 1e-9)
        rate = self._report_steps * self.recipe.optim.batch_pairs / seconds
        loss = self._report_loss / self._report_steps
        values = {
            "loss": loss,
            "temperature": 1 / float(self.loss.scale.detach()),
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "gradient_norm": gradient_norm,
            "pairs_per_s": rate,
            "images_per_s": 2 * rate,
            "data_wait_share": self._report_waited_s / seconds,
        }
        if self.monitor is not None:
            self.monitor.scalars(self.step, values)
        self._report_s = self._report_waited_s = self._report_loss = 0.0
        self._report_steps = 0
        if self.step % (_SAY_EVERY * _REPORT_EVERY) == 0:
            left_s = self.seconds / self.step * (self.steps - self.step)
            self._say(
                f"step {self.step}/{self.steps}  loss {loss:.3f}  {rate:.0f} pairs/s  "
                f"{100 * values['data_wait_share']:.0f} % of the time waiting for data  "
                f"{left_s / 60:.0f} min left"
            )

    def _log_event(self, values: dict[str, float]) -> None:
        if self.monitor is not None:
            self.monitor.event(self.step, values)
            if "hardness" in values:
                self.monitor.scalars(self.step, {"hardness": values["hardness"]})
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._say(f"epoch {self.epoch + 1}/{self.source.epochs}: {text}")

    def _say(self, message: str) -> None:
        if self.world.is_first:
            say(message)

    def embed(self, images: npt.NDArray[np.uint8], view: View) -> Floats:
        """Embed (B, H, W, 3) uint8 with the weights that would be shipped; return (B, D)."""
        encoder = self.averaged if self.recipe.optim.ema_decay > 0 else self.encoder
        encoder.eval()
        batch = torch.from_numpy(images).to(self.device)
        precise = self.device.type == "cpu"  # the checkpoint is judged in fp32 there
        with torch.inference_mode(), nullcontext() if precise else self._autocast():
            out: Floats = encoder(normalise(batch, MEAN, STD)).float().cpu().numpy()
        return out

    def validate_and_save(self) -> Validation | None:
        """Validate, and write the weights as the run's checkpoint where they are the best yet."""
        validation = self.source.validate(self.embed)
        if not self.world.is_first:
            return validation
        if validation is not None:
            recall = "  ".join(f"R@{k} {v:.3f}" for k, v in validation.recall.items())
            self._say(f"step {self.step}: validation {recall}")
            if self.monitor is not None:
                self.monitor.validation(self.step, validation.as_dict())
                self.monitor.draw()
            if validation.recall[1] < self.best_recall:
                self._say(f"the checkpoint stays that of R@1 {self.best_recall:.3f}")
                return validation
            self.best_recall = validation.recall[1]
        encoder = self.averaged if self.recipe.optim.ema_decay > 0 else self.encoder
        path = self.run / CHECKPOINT_NAME
        save_checkpoint(path, encoder, self._spec(encoder, validation), overwrite=True)
        return validation

    def _spec(self, encoder: Encoder, validation: Validation | None) -> EncoderSpec:
        recipe = self.recipe
        provenance = {
            "recipe": recipe.name,
            "seed": recipe.seed,
            "steps": self.step,
            "pairs": self.step * recipe.optim.batch_pairs,
            "minutes": round(self.seconds / 60, 1),
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            "version": __version__,
            "credits": self.source.credits,
            "validation": validation.as_dict() if validation else None,
        }
        if self.started_from:
            provenance["init"] = self.started_from
        if recipe.qat.enabled:
            provenance["qat"] = dataclasses.asdict(recipe.qat)
        dims = {d for d in recipe.loss.nested_dims if d < encoder.embedding_dim}
        low, high = self.source.gsd_range_m
        square = recipe.model.query_size_px == (recipe.model.input_px,) * 2
        return EncoderSpec(
            model_id=model_id(encoder),
            backbone=recipe.model.backbone,
            input_px=recipe.model.input_px,
            mean=MEAN,
            std=STD,
            embedding_dim=encoder.embedding_dim,
            nested_dims=(*sorted(dims), encoder.embedding_dim),
            gsd_min_m=low,
            gsd_max_m=high,
            north_up=self.source.north_up,
            temperature=validation.temperature if validation else _UNCALIBRATED_TEMPERATURE,
            unknown_score=validation.unknown_score if validation else 0.0,
            head=recipe.model.head,
            query_px=None if square else recipe.model.query_size_px,
            provenance=provenance,
        )

    def save(self) -> None:
        """Write everything needed to go on from this step."""
        if not self.world.is_first:
            return
        tensors: dict[str, torch.Tensor] = {"log_scale": self.loss.log_scale}
        for prefix, encoder in (("encoder.", self.encoder), ("averaged.", self.averaged)):
            tensors |= {prefix + k: v for k, v in encoder.state_dict().items()}
        tensors |= {f"adam.{k}": v for k, v in state_tensors(self.optimizer).items()}
        tensors |= {f"source.{k}": v for k, v in self.source.state().items()}
        values: dict[str, object] = {
            "step": self.step,
            "epoch": self.epoch,
            "first": self.first,
            "seconds": self.seconds,
            "best_recall": self.best_recall,
            "loss_scale": float(self.scaler.get_scale()),
            "started_from": self.started_from,
        }
        save_state(self.run / STATE_NAME, tensors, values)

    def resume(self) -> None:
        """Go on from the run folder's last save.

        Raises:
            IntegrityError: the saved state is damaged.
            S4GError: it belongs to another model.
        """
        path = self.run / STATE_NAME
        tensors, values = load_state(path)
        try:
            for prefix, encoder in (("encoder.", self.encoder), ("averaged.", self.averaged)):
                encoder.load_state_dict(_with_prefix(tensors, prefix))
            self.loss.log_scale.data.copy_(tensors["log_scale"])
            load_state_tensors(self.optimizer, _with_prefix(tensors, "adam."))
            self.source.load_state(_with_prefix(tensors, "source."))
            self.step, self.epoch, self.first = (
                int(str(values[name])) for name in ("step", "epoch", "first")
            )
            if self.recipe.data is None:  # steps may have been added since
                self.epoch, self.first = divmod(self.step, self.source.steps_per_epoch)
            self.seconds = float(str(values["seconds"]))
            self.best_recall = float(str(values["best_recall"]))
            loss_scale = float(str(values["loss_scale"]))
            self.started_from = str(values.get("started_from", ""))
        except (KeyError, ValueError, RuntimeError):
            raise S4GError(f"{path}: the state of another model; train into a new folder") from None
        if self.scaler.is_enabled():
            self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": loss_scale})


def _on_device(encoder: Encoder, device: torch.device) -> Encoder:
    encoder.to(device)
    # torch's own annotations leave this keyword out.
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return encoder


def _with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
