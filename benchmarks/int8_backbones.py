"""What INT8 gains and costs, backbone by backbone: latency, cosine, recall.

`train` trains each backbone briefly and alike by int8_backbones.toml, through `s4g-train`; what is
trained already is not trained again, and what was interrupted goes on. `table` exports each one
with `s4g-export` and times FP32 and INT8, on ONNX Runtime and, where it is installed, on OpenVINO,
in turns in one run. A backbone without a checkpoint has random weights: its latency counts, its
cosine and recall say nothing and are left out. The shipped encoder and ConvNeXt-B in FP32 torch,
the network of the paper, are timed in the same run.

Example:
    python benchmarks/int8_backbones.py train DATA --out RUNS
    python benchmarks/int8_backbones.py table DATA --runs RUNS --out BUNDLES
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from s4g.core.console import say
from s4g.core.devices import BUNDLE_CPU_INT8, BUNDLE_FP32, BUNDLE_TRT_INT8
from s4g.core.engine import Engine, embedded_encoder_path, load_engine
from s4g.core.errors import InputError
from s4g.core.onnx_file import read_facts
from s4g.core.spec import EncoderSpec
from s4g.export.bench import side_by_side
from s4g.export.bundle import REPORT_FILE, SPEC_FILE, ExportJob, export_bundle
from s4g.export.calibration import cut_tiles
from s4g.export.machine import machine
from s4g.export.parity import Agreement, embed_graph
from s4g.export.roofline import measure_roofline
from s4g.export.tune import Bars
from s4g.train.checkpoint import model_id, save_checkpoint
from s4g.train.model import MEAN, STD, Encoder, ModelConfig

RECIPE = Path(__file__).with_suffix(".toml")
# The paper's network comes last: it is timed, not trained.
TRAINED = (
    "mobilenetv4_conv_medium",
    "repvit_m0_9",
    "hgnetv2_b0",
    "resnet18",
    "convnext_atto",
    "convnext_nano",
)
PAPER, PAPER_PX = "convnext_base", 384
CHECKPOINT = "encoder.safetensors"
TRUSTED = "small_orthos"  # imagery to calibrate on and to judge by, under DATA
RUNS, BASE_RUNS = 40, 5
IMAGES, PLACES = 300, 400
ALIKE_TILES = 200
BASE_IMAGES, BASE_PLACES = 16, 20
_HEADS = (
    ("", "", "", "ort", "ort", "ov", "ov", "ort", "% of", "cosine", "cosine")
    + ("R@1", "R@1", "R@1", "cosine", "float", ""),
    ("backbone", "px", "GMAC", "fp32", "int8", "fp32", "int8", "gain", "limit", "mean", "min")
    + ("fp32", "cpu", "trt", "cpu-trt", "layers", "ranges"),
)
_COLUMNS = ("ort fp32", "ort int8", "openvino fp32", "openvino int8")


def train(data: Path, out: Path, backbones: list[str]) -> None:
    """Train each backbone on one thread."""
    program = str(Path(sys.executable).with_name("s4g-train"))
    for backbone in backbones:
        run = out / backbone
        resume = ["--resume"] if (run / "state.safetensors").is_file() else []
        options = ["--set", f'model.backbone="{backbone}"', "--threads", "1", *resume]
        command = [program, "--recipe", str(RECIPE), "--data", str(data), "--out", str(run)]
        say(f"training {backbone}")
        done = subprocess.run(
            [*command, *options], check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        if done.returncode:
            say(f"{backbone}: s4g-train ended with exit code {done.returncode}")


def random_checkpoint(path: Path, backbone: str, px: int) -> None:
    """Write a checkpoint of random weights, so that an untrained backbone can be exported."""
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig(backbone, px)).eval()
    for name, parameter in encoder.named_parameters():
        if name.endswith("gamma"):  # ConvNeXt starts as a network that does nothing
            torch.nn.init.uniform_(parameter, 0.1, 0.5)
    spec = EncoderSpec(
        model_id(encoder), backbone, px, MEAN, STD, encoder.embedding_dim, (), 0.1, 10, True, 0.05
    )
    save_checkpoint(path, encoder, spec)


def bundle(data: Path, runs: Path, out: Path, backbone: str, px: int) -> dict[str, Any]:
    """Export one backbone unless that is done; return its report."""
    folder = out / backbone
    trained = (runs / backbone / CHECKPOINT).is_file()
    if not (folder / REPORT_FILE).is_file():
        checkpoint = runs / backbone / CHECKPOINT
        if not trained:
            checkpoint = out / f"{backbone}.random.safetensors"
            checkpoint.unlink(missing_ok=True)
            random_checkpoint(checkpoint, backbone, px)
        small = not trained  # only its latency will count
        job = ExportJob(
            checkpoint=checkpoint,
            out=folder,
            int8=True,
            tensorrt=not small,
            source="landscape" if small else str(data / TRUSTED),
            frames="",
            images=BASE_IMAGES if small else IMAGES,
            places=BASE_PLACES if small else PLACES,
            method="minmax" if small else "auto",
            keep_float="",
            depthwise="int8",
            sensitivity=False,
            seed=0,
            threads=1,
            bars=Bars(-1, 1) if small else Bars(0.98, 0.005),
            accept_loss=True,
            overwrite=False,
        )
        say(f"exporting {backbone}")
        export_bundle(job, say)
    report: dict[str, Any] = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    return report | {"trained": trained}


def engines(folder: Path) -> dict[str, Engine]:
    """Open FP32 and INT8 on every CPU back end that is installed."""
    found = {}
    for device, label in (("cpu", "ort"), ("openvino", "openvino")):
        for file, precision in ((BUNDLE_FP32, "fp32"), (BUNDLE_CPU_INT8, "int8")):
            try:
                found[f"{label} {precision}"] = load_engine(folder / file, device, 1)
            except InputError as error:
                if device == "cpu":
                    raise
                say(f"note: {error}")
                return found
    return found


def alike(folder: Path, data: Path) -> float | None:
    """Return the mean cosine between the CPU's INT8 graph and TensorRT's, both in ONNX Runtime."""
    if not (folder / BUNDLE_TRT_INT8).is_file():
        return None
    spec = EncoderSpec.from_json((folder / SPEC_FILE).read_text(encoding="utf-8"), str(folder))
    tiles = cut_tiles(str(data / TRUSTED), spec, ALIKE_TILES, 10, seed=1).tiles
    cpu, trt = (
        embed_graph((folder / name).read_bytes(), tiles)
        for name in (BUNDLE_CPU_INT8, BUNDLE_TRT_INT8)
    )
    return Agreement.between(cpu, trt).mean


def paper_in_torch(runs: int) -> list[float]:
    """Return milliseconds of ConvNeXt-B at 384 px in FP32 torch, one image on one thread."""
    torch.set_num_threads(1)
    encoder = Encoder(ModelConfig(PAPER, PAPER_PX)).eval().to(memory_format=torch.channels_last)
    image = torch.randn(1, 3, PAPER_PX, PAPER_PX).to(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(runs + 1):
            start = time.perf_counter()
            encoder(image)
            times.append(1e3 * (time.perf_counter() - start))
    return times[1:]


def row(
    name: str, report: dict[str, Any], ms: dict[str, float], limit: float, same: float | None
) -> str:
    """Return one line of the table."""
    by_file = {a["file"]: a for a in report["artefacts"]}
    int8, gmac = by_file[BUNDLE_CPU_INT8], report["macs"] / 1e9
    rate = gmac / ms["ort int8"] * 1e3
    columns = "".join(f"{ms[c]:>9.2f}" if c in ms else f"{'-':>9}" for c in _COLUMNS)
    text = f"{name:<26}{report['input_px']:>5}{gmac:>7.2f}{columns}"
    text += f"{ms['ort fp32'] / ms['ort int8']:>7.2f}{100 * rate / limit:>7.0f}"
    if not report["trained"]:
        return text + "   random weights"
    trt = by_file.get(BUNDLE_TRT_INT8)
    parts = [f"{int8['served']['mean']:.4f}", f"{int8['served']['min']:.4f}"]
    parts += [f"{report['checkpoint']['r1']:.3f}", f"{int8['recall']['r1']:.3f}"]
    parts += [f"{trt['recall']['r1']:.3f}" if trt else "-"]
    parts += [f"{same:.4f}" if same is not None else "-"]
    parts += [str(len(int8["kept_float"])), int8["trial"]["method"]]
    return text + "".join(f"{part:>9}" for part in parts)


def table(data: Path, runs: Path, out: Path, backbones: list[str]) -> None:
    """Export, time in turns and print."""
    out.mkdir(parents=True, exist_ok=True)
    sizes = {name: 128 for name in backbones} | {PAPER: PAPER_PX}
    reports = {name: bundle(data, runs, out, name, px) for name, px in sizes.items()}
    limit = measure_roofline(1).int8_gmacs_per_s
    print(f"{machine()['processor']}, one thread, batch 1; medians in milliseconds")
    print(f"fastest INT8 product of ONNX Runtime on this core: {limit:.0f} GMAC/s\n")
    for heads in _HEADS:
        wide = "".join(f"{head:>9}" for head in (*heads[3:7], *heads[9:]))
        print(
            f"{heads[0]:<26}{heads[1]:>5}{heads[2]:>7}{wide[:36]}{heads[7]:>7}{heads[8]:>7}{wide[36:]}"
        )
    for name, report in reports.items():
        opened = engines(out / name)
        times = side_by_side(opened, 1, BASE_RUNS if name == PAPER else RUNS)
        ms = {label: found.p50_ms for label, found in times.items()}
        print(row(name, report, ms, limit, alike(out / name, data)), flush=True)
        for engine in opened.values():
            engine.close()
    shipped = {"shipped": load_engine(None, "cpu", 1)}
    before = side_by_side(shipped, 1, RUNS)["shipped"].p50_ms
    paper = float(np.median(paper_in_torch(BASE_RUNS)))
    after = side_by_side(shipped, 1, RUNS)["shipped"].p50_ms
    ours = (before + after) / 2
    rate = read_facts(embedded_encoder_path())["macs"] / ours / 1e6
    print(
        f"\nshipped encoder, INT8: {before:.2f} ms before and {after:.2f} ms after {PAPER} at "
        f"{PAPER_PX} px in FP32 torch: {paper:.0f} ms, {paper / ours:.0f} times as long; "
        f"{rate:.0f} GMAC/s, {100 * rate / limit:.0f} % of the limit"
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "table"):
        command = commands.add_parser(name)
        command.add_argument("data", type=Path, help="folder with the imagery")
        command.add_argument("--out", type=Path, required=True, help="folder for what is made")
        command.add_argument("--backbones", nargs="+", default=list(TRAINED))
    commands.choices["table"].add_argument("--runs", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "train":
        train(options.data, options.out, options.backbones)
    else:
        table(options.data, options.runs, options.out, options.backbones)


if __name__ == "__main__":
    main()
