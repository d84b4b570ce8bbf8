"""Layers round as INT8 will, what they learn reaches the plain weights, and training resumes."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from s4g.core.console import run_command
from s4g.core.errors import InputError
from s4g.core.images import encode_rgb
from s4g.train.checkpoint import load_checkpoint, load_state, model_id
from s4g.train.cli import cli
from s4g.train.evaluate import GroundValidation
from s4g.train.gradcache import TwoViews, backward
from s4g.train.ground_source import GroundSource
from s4g.train.grounds import Ground, load_grounds
from s4g.train.loop import Trainer
from s4g.train.loss import LossConfig, SymmetricInfoNCE
from s4g.train.model import Encoder, ModelConfig
from s4g.train.opening import with_overrides
from s4g.train.qat import QatConfig, prepare, rounded_input, rounded_weight
from s4g.train.recipe import GroundConfig, OptimConfig, Recipe, ViewConfig, load_recipe
from s4g.train.source import Embed
from s4g.train.timm_compat import import_timm

GROUND = GroundConfig("pictures", files=("*.png",), gsd_m=0.5)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Pictures this small are not worth a second thread, and it waits for its turn."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- rounding -------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_inputs_take_255_steps_around_zero_and_move_by_half_a_step_at_most(
    seed: int, size: float
) -> None:
    values = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) * size
    rounded = rounded_input(values)
    step = values.abs().max() / 127
    numbers = rounded / step
    assert torch.allclose(numbers, numbers.round(), atol=1e-3)
    assert numbers.abs().max().round() == 127
    assert (rounded - values).abs().max() <= step * 0.501


def test_inputs_that_are_all_zero_stay_zero() -> None:
    assert torch.equal(rounded_input(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_weights_have_a_step_of_their_own_in_each_output_channel() -> None:
    weight = torch.tensor([[127.0, 0.4, -3.6], [0.0, 0.0, 0.0], [-2.54, 0.011, 0.029]])
    rounded = rounded_weight(weight)
    expected = torch.tensor([[127.0, 0.0, -4.0], [0.0, 0.0, 0.0], [-2.54, 0.02, 0.02]])
    assert torch.allclose(rounded, expected, atol=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_a_factor_per_output_channel_moves_no_weight_to_another_step(seed: int) -> None:
    """So a batch norm or a LayerScale behind the layer may be folded in after rounding."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, 4, 3, 3, generator=generator)
    factor = torch.randn(6, 1, 1, 1, generator=generator) * 10  # gammas may be negative
    folded = rounded_weight(weight * factor)
    step = (weight * factor).abs().amax((1, 2, 3), keepdim=True) / 127
    ties = ((weight * factor / step) % 1 - 0.5).abs() < 1e-4  # float decides these
    assert torch.allclose(folded[~ties], (rounded_weight(weight) * factor)[~ties], rtol=1e-5)


def test_gradients_pass_as_if_nothing_was_rounded() -> None:
    for rounded in (rounded_weight, rounded_input):
        values = torch.randn(3, 8, requires_grad=True)
        rounded(values).backward(torch.arange(24.0).reshape(3, 8))
        assert torch.equal(values.grad, torch.arange(24.0).reshape(3, 8))


def test_rounding_is_in_float32_where_the_rest_is_in_bfloat16() -> None:
    values = torch.randn(2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert rounded_input(values.bfloat16()).dtype == torch.float32
        assert rounded_weight(values).dtype == torch.float32


# --- layers ---------------------------------------------------------------------------------


def test_a_convolution_computes_with_rounded_weight_and_input() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1, groups=1), nn.Conv2d(5, 5, 3, groups=5))
    images = torch.randn(2, 3, 16, 16)
    first, second = layers
    weights = [rounded_weight(layer.weight).detach() for layer in layers]
    with torch.no_grad():
        middle = nn.functional.conv2d(rounded_input(images), weights[0], first.bias, 2, 1)
        expected = nn.functional.conv2d(rounded_input(middle), weights[1], second.bias, groups=5)
        assert prepare(layers, "two") == 2
        assert torch.equal(layers(images), expected)


def test_a_convolution_padded_as_in_tensorflow_stays_so() -> None:
    torch.manual_seed(0)
    layer = import_timm().layers.Conv2dSame(3, 4, 3, stride=2)
    images = torch.randn(2, 3, 15, 18)
    same = copy.deepcopy(layer)
    with torch.no_grad():
        same.weight.copy_(rounded_weight(layer.weight))
        expected = same(rounded_input(images))
        layers = nn.Sequential(layer)
        prepare(layers, "one")
        assert torch.equal(layers(images), expected)


@pytest.mark.parametrize(("backbone", "head"), [("test_convnext", "layout"), ("test_vit", "pool")])
def test_an_encoder_keeps_names_and_weights_and_counts_its_layers(backbone: str, head: str) -> None:
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig(backbone, 64, 32 if head == "layout" else 0, head)).eval()
    for module in encoder.modules():  # LayerScale starts near 0 and would hide the blocks
        if isinstance(getattr(module, "gamma", None), nn.Parameter):
            nn.init.constant_(module.gamma, 0.5)
    before, names = model_id(encoder), list(encoder.state_dict())
    weighted = [m for m in encoder.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        exact = encoder(images)
        assert prepare(encoder, backbone) == len(weighted)
        rounded = encoder(images)
    assert (model_id(encoder), list(encoder.state_dict())) == (before, names)
    assert not torch.equal(exact, rounded)
    assert (exact * rounded).sum(1).min() > 0.99
    assert torch.allclose(rounded.norm(dim=1), torch.ones(4), atol=1e-5)


def merged_blocks() -> dict[str, nn.Module]:
    import_timm()
    from timm.layers import ConvNormAct
    from timm.models import byobnet, fastvit, repvit

    layers = byobnet.LayerFn()
    squeezing = byobnet.LayerFn(attn=import_timm().layers.SqueezeExcite)
    assert layers.conv_norm_act is ConvNormAct
    return {
        "repvit": repvit.RepVggDw(8, 3),
        "repvit, as published first": repvit.RepVggDw(8, 3, legacy=True),
        "mobileone": byobnet.MobileOneBlock(8, 8, 3, num_conv_branches=2, layers=layers),
        "mobileone, strided": byobnet.MobileOneBlock(8, 12, 3, stride=2, layers=squeezing),
        "mobileone, depthwise": byobnet.MobileOneBlock(8, 8, 3, group_size=1, layers=layers),
        "repvgg": byobnet.RepVggBlock(8, 8, 3, layers=squeezing),
        "fastvit": fastvit.MobileOneBlock(8, 8, 3, use_se=True),
        "fastvit, large kernel": fastvit.ReparamLargeKernelConv(
            8, 8, 7, 1, 1, small_kernel=3, use_se=True
        ),
        "fastvit, mixer": fastvit.RepMixer(8, layer_scale_init_value=0.5),
        "fastvit, positions": fastvit.RepConditionalPosEnc(8),
    }


def lived(block: nn.Module) -> nn.Module:
    """Give batch norms factors and statistics of their own."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    with torch.no_grad():
        for _ in range(10):
            block.train()(torch.randn(16, 8, 12, 12) + 0.3)
    return block.eval()


@pytest.mark.parametrize("name", merged_blocks())
def test_branches_that_export_merges_are_rounded_as_the_merged_layer(name: str) -> None:
    from timm.utils.model import reparameterize_model

    torch.manual_seed(0)
    block = lived(merged_blocks()[name])
    images = torch.randn(4, 8, 12, 12)
    (exported,) = reparameterize_model(nn.Sequential(block)).children()
    holder = nn.Sequential(block)
    with torch.no_grad():
        exact = block(images)
        assert torch.allclose(exported(images), exact, atol=1e-5)
        if isinstance(exported, nn.Conv2d):
            exported = nn.Sequential(exported)
        convolutions = sum(isinstance(m, nn.Conv2d) for m in exported.modules())
        assert prepare(exported, "exported") == convolutions
        assert prepare(holder, "trained") == convolutions
        rounded = holder(images)
        assert torch.allclose(rounded, exported(images), atol=2e-5)
    assert (rounded - exact).abs().max() > 1e-3


@pytest.mark.parametrize("name", merged_blocks())
def test_all_branches_of_a_merged_layer_learn(name: str) -> None:
    torch.manual_seed(0)
    holder = nn.Sequential(lived(merged_blocks()[name])).train()
    prepare(holder, "trained")
    means = [m.running_mean.clone() for m in holder.modules() if isinstance(m, nn.BatchNorm2d)]
    holder(torch.randn(4, 8, 12, 12)).square().sum().backward()
    for parameter, value in holder.named_parameters():
        assert value.grad is not None, parameter
    after = [m.running_mean for m in holder.modules() if isinstance(m, nn.BatchNorm2d)]
    for before, now in zip(means, after, strict=True):
        assert not torch.equal(before, now)


def test_training_with_rounding_makes_the_rounded_network_better_than_training_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On seven steps, where rounding costs enough to tell the two apart."""
    monkeypatch.setattr("s4g.train.qat.GREATEST", 3)
    values = torch.rand(256, 6, generator=torch.Generator().manual_seed(1)) * 2 - 1
    wanted = torch.sin(3 * values[:, :1]) + values[:, 1:2] * values[:, 2:3]
    errors = []
    for rounding in (False, True):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
        if rounding:
            prepare(layers, "small")
        optimizer = torch.optim.Adam(layers.parameters(), 1e-2)
        for _ in range(300):
            optimizer.zero_grad()
            nn.functional.mse_loss(layers(values), wanted).backward()
            optimizer.step()
        if not rounding:
            prepare(layers, "small")
        errors.append(nn.functional.mse_loss(layers(values), wanted).item())
    assert errors[1] < 0.5 * errors[0]


def test_a_layer_whose_weight_is_made_of_another_is_refused_by_name() -> None:
    layers = nn.ModuleDict({"stem": nn.Sequential(import_timm().layers.StdConv2d(3, 4, 3))})
    with pytest.raises(InputError) as error:
        prepare(layers, "resnetv2_50x1_bit")
    assert str(error.value) == (
        "backbone resnetv2_50x1_bit: its layer stem.0 (StdConv2d) is not known to --qat; leave "
        "out --qat, or choose another backbone"
    )


def test_a_block_that_export_merges_in_an_unknown_way_is_refused_by_name() -> None:
    from timm.models.repghost import RepGhostModule

    layers = nn.ModuleDict({"blocks": nn.Sequential(RepGhostModule(4, 4))})
    with pytest.raises(InputError) as error:
        prepare(layers, "repghostnet_050")
    assert str(error.value) == (
        "backbone repghostnet_050: its layer blocks.0 (RepGhostModule) is not known to --qat; "
        "leave out --qat, or choose another backbone"
    )


def test_a_norm_folded_into_the_layer_before_it_is_no_reason_to_refuse() -> None:
    from timm.models.repvit import ConvNorm

    assert prepare(nn.Sequential(nn.Sequential(ConvNorm(3, 4))), "one") == 1


def test_a_network_with_nothing_to_round_is_refused() -> None:
    with pytest.raises(InputError) as error:
        prepare(nn.Sequential(nn.Flatten()), "flat")
    assert str(error.value) == "backbone flat: has no layer that INT8 applies to; leave out --qat"


# --- with what else training does -------------------------------------------------------------


def rounded_encoder(backbone: str = "test_convnext") -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig(backbone, 64, 0, head="pool"))
    prepare(encoder, backbone)
    return encoder


def test_a_chunk_is_rounded_alike_both_times() -> None:
    """Gradient caching embeds each chunk twice; the cached gradient is of the first embedding."""
    encoder = rounded_encoder()
    seen: list[torch.Tensor] = []
    encoder.register_forward_hook(lambda module, inputs, out: seen.append(out.detach()))
    images = torch.randn(2, 6, 3, 64, 64)
    backward(TwoViews(encoder), *images, SymmetricInfoNCE(LossConfig()), 2)
    assert len(seen) == 6
    for first, second in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(first, second)


def test_gradient_checkpointing_finds_the_same_gradients() -> None:
    images = torch.randn(2, 3, 64, 64)
    gradients = []
    for checkpointing in (False, True):
        encoder = rounded_encoder()
        if checkpointing:
            encoder.checkpoint_gradients()
        encoder(images)[:, 0].sum().backward()
        gradients.append({n: p.grad for n, p in encoder.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradients[1][name], gradient), name


def recipe(init: Path | str, steps: int, **settings: Any) -> Recipe:
    return Recipe(
        name="tiny",
        description="",
        seed=5,
        # The weights to start from go before other first weights.
        model=ModelConfig("test_resnet", 64, 32, pretrained_file="gone", init=str(init)),
        views=ViewConfig(),
        optim=OptimConfig(
            steps=steps,
            batch_pairs=8,
            neighbours=4,
            warmup_steps=2,
            precision="fp32",
            validate_every=1000,
            save_every=1000,
            ema_decay=settings.pop("ema_decay", 0.9),
        ),
        grounds=(GROUND,),
        qat=QatConfig(enabled=True, **settings),
    )


def trainer(run: Path, grounds: list[Ground], plan: Recipe, resuming: bool = False) -> Trainer:
    run.mkdir(exist_ok=True)
    device = torch.device("cpu")
    source = GroundSource(grounds, plan, device, 1)
    return Trainer(plan, source, run, device, resuming=resuming)


@pytest.fixture(scope="module")
def imagery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one picture of coloured squares."""
    folder = tmp_path_factory.mktemp("imagery")
    squares = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    (folder / "squares.png").write_bytes(encode_rgb(squares.repeat(8, 0).repeat(8, 1), ".png"))
    return folder


@pytest.fixture(scope="module")
def grounds(imagery: Path) -> list[Ground]:
    return load_grounds((GROUND,), imagery, lambda name: None)


def test_training_goes_on_from_the_checkpoint_with_rounded_layers(
    tmp_path: Path, grounds: list[Ground], toy_checkpoint: Path
) -> None:
    start, spec = load_checkpoint(toy_checkpoint)
    run = trainer(tmp_path / "run", grounds, recipe(toy_checkpoint, 4))
    assert model_id(run.encoder) == model_id(run.averaged) == spec.model_id
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    plain = dataclasses.replace(recipe(toy_checkpoint, 4), qat=QatConfig())
    exact = trainer(tmp_path / "plain", grounds, plain).embed(images, "reference")
    rounded = run.embed(images, "reference")
    assert 0.9 < (exact * rounded).sum(1).min() < 0.999999
    run.train(lambda steps: None)
    encoder, spec = load_checkpoint(tmp_path / "run" / "encoder.safetensors")
    assert type(encoder.project) is nn.Linear
    assert spec.model_id == model_id(encoder) != model_id(start)
    assert spec.provenance["init"] == model_id(start)
    assert spec.provenance["qat"] == {
        "enabled": True,
        "length": 0.25,
        "learning_rate_factor": 0.05,
    }


def test_a_resumed_training_ends_with_the_same_weights(
    tmp_path: Path, grounds: list[Ground], toy_checkpoint: Path
) -> None:
    whole = trainer(tmp_path / "whole", grounds, recipe(toy_checkpoint, 6))
    whole.train(lambda steps: None)
    start = tmp_path / "start.safetensors"
    start.write_bytes(toy_checkpoint.read_bytes())
    first = trainer(tmp_path / "parts", grounds, recipe(start, 6))

    def stop_at_two(steps: int) -> None:
        if first.step == 2:
            first._on_signal(2, None)

    assert first.train(stop_at_two) is None
    start.unlink()  # needed to start, not to go on
    second = trainer(tmp_path / "parts", grounds, recipe(start, 6), resuming=True)
    second.resume()
    assert second.step == 2
    second.train(lambda steps: None)
    assert model_id(second.encoder) == model_id(whole.encoder)
    assert model_id(second.averaged) == model_id(whole.averaged)
    _, spec = load_checkpoint(tmp_path / "parts" / "encoder.safetensors")
    assert spec.provenance["init"] == load_checkpoint(toy_checkpoint)[1].model_id


def test_weights_that_training_does_not_better_stay_the_checkpoint(
    tmp_path: Path, grounds: list[Ground], toy_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tmp_path / "run", grounds, recipe(toy_checkpoint, 2))
    recalls = iter([0.9, 0.5])

    def judged(embed: Embed) -> GroundValidation:
        recall = {1: next(recalls), 5: 1.0, 10: 1.0}
        return GroundValidation(recall, 0.1, 0.05, 0.5, 1.0, {})

    monkeypatch.setattr(run.source, "validate", judged)
    run.train(lambda steps: None)
    encoder, spec = load_checkpoint(tmp_path / "run" / "encoder.safetensors")
    assert model_id(encoder) == load_checkpoint(toy_checkpoint)[1].model_id
    assert (spec.provenance["steps"], spec.provenance["validation"]["recall_at_1"]) == (0, 0.9)


# --- recipe and command -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("length=0", "length = 0.0 must lie in (0, 1]"),
        ("length=1.5", "length = 1.5 must lie in (0, 1]"),
        ("learning_rate_factor=-1", "learning_rate_factor = -1.0 must lie in (0, 1]"),
        ("bits=4", "unknown key 'bits'; known are "),
    ],
)
def test_values_out_of_range_are_refused(change: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        load_recipe("edge", (f"qat.{change}",))
    assert str(error.value).startswith(f"recipe edge, [qat]: {message}")


def test_the_training_is_shorter_and_slower_than_the_recipes() -> None:
    plan = with_overrides(load_recipe("edge"), None, None, None, Path("a.safetensors"), True)
    assert plan.model.init == "a.safetensors"
    assert plan.qat == QatConfig(enabled=True)
    assert (plan.optim.steps, plan.optim.warmup_steps) == (750, 50)
    assert plan.optim.learning_rate == pytest.approx(1e-4)
    vigor = load_recipe("sample4geo/vigor-same")
    plan = with_overrides(vigor, None, None, None, Path("a.safetensors"), True)
    assert (plan.optim.epochs, plan.optim.warmup_epochs) == (10, 0.25)


def test_a_length_on_the_command_line_is_not_shortened() -> None:
    plan = with_overrides(load_recipe("edge"), 70, None, None, Path("a.safetensors"), True)
    assert plan.optim.steps == 70


def test_fine_tuning_without_rounding_leaves_length_and_rate_alone() -> None:
    plan = with_overrides(load_recipe("edge"), None, None, None, Path("a.safetensors"))
    assert plan.model.init == "a.safetensors"
    assert (plan.optim, plan.qat) == (load_recipe("edge").optim, QatConfig())


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the command in this process; return its one line on stderr."""
    with pytest.raises(SystemExit) as exit_:
        run_command(cli, [str(a) for a in arguments])
    assert exit_.value.code == 2
    return capsys.readouterr().err


def tiny(folder: Path) -> Path:
    path = folder / "tiny.toml"
    path.write_text(
        '[model]\nbackbone = "test_resnet"\ninput_px = 64\nembedding_dim = 32\n'
        '[optim]\nsteps = 4\nbatch_pairs = 8\nprecision = "fp32"\n'
        '[[ground]]\nkind = "pictures"\nfiles = ["*.png"]\ngsd_m = 0.5\n'
    )
    return path


def test_without_a_trained_encoder_there_is_nothing_to_fine_tune(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    message = failure(capsys, "--recipe", tiny(tmp_path), "--qat", "--out", run)
    assert message == (
        "error: recipe tiny: quantisation-aware training goes on from a trained encoder; give its "
        "checkpoint with --init\n"
    )


def test_fine_tuning_by_command_is_recorded_and_resumed_with_the_same_settings_only(
    tmp_path: Path, imagery: Path, toy_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    asked = ["--recipe", tiny(tmp_path), "--data", imagery, "--out", run]
    words = [str(word) for word in [*asked, "--init", toy_checkpoint, "--qat"]]
    cli.main(words, standalone_mode=False)
    kept = json.loads((run / "recipe.json").read_text())
    assert kept["optim"]["steps"] == 1
    assert kept["qat"]["enabled"] is True
    started_from = load_state(run / "state.safetensors")[1]["started_from"]
    assert started_from == load_checkpoint(toy_checkpoint)[1].model_id
    capsys.readouterr()
    words += ["--resume", "--steps", "2"]
    assert failure(capsys, *words, "--set", "qat.length=0.5") == (
        f"error: {run / 'recipe.json'}: this run was started with qat.length = 0.25, the recipe "
        "now says 0.5; restore it to resume, or train into a new --out\n"
    )
    assert failure(capsys, *[word for word in words if word != "--qat"]).startswith(
        f"error: {run / 'recipe.json'}: this run was started with qat.enabled = true, the recipe "
        "now says false; "
    )
    cli.main(words, standalone_mode=False)
    assert load_state(run / "state.safetensors")[1]["step"] == 2
