import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.runtime.frame_buffers import FrameBuffers
from s4g.runtime.frames import open_frames
from s4g.runtime.video import is_picture, to_rgb


def write_video(path: Path, count: int = 8, step: int = 30, fps: float = 4.0) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (64, 48))
    for i in range(count):
        image = np.zeros((48, 64, 3), np.uint8)
        image[..., 2] = step * i  # red, in OpenCV's order
        writer.write(image)
    writer.release()


def test_a_videos_own_timestamps_are_the_clock(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi")
    source = open_frames(str(tmp_path / "clip.avi"))
    frames = list(source.frames())
    source.close()
    assert source.count == 8
    assert [f.t for f in frames] == pytest.approx([i / 4 for i in range(8)])
    assert [f.index for f in frames] == list(range(8))
    assert all(f.file is None for f in frames)


def test_video_frames_are_rgb(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi")
    frames = list(open_frames(str(tmp_path / "clip.avi")).frames())
    assert [float(f.rgb()[0][..., 0].mean()) for f in frames] == pytest.approx(
        [30 * i for i in range(8)], abs=6
    )
    assert frames[-1].rgb()[0][..., 2].mean() < 12


def test_a_video_that_ends_early_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "clip.avi"
    write_video(path, 40, step=6)
    path.write_bytes(path.read_bytes()[:12_000])
    source = open_frames(str(path))
    frames = list(source.frames())
    assert 0 < len(frames) < 40
    assert capsys.readouterr().err == f"{path}: ends after {len(frames)} of {source.count} frames\n"


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video at all" * 50)
    with pytest.raises(InputError) as error:
        open_frames(str(path))
    assert str(error.value) == (
        f"--camera {path}: not a video or photo that can be decoded; convert it to MP4 (H.264) "
        "or JPEG"
    )


def test_the_same_video_gives_the_same_frames_and_none_is_dropped(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", 30, step=8)

    def played() -> list[tuple[int, float | None, bytes]]:
        frames = open_frames(str(tmp_path / "clip.avi")).frames()
        return [(f.index, f.t, f.rgb()[0].tobytes()) for f in frames]

    first = played()
    assert [index for index, _, _ in first] == list(range(30))
    assert first == played()


def test_frames_of_a_video_that_are_kept_do_not_change(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi")
    kept = [(f, f.rgb()[0].copy()) for f in open_frames(str(tmp_path / "clip.avi")).frames()]
    assert all((frame.rgb()[0] == rgb).all() for frame, rgb in kept)


def test_frames_of_a_video_that_are_let_go_share_their_memory(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi")
    frames = open_frames(str(tmp_path / "clip.avi")).frames()
    assert len({frame.rgb()[0].ctypes.data for frame in frames}) <= 2


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg to write a bare stream with")
def test_a_video_without_times_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi")
    bare = tmp_path / "clip.h264"
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "clip.avi"), str(bare)]
    subprocess.run(command, check=True)
    with pytest.raises(InputError) as error:
        list(open_frames(str(bare)).frames())
    assert str(error.value) == (
        f"--camera {bare}: frame 1 is at 0 s, not after the one before it; give the video times: "
        "ffmpeg -r FPS -i VIDEO NEW.mp4"
    )


@pytest.mark.parametrize(
    ("shape", "pixel", "seen"),
    [
        ((2, 3), 7, [7, 7, 7]),
        ((2, 3, 1), [7], [7, 7, 7]),
        ((2, 3, 3), [1, 2, 3], [3, 2, 1]),
        ((2, 3, 4), [1, 2, 3, 9], [3, 2, 1]),
    ],
)
def test_pictures_of_opencv_become_rgb(shape, pixel, seen) -> None:
    image = np.full(shape, pixel, np.uint8)
    assert is_picture(image)
    rgb = to_rgb(image, FrameBuffers())
    assert rgb.shape == (2, 3, 3)
    assert (rgb == seen).all()


@pytest.mark.parametrize(
    "image",
    [
        None,
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((4, 5, 2), np.uint8),
        np.zeros((4, 5), np.uint16),
        np.zeros((20,), np.uint8),
    ],
)
def test_what_is_no_picture_is_told_from_one(image: np.ndarray | None) -> None:
    assert not is_picture(image)
