"""What tests of several folders share: real data where it is at hand, a toy encoder and source."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings

from s4g.core.spec import SPEC_KEY, EncoderSpec

# Tests never time: a busy machine is no fault.
settings.register_profile("s4g", deadline=None)
settings.load_profile("s4g")

TOY_INPUT_PX = 64
TOY_DIM = 32
_POOLED = 8  # the toy encoder sees an image as 8 x 8 cells

TOY_SPEC = EncoderSpec(
    model_id="70" * 32,
    backbone="toy",
    input_px=TOY_INPUT_PX,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    embedding_dim=TOY_DIM,
    nested_dims=(TOY_DIM,),
    gsd_min_m=0.3,
    gsd_max_m=3.0,
    north_up=True,
    temperature=0.1,
    provenance={"recipe": "toy"},
)


@pytest.fixture(autouse=True)
def installed_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands name themselves as installed scripts do, also under `python -m pytest`."""
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None, raising=False)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real imagery (`$S4G_DATA`, else `../shared/data` beside the project)."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("S4G_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real imagery at {folder}; set S4G_DATA to its folder")
    return folder


def write_toy_encoder(path: Path, spec: EncoderSpec = TOY_SPEC) -> None:
    """Write an ONNX encoder: average pooling to 8 x 8 cells, a fixed projection, L2 norm.

    It takes `images` (B, 64, 64, 3) uint8 and returns `embeddings` (B, 32) float32.
    """
    onnx = pytest.importorskip("onnx", reason="the toy encoder needs onnx (the export extra)")
    helper, types = onnx.helper, onnx.TensorProto
    rng = np.random.default_rng(7)
    projection = rng.standard_normal((3 * _POOLED * _POOLED, spec.embedding_dim))
    constants = {
        "scale": np.array(1 / 64, np.float32),
        # Brightness counts a tenth as much as structure; a flat image still has an embedding.
        "share": np.array(0.9, np.float32),
        "bias": np.full((1, spec.embedding_dim), 1e-2, np.float32),
        "flat": np.array([0, -1], np.int64),
        "space": np.array([2, 3], np.int64),
        "last": np.array([1], np.int64),
        "projection": projection.astype(np.float32),
    }
    cell = spec.input_px // _POOLED
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=types.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["nchw"], ["cells"], kernel_shape=[cell, cell], strides=[cell, cell]
        ),
        helper.make_node("ReduceMean", ["cells", "space"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["mean", "share"], ["most"]),
        helper.make_node("Sub", ["cells", "most"], ["centred"]),
        helper.make_node("Reshape", ["centred", "flat"], ["flattened"]),
        helper.make_node("MatMul", ["flattened", "projection"], ["projected"]),
        helper.make_node("Add", ["projected", "bias"], ["shifted"]),
        helper.make_node("ReduceL2", ["shifted", "last"], ["norm"], keepdims=1),
        helper.make_node("Div", ["shifted", "norm"], ["embeddings"]),
    ]
    side, dim = spec.input_px, spec.embedding_dim
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("images", types.UINT8, ["batch", side, side, 3])],
        [helper.make_tensor_value_info("embeddings", types.FLOAT, ["batch", dim])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    helper.set_model_props(model, {SPEC_KEY: spec.to_json()})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


@pytest.fixture(scope="session")
def toy_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file with a spec: 64-px input, 32-d embedding, 0.3 to 3 m/px."""
    path = tmp_path_factory.mktemp("encoder") / "toy.onnx"
    write_toy_encoder(path)
    return path


def toy_image(height_px: int, width_px: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return (H, W, 3) uint8: soft noise with rectangles on it, no two places alike."""
    import cv2

    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 200, (height_px // 16 + 2, width_px // 16 + 2, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    for _ in range(height_px * width_px // 2500):
        x, y = int(rng.integers(0, width_px)), int(rng.integers(0, height_px))
        w, h = (int(v) for v in rng.integers(6, 40, 2))
        color = [int(v) for v in rng.integers(0, 256, 3)]
        cv2.rectangle(image, (x, y), (x + w, y + h), color, thickness=-1)
    return np.asarray(image, np.uint8)


def write_geotiff(
    path: Path,
    image: npt.NDArray[np.uint8],
    gsd_m: float = 0.5,
    crs: str = "EPSG:32632",
    west_m: float = 500_000.0,
    north_m: float = 5_200_000.0,
    nodata: int | None = None,
) -> None:
    """Write (H, W, C) uint8 as a GeoTIFF, by default near 46.95 N, 9 E in UTM 32N."""
    rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need rasterio (the pack extra)")
    height, width, bands = image.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=bands,
        dtype="uint8",
        crs=crs,
        transform=rasterio.Affine(gsd_m, 0, west_m, 0, -gsd_m, north_m),
        nodata=nodata,
    ) as file:
        file.write(np.moveaxis(image, -1, 0))
        file.update_tags(TIFFTAG_COPYRIGHT="toy imagery, public domain")


@pytest.fixture(scope="session")
def toy_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GeoTIFF of 320 x 256 m at 0.5 m/px in UTM 32N, seeded, with an attribution."""
    path = tmp_path_factory.mktemp("source") / "toy.tif"
    write_geotiff(path, toy_image(512, 640, seed=3))
    return path


@pytest.fixture(scope="session")
def toy_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny residual network, 64-px input, 32-d, 0.3 to 3 m/px.

    Its weights are random, its batch norms have seen images: embeddings of different images
    differ, as those of a trained network do.
    """
    torch = pytest.importorskip("torch", reason="checkpoints need torch (the train extra)")
    from s4g.train.checkpoint import model_id, save_checkpoint
    from s4g.train.model import Encoder, ModelConfig, normalise

    torch.manual_seed(0)
    encoder = Encoder(ModelConfig("test_resnet", TOY_INPUT_PX, TOY_DIM))
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.8, 1.2)
    images = torch.from_numpy(np.stack([toy_image(64, 64, seed) for seed in range(32)]))
    with torch.no_grad():
        for _ in range(20):
            encoder.train()(normalise(images, TOY_SPEC.mean, TOY_SPEC.std))
    spec = dataclasses.replace(TOY_SPEC, model_id=model_id(encoder), backbone="test_resnet")
    path = tmp_path_factory.mktemp("checkpoint") / "toy.safetensors"
    save_checkpoint(path, encoder, spec)
    return path


@pytest.fixture(scope="session")
def toy_pack(tmp_path_factory: pytest.TempPathFactory, toy_encoder: Path, toy_source: Path) -> Path:
    """A pack of the toy source by the toy encoder: tiles of 48 and 64 m, with imagery."""
    from s4g.core.engine import load_engine
    from s4g.core.sources import open_ground
    from s4g.tilepacks.build import build_pack
    from s4g.tilepacks.options import BuildOptions
    from s4g.tilepacks.plan import plan_pack

    ground, engine = open_ground(str(toy_source)), load_engine(toy_encoder, "cpu", 1)
    plan = plan_pack(ground, engine.spec, levels_m=(48.0, 64.0))
    path = tmp_path_factory.mktemp("pack") / "toy.s4gpack"
    build_pack([ground], engine, plan, path, BuildOptions())
    ground.close()
    return path


@dataclasses.dataclass(frozen=True)
class ToyFlight:
    """Photos of the toy source and what goes with them."""

    photos: Path
    telemetry: Path
    truth: Path
    hfov_deg: float


@pytest.fixture(scope="session")
def toy_flight(tmp_path_factory: pytest.TempPathFactory, toy_source: Path) -> ToyFlight:
    """Six photos from 100 m over the toy source, turning and tilting a little on the way."""
    import cv2

    from s4g.core.camera import Attitude, Camera, ground_from_patch, pixel_from_ground
    from s4g.core.geo import LocalFrame
    from s4g.core.ground import GroundWindow
    from s4g.core.images import encode_rgb
    from s4g.core.sources import open_ground

    folder = tmp_path_factory.mktemp("flight")
    (folder / "photos").mkdir()
    ground = open_ground(str(toy_source))
    frame = LocalFrame(*ground.bounds.center)
    side_m, side_px = 300.0, 600
    window = GroundWindow(-side_m / 2, side_m / 2, side_m / side_px, side_px, side_px)
    picture = ground.read(frame, window).rgb
    ground.close()
    camera = Camera.from_hfov(320, 240, 60.0)
    telemetry, truth = ["file,t,yaw_deg,pitch_deg,roll_deg,agl_m"], ["file,t,lat,lon"]
    for i in range(6):
        east_m, north_m, yaw_deg = -60.0 + 24.0 * i, 8.0 * (i % 3) - 8.0, (340.0 + 12.0 * i) % 360
        attitude = Attitude(yaw_deg, 2.0 - i, 0.5 * i, 100.0)
        map_m = ground_from_patch(-east_m, -north_m, side_m, side_px)
        pixel_from_map = pixel_from_ground(camera, attitude) @ map_m
        photo = cv2.warpPerspective(picture, pixel_from_map, (320, 240))
        name = f"photo_{i}.jpg"
        (folder / "photos" / name).write_bytes(encode_rgb(np.asarray(photo, np.uint8), ".jpg", 95))
        telemetry.append(f"{name},{i * 2.0},{yaw_deg},{attitude.pitch_deg},{attitude.roll_deg},100")
        lat, lon = frame.to_wgs84(east_m, north_m)
        truth.append(f"{name},{i * 2.0},{float(lat):.9f},{float(lon):.9f}")
    (folder / "telemetry.csv").write_text("\n".join(telemetry) + "\n")
    (folder / "truth.csv").write_text("\n".join(truth) + "\n")
    return ToyFlight(folder / "photos", folder / "telemetry.csv", folder / "truth.csv", 60.0)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`s4g-pack` in this process: arguments in; exit code, stdout and stderr out."""
    from s4g.core.console import run_command
    from s4g.tilepacks.cli import cli

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            run_command(cli, [str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        code = end.value.code
        return (code if isinstance(code, int) else 0), out, err

    return call
