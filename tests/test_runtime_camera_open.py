import cv2
import pytest

from s4g.core.errors import InputError
from s4g.runtime.camera_open import Kind, has_gstreamer, live_kind, public_name
from s4g.runtime.frames import CameraMode, LiveOptions, open_frames

BUILD_WITH = "  Video I/O:\n    FFMPEG:      YES\n    GStreamer:   YES (1.20.3)\n"


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("0", Kind.V4L2),
        ("/dev/video2", Kind.V4L2),
        ("/dev/v4l/by-id/usb-Cam-index0", Kind.V4L2),
        ("rtsp://10.0.0.5/main", Kind.FFMPEG),
        ("udp://0.0.0.0:5600", Kind.FFMPEG),
        ("rtspsrc location=rtsp://a/b ! appsink", Kind.GSTREAMER),
        ("flight.mp4", None),
        ("photos/", None),
    ],
)
def test_sources_are_told_apart_by_how_they_are_written(source: str, kind: Kind | None) -> None:
    assert live_kind(source) is kind


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://admin:s3cret@10.0.0.5/main", "rtsp://admin:***@10.0.0.5/main"),
        ("rtsp://:s3cret@10.0.0.5/main", "rtsp://:***@10.0.0.5/main"),
        ("rtsp://10.0.0.5:8554/a@b", "rtsp://10.0.0.5:8554/a@b"),
        (
            "rtspsrc location=rtsp://a:b@c/d ! appsink",
            "rtspsrc location=rtsp://a:***@c/d ! appsink",
        ),
        ("/dev/video0", "/dev/video0"),
    ],
)
def test_passwords_are_not_shown(source: str, shown: str) -> None:
    assert public_name(source) == shown


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError) as error:
        open_frames("/dev/video987")
    assert str(error.value).startswith("--camera /dev/video987: no device /dev/video987; found ")


def test_a_device_number_means_its_node() -> None:
    with pytest.raises(InputError, match="--camera 987: no device /dev/video987"):
        open_frames("987")


def test_a_device_that_is_no_camera_is_refused() -> None:
    with pytest.raises(InputError) as error:
        open_frames("/dev/null")
    assert str(error.value) == (
        "--camera /dev/null: /dev/null cannot be opened as a camera; another program may use it, "
        "or you may not be in the group 'video'"
    )


def test_a_stream_nobody_serves_is_refused_without_its_password() -> None:
    with pytest.raises(InputError) as error:
        open_frames("rtsp://me:s3cret@127.0.0.1:9/none")
    assert str(error.value) == (
        "--camera rtsp://me:***@127.0.0.1:9/none: no stream there within 10 s; check address, "
        "network and password"
    )


def test_a_mode_is_refused_where_there_is_none_to_choose() -> None:
    with pytest.raises(InputError) as error:
        open_frames("rtsp://127.0.0.1:9/none", LiveOptions(mode=CameraMode(1280, 720)))
    assert str(error.value) == (
        "--camera rtsp://127.0.0.1:9/none: a mode can be asked of V4L2 devices alone; set size "
        "and format where the stream is made"
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
        f"--camera videotestsrc ! appsink: this OpenCV {cv2.__version__} is built without "
        "GStreamer (the pip wheels are); let gst-launch-1.0 run the pipeline and serve it as "
        "tcp://127.0.0.1:PORT, see docs/cameras.md, or use an OpenCV that is built with it"
    )
