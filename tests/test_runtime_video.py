import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from s4g.core.errors import InputError, S4GError
from s4g.runtime import video
from s4g.runtime.frames import open_frames
from s4g.runtime.video import LiveCamera, has_gstreamer, live_time_s

BUILD_WITH = "  Video I/O:\n    FFMPEG:      YES\n    GStreamer:   YES (1.20.3)\n"


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


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError) as error:
        open_frames("/dev/video987")
    assert str(error.value).startswith("--camera /dev/video987: no device /dev/video987; found ")


def test_a_device_number_means_its_node() -> None:
    with pytest.raises(InputError, match="--camera 987: no device /dev/video987"):
        open_frames("987")


def test_a_stream_nobody_serves_is_refused() -> None:
    with pytest.raises(InputError) as error:
        open_frames("rtsp://127.0.0.1:9/none")
    assert str(error.value) == (
        "--camera rtsp://127.0.0.1:9/none: no stream there within 10 s; check address, network "
        "and password"
    )


def test_gstreamer_is_detected_in_opencvs_build_information() -> None:
    assert has_gstreamer(BUILD_WITH)
    assert not has_gstreamer(BUILD_WITH.replace("YES (1", "NO (1"))
    assert not has_gstreamer("")


@pytest.mark.skipif(has_gstreamer(cv2.getBuildInformation()), reason="this OpenCV has GStreamer")
def test_without_gstreamer_a_pipeline_names_the_remedy() -> None:
    with pytest.raises(InputError) as error:
        open_frames("videotestsrc ! appsink")
    assert str(error.value) == (
        f"--camera 'videotestsrc ! appsink': this OpenCV {cv2.__version__} is built without "
        "GStreamer (the pip wheels are); use the system's OpenCV (apt install python3-opencv, or "
        "JetPack's), or give a device or URL"
    )


def test_the_drivers_timestamp_counts_only_on_the_monotonic_clock() -> None:
    assert live_time_s(99.96, 100.0) == 99.96
    assert live_time_s(100.01, 100.0) == 100.0  # not from the future
    assert live_time_s(3.5, 100.0) == 100.0  # a stream's own clock


class ScriptedCapture:
    """Stands in for a device: frames numbered in their red channel, handed out by a semaphore."""

    def __init__(self, count: int) -> None:
        self.tickets = threading.Semaphore(0)
        self.count, self.read_frames, self.released = count, 0, False

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.tickets.acquire()
        if self.read_frames >= self.count:
            return False, None
        image = np.zeros((4, 6, 3), np.uint8)
        image[..., 2] = self.read_frames
        self.read_frames += 1
        return True, image

    def get(self, _: int) -> float:
        return 0.0

    def release(self) -> None:
        self.released = True


def live(monkeypatch: pytest.MonkeyPatch, count: int) -> tuple[LiveCamera, ScriptedCapture]:
    capture = ScriptedCapture(count)
    monkeypatch.setattr(video, "_open_live", lambda source: capture)
    return LiveCamera("0"), capture


def wait_until(check: object) -> None:
    for _ in range(500):
        if check():  # type: ignore[operator]
            return
        time.sleep(0.01)
    pytest.fail("the grab thread did not get on")


def test_a_slow_reader_gets_the_newest_frame_and_the_others_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    camera, capture = live(monkeypatch, 10)
    capture.tickets.release(5)
    wait_until(lambda: capture.read_frames == 5 and camera.dropped == 4)
    frames = camera.frames()
    assert next(frames).rgb()[0][0, 0, 0] == 4
    capture.tickets.release(1)
    frame = next(frames)
    assert (frame.index, frame.rgb()[0][0, 0, 0], camera.dropped) == (1, 5, 4)
    capture.tickets.release(20)
    camera.close()
    assert capture.released


def test_a_camera_that_ends_is_a_failure_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    camera, capture = live(monkeypatch, 1)
    capture.tickets.release(1)
    frames = camera.frames()
    next(frames)
    capture.tickets.release(1)
    with pytest.raises(S4GError) as error:
        next(frames)
    assert not isinstance(error.value, InputError)
    assert str(error.value) == (
        "--camera 0: the source ended after 1 frames; check cable, power and network"
    )
    camera.close()


def test_a_camera_that_goes_silent_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "STALL_S", 0.05)
    camera, capture = live(monkeypatch, 1)
    with pytest.raises(S4GError) as error:
        next(camera.frames())
    assert str(error.value) == (
        "--camera 0: no frame for 0.05 s after 0 frames; check cable, power and network"
    )
    capture.tickets.release(5)
    camera.close()
