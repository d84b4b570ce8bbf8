"""The kernel that cuts patches: its arithmetic on the CPU against OpenCV, its parameters, limits.

The file that runs on a GPU is compiled for the CPU here, word for word (cuda_on_cpu.h).
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.core.camera import Attitude, Camera, look_point_m, reach
from s4g.core.dusk import DAY_MEAN, DUSK_MEAN, MOST_GAIN, brighten, mean_step
from s4g.core.errors import InputError
from s4g.core.gpu_warp import WARP_DTYPE, check_warps, kernel_source, pack_warps
from s4g.core.warp import FrameWarp, cut_with_opencv, north_up_warp


def load(name: str) -> ModuleType:
    """Import a helper that lies beside this file."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


fake_pycuda = load("fake_pycuda")
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++ to compile the kernel for the CPU"
)

# OpenCV 4 rounds positions to 1/32 pixel and weights to 15 bits; OpenCV 5 computes in float.
OPENCV_IS_EXACT = int(cv2.__version__.partition(".")[0]) >= 5
LENSES = {
    "perfect": (),
    "brown": (-0.28, 0.10, 0.0008, -0.0005),
    "drone": (-0.28, 0.10, 0.0008, -0.0005, -0.02),
    "rational": (0.1, 0.02, 0.001, -0.002, 0.01, 0.12, 0.03, 0.001),
}
Image = npt.NDArray[np.uint8]


def cut_on_grid(frame: Image, warps: list[FrameWarp], source: str | None = None) -> Image:
    """Draw patches with the kernel, its grid run as loops; what it leaves out stays 77."""
    side = warps[0].size_px
    packed = np.zeros(len(warps), WARP_DTYPE)
    pack_warps(warps, packed)
    out = np.full((len(warps), side, side, 3), 77, np.uint8)
    blocks = -(-side // 16)
    args = (frame.ctypes.data, frame.shape[1], frame.shape[0], packed.ctypes.data)
    library = fake_pycuda.kernel_on_cpu(source or kernel_source())
    grid, block = (blocks, blocks, len(warps)), (16, 16, 1)
    args = (*args, side, out.ctypes.data)
    fake_pycuda.run_grid(library, "warp_patches", grid, block, "PiiPiP", args)
    return out


def scene(width: int, height: int) -> Image:
    """A frame with what photos have: soft light, hard edges, fine grain."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(30, 220, (height // 40 + 2, width // 40 + 2, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float64)
    for _ in range(60):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        color = [int(v) for v in rng.integers(0, 256, 3)]
        cv2.rectangle(image, (x, y), (x + 30, y + 18), color, thickness=-1)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


SCENE = scene(640, 480)
NOISE = np.random.default_rng(4).integers(0, 256, (480, 640, 3), dtype=np.uint8)


def looking(
    lens: str = "perfect",
    attitude: Attitude = Attitude(30, 10, -6, 100),  # noqa: B008
    footprint_m: float = 40.0,
    focal_px: float = 520.0,
    size_px: int = 80,
) -> FrameWarp:
    camera = Camera(640, 480, focal_px, 1.01 * focal_px, 318.0, 243.0, LENSES[lens])
    center_m = look_point_m(camera, attitude)
    return north_up_warp(camera, attitude, center_m, footprint_m, size_px)


def difference(frame: Image, warp: FrameWarp) -> npt.NDArray[np.int64]:
    (patch,) = cut_on_grid(frame, [warp])
    return np.abs(patch.astype(np.int64) - cut_with_opencv(frame, warp))


# ---- against OpenCV ----------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("frame", [SCENE, NOISE], ids=["scene", "noise"])
@given(
    yaw=st.floats(-360, 360),
    pitch=st.floats(-40, 40),
    roll=st.floats(-40, 40),
    ground_px=st.floats(0.2, 20.0),
    focal_px=st.floats(250, 1500),
)
@settings(max_examples=25)
def test_patches_are_those_of_opencv(
    lens: str,
    frame: Image,
    yaw: float,
    pitch: float,
    roll: float,
    ground_px: float,
    focal_px: float,
) -> None:
    """`ground_px` frame pixels lie below a patch pixel: shrink factors of 1 to 20 come up."""
    attitude = Attitude(yaw, pitch, roll, 100.0)
    footprint_m = ground_px * 80 * 100.0 / focal_px
    seen = difference(frame, looking(lens, attitude, footprint_m, focal_px))
    # A pixel of the border may fall inside in one arithmetic and outside in the other.
    assert np.quantile(seen, 0.999) <= (1 if OPENCV_IS_EXACT else 8)
    assert seen.mean() <= (0.02 if OPENCV_IS_EXACT else 1.0)


@needs_compiler
@pytest.mark.skipif(not OPENCV_IS_EXACT, reason="OpenCV 4 interpolates in fixed point")
@pytest.mark.parametrize("lens", LENSES)
def test_inside_the_frame_no_pixel_is_off_by_more_than_one(lens: str) -> None:
    seen = difference(SCENE, looking(lens))
    assert seen.max() <= 1
    assert seen.mean() < 0.01


@needs_compiler
@pytest.mark.parametrize("factor", range(1, 13))
def test_shrinking_is_exactly_that_of_opencv(factor: int) -> None:
    """Each patch pixel shows one block; the last rows and columns make no whole block."""
    frame = np.ascontiguousarray(NOISE[: 20 * factor + factor - 1, : 24 * factor + factor - 1])
    middle = factor / 2 - 0.5
    blocks = np.array([[factor, 0, middle], [0, factor, middle], [0, 0, 1.0]])
    camera = Camera(frame.shape[1], frame.shape[0], 100, 100, 0, 0)
    (patch,) = cut_on_grid(frame, [FrameWarp(camera, blocks, factor, 26)])
    whole = frame[: 20 * factor, : 24 * factor]
    expected = cv2.resize(whole, (24, 20), interpolation=cv2.INTER_AREA)
    assert np.array_equal(patch[:20, :24], expected)
    assert not patch[20:].any() and not patch[:, 24:].any()


@needs_compiler
def test_the_border_fades_to_black_over_one_pixel() -> None:
    """As OpenCV's BORDER_CONSTANT: a tap outside counts as black."""
    frame = np.full((8, 8, 3), 200, np.uint8)
    camera = Camera(8, 8, 8, 8, 3.5, 3.5)
    for shift, expected in ((-1.0, 0), (-0.75, 50), (-0.5, 100), (-0.25, 150), (0.0, 200)):
        along = np.array([[1.0, 0, shift], [0, 1, 1], [0, 0, 1]])
        (patch,) = cut_on_grid(frame, [FrameWarp(camera, along, 1, 4)])
        assert patch[1, 0].tolist() == [expected] * 3
        across = np.array([[1.0, 0, 1], [0, 1, 7 - shift], [0, 0, 1]])
        (patch,) = cut_on_grid(frame, [FrameWarp(camera, across, 1, 4)])
        assert patch[0, 1].tolist() == [expected] * 3


@needs_compiler
@pytest.mark.parametrize("lens", ["perfect", "brown"])
def test_ground_behind_the_camera_is_black_and_not_mirrored(lens: str) -> None:
    camera = Camera(640, 480, 180, 180, 320, 240, LENSES[lens])  # the sky is in view
    frame = np.full((480, 640, 3), 200, np.uint8)
    behind = north_up_warp(camera, Attitude(0, 55, 0, 50), (0.0, -800.0), 100.0, 32)
    assert not cut_on_grid(frame, [behind]).any()
    across = north_up_warp(camera, Attitude(0, 55, 0, 50), (0.0, 0.0), 400.0, 32)
    (patch,) = cut_on_grid(frame, [across])
    assert (patch.any(axis=2) == cut_with_opencv(frame, across).any(axis=2)).mean() > 0.99
    assert 0.1 < patch.any(axis=2).mean() < 0.9


@needs_compiler
def test_rays_that_the_lens_cannot_bend_are_black() -> None:
    warp = looking("drone", Attitude(0, 0, 0, 100), 900.0, 300.0)
    assert reach(LENSES["drone"]) < 3  # the patch's corner lies at a slope of 6
    seen = difference(np.full((480, 640, 3), 200, np.uint8), warp)
    assert seen.max() <= 100 and (seen > 1).mean() < 0.01
    assert not cut_on_grid(SCENE, [warp])[0, 0, 0].any()


@needs_compiler
@pytest.mark.parametrize(
    "numbers",
    [
        [[np.nan, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[1e300, 0, 0], [0, 1e300, 0], [0, 0, 1e-300]],
        [[-1e300, 0, 0], [0, 1, 0], [0, 0, 1e-300]],
        [[1, 0, 0], [0, 1, 0], [0, 0, 0]],
        [[1, 0, 1e9], [0, 1, -1e9], [0, 0, 1]],
    ],
)
@pytest.mark.parametrize("lens", ["perfect", "rational"])
def test_impossible_numbers_give_black(numbers: list[list[float]], lens: str) -> None:
    camera = Camera(640, 480, 500, 500, 320, 240, LENSES[lens])
    patch = cut_on_grid(NOISE, [FrameWarp(camera, np.array(numbers, np.float64), 1, 20)])[0]
    assert not patch[1:, 1:].any()


@needs_compiler
@pytest.mark.parametrize("size_px", [1, 15, 16, 17, 40])
def test_every_pixel_of_every_patch_is_written_whatever_the_size(size_px: int) -> None:
    warps = [looking(lens, size_px=size_px) for lens in LENSES]
    together = cut_on_grid(SCENE, warps)
    for warp, patch in zip(warps, together, strict=True):
        assert np.array_equal(patch, cut_on_grid(SCENE, [warp])[0])
        assert np.abs(patch.astype(int) - cut_with_opencv(SCENE, warp)).mean() < 1
    assert not (together == 77).all(axis=3).mean() > 0.02


# ---- the tests see mistakes --------------------------------------------------------------------

MUTATIONS = {
    "half a pixel": ("(column + 0.5f) / shrink - 0.5f", "column / shrink"),
    "the wrong tap": ("(int)left + 1, (int)top, b)", "(int)left, (int)top + 1, b)"),
    "truncated, not rounded": (
        "(unsigned char)rintf(above + below_share * (below - above))",
        "(unsigned char)(above + below_share * (below - above))",
    ),
    "columns and rows of another stride": ("(size_t)row * shrink * stride", "(size_t)row * stride"),
    "no division by the depth": ("* v + h[2]) / depth)", "* v + h[2]))"),
    "tangential terms exchanged": ("2.0f * k[2] * x * y + k[3]", "2.0f * k[3] * x * y + k[2]"),
    "another patch's warp": ("warps[blockIdx.z]", "warps[0]"),
}


@needs_compiler
@pytest.mark.parametrize("mistake", MUTATIONS)
def test_a_mistake_in_the_kernel_is_seen(mistake: str) -> None:
    right, wrong = MUTATIONS[mistake]
    source = kernel_source()
    assert source.count(right) == 1
    warps = [looking("perfect"), looking("drone", footprint_m=150.0)]
    seen = [cut_with_opencv(SCENE, warp) for warp in warps]
    off = np.abs(cut_on_grid(SCENE, warps, source.replace(right, wrong)).astype(int) - seen)
    assert off.mean() > 0.2


# ---- dark patches ------------------------------------------------------------------------------


def brighten_on_grid(patches: Image, source: str | None = None) -> Image:
    """Brighten (B, S, S, 3) with the kernels, launched as `FrameWarper` does."""
    count, side = patches.shape[:2]
    sums = np.full((count, side), 7 << 29, np.uint32)  # what is left of another frame
    out = np.full_like(patches, 77)
    library = fake_pycuda.kernel_on_cpu(source or kernel_source())
    grid, block = (-(-side // 128), 1, count), (128, 1, 1)
    here, there, step = patches.ctypes.data, sums.ctypes.data, mean_step(side)
    args = (here, side, step, there)
    fake_pycuda.run_grid(library, "sum_columns", grid, block, "PiiP", args)
    light = (DUSK_MEAN, DAY_MEAN, MOST_GAIN)
    args = (here, there, side, step, *light, out.ctypes.data)
    fake_pycuda.run_grid(library, "brighten_patches", grid, block, "PPiifffP", args)
    return out


@needs_compiler
@given(
    side=st.sampled_from([1, 16, 127, 128, 129, 224, 256, 300, 384]),
    means=st.lists(st.integers(0, 255), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_dark_patches_are_brightened_as_on_the_cpu(side: int, means: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    light = np.array(means)[:, None, None, None] * rng.uniform(0, 2, (len(means), side, side, 3))
    patches = np.clip(light, 0, 255).astype(np.uint8)
    expected = patches.copy()
    brighten(expected)
    assert np.array_equal(brighten_on_grid(patches), expected)


BRIGHTENING = {
    "every pixel counts": ("v += step", "++v"),
    "another patch's columns": ("sums[(size_t)blockIdx.z * side + i]", "sums[i]"),
    "one channel": ("(unsigned int)pixel[0] + pixel[1] + pixel[2]", "3u * pixel[0]"),
    "no rounding": ("gain) + 0.5f, 255", "gain), 255"),
    "no end of range": (", 255.0f)", ", 999.0f)"),
    "as bright as it takes": ("(double)most)", "9.0 * most)"),
}


@needs_compiler
@pytest.mark.parametrize("mistake", BRIGHTENING)
def test_a_mistake_in_brightening_is_seen(mistake: str) -> None:
    right, wrong = BRIGHTENING[mistake]
    source = kernel_source()
    assert source.count(right) == 1
    rng = np.random.default_rng(8)
    patches = rng.integers(0, 70, (3, 256, 256, 3), dtype=np.uint8)
    patches[0, 1::2] = 0  # rows that do not count
    patches[1] //= 9
    patches[1, ::16] = 200
    patches[2] = 3
    patches[..., 1] //= 2
    expected = patches.copy()
    brighten(expected)
    assert np.array_equal(brighten_on_grid(patches), expected)
    assert not np.array_equal(brighten_on_grid(patches, source.replace(right, wrong)), expected)


# ---- the file itself ---------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_nvcc_takes_the_kernel_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "warp.cu").write_text(kernel_source())
    command = ["nvcc", "--cubin", "-arch=sm_87", "-Werror", "all-warnings", "warp.cu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_warps_are_packed_as_the_kernel_reads_them() -> None:
    """Offsets of C, where a double lies on a multiple of 8."""
    assert WARP_DTYPE.itemsize == 136
    assert {name: WARP_DTYPE.fields[name][1] for name in WARP_DTYPE.names} == {
        "frame_from_patch": 0,
        "focal_px": 72,
        "center_px": 80,
        "distortion": 88,
        "reach": 120,
        "distorted": 124,
        "shrink": 128,
        "reserved": 132,
    }
    packed = np.zeros(2, WARP_DTYPE)
    warp = looking("brown")
    pack_warps([warp, looking("perfect")], packed)
    assert packed[0]["frame_from_patch"].tolist() == warp.frame_from_patch.ravel().tolist()
    assert packed[0]["distortion"].tolist() == [*np.float32(LENSES["brown"]).tolist(), *(0.0,) * 4]
    assert packed[0]["reach"] == np.float32(reach(LENSES["brown"]))
    assert packed["distorted"].tolist() == [1, 0]
    assert packed["shrink"].tolist() == [warp.shrink, warp.shrink]


# ---- what is refused ---------------------------------------------------------------------------


def refused(frame: Any, warp: FrameWarp) -> str:
    with pytest.raises(InputError) as caught:
        check_warps(frame, [warp], 80)
    return str(caught.value)


def test_frame_and_warps_that_belong_together_pass() -> None:
    check_warps(SCENE, [looking(), looking("drone")], 80)


@pytest.mark.parametrize(
    ("frame", "seen"),
    [
        (SCENE.astype(np.float32), "(480, 640, 3) and type float32"),
        (SCENE[..., 0], "(480, 640) and type uint8"),
        (np.dstack([SCENE, SCENE[..., :1]]), "(480, 640, 4) and type uint8"),
    ],
    ids=["float", "grey", "four channels"],
)
def test_a_frame_of_another_kind_is_refused(frame: Any, seen: str) -> None:
    assert refused(frame, looking()) == f"frame of shape {seen}; expected (H, W, 3) uint8 RGB"


def test_a_frame_of_another_size_is_refused() -> None:
    assert refused(np.zeros((479, 640, 3), np.uint8), looking()) == (
        "frame of 640x479 px, camera of 640x480 px; use Camera.resized"
    )


def test_a_lens_of_more_coefficients_than_the_kernel_knows_is_refused() -> None:
    warp = looking("rational")
    tilted = replace(warp.camera, distortion=(*warp.camera.distortion, 0.1, 0.1, 0.1, 0.1))
    assert refused(SCENE, replace(warp, camera=tilted)) == (
        "a lens of 12 distortion coefficients; expected 8 at most"
    )


def test_a_patch_of_another_size_is_refused() -> None:
    assert refused(SCENE, looking(size_px=64)) == "patches of 64 px; this encoder takes 80 px"


@pytest.mark.parametrize("shrink", [0, -1, 481])
def test_an_impossible_shrink_factor_is_refused(shrink: int) -> None:
    assert refused(SCENE, replace(looking(), shrink=shrink)) == (
        f"a patch that shrinks a frame of 640x480 px by {shrink}; expected 1 to 480"
    )
