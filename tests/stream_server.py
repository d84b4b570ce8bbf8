"""A live camera on loopback for tests: RTSP, MPEG-TS over UDP, or JPEGs over TCP, by GStreamer.

A script for the system's Python, which has GStreamer's bindings; `live_streams.py` starts it. It
prints the port once it serves. Each picture holds the monotonic clock's milliseconds of its making
as black and white squares, so that whoever gets it can tell its true age.
"""

from __future__ import annotations

import argparse
import os
import threading
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

BITS, SQUARE_PX = 20, 16
BLACK, GREY, WHITE = 16, 128, 235
NOISE_PX = 8192  # few enough to leave bits for the squares
CAMERA = "appsrc name=camera is-live=true do-timestamp=true format=time"
ENCODER = (
    "videoconvert ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 bitrate=2000"
)
SENDERS = {
    "udp": f"{ENCODER} ! mpegtsmux alignment=7 ! udpsink host=127.0.0.1 sync=false",
    "tcp": "jpegenc ! matroskamux streamable=true ! tcpserversink host=127.0.0.1 sync=false",
}


def picture(width_px: int, height_px: int) -> bytes:
    """Return an I420 picture: the time, and some noise, so that it fills a packet or more."""
    now_ms = int(time.monotonic() * 1e3)
    squares = [WHITE if now_ms >> bit & 1 else BLACK for bit in range(BITS)]
    row = b"".join(bytes([value]) * SQUARE_PX for value in squares)
    row += bytes([GREY]) * (width_px - len(row))
    noise = os.urandom(NOISE_PX)
    luma_px, chroma_px = width_px * (height_px - SQUARE_PX), width_px * height_px // 2
    return row * SQUARE_PX + noise.rjust(luma_px, bytes([GREY])) + bytes([GREY]) * chroma_px


def feed(sources: list[Gst.Element], size_px: tuple[int, int], fps: int) -> None:
    """Make pictures at a steady rate, for whatever source there is."""
    due_s = time.monotonic()
    while True:
        due_s = max(due_s + 1 / fps, time.monotonic() - 1 / fps)
        time.sleep(max(due_s - time.monotonic(), 0.0))
        for source in sources[-1:]:
            source.emit("push-buffer", Gst.Buffer.new_wrapped(picture(*size_px)))


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("rtsp", "udp", "tcp"))
    parser.add_argument("port", help="0 for a free one (RTSP alone)")
    parser.add_argument("width_px", type=int)
    parser.add_argument("height_px", type=int)
    parser.add_argument("fps", type=int)
    options = parser.parse_args()
    Gst.init(None)
    caps = Gst.Caps.from_string(
        f"video/x-raw,format=I420,width={options.width_px},height={options.height_px},"
        f"framerate={options.fps}/1"
    )
    sources: list[Gst.Element] = []

    def use(pipeline: Gst.Element) -> None:
        source = pipeline.get_by_name("camera")
        source.set_property("caps", caps)
        sources.append(source)

    if options.kind == "rtsp":
        server = GstRtspServer.RTSPServer(address="127.0.0.1", service=options.port)
        factory = GstRtspServer.RTSPMediaFactory(shared=True)
        factory.set_launch(f"( {CAMERA} ! {ENCODER} ! rtph264pay name=pay0 config-interval=1 )")
        factory.connect("media-configure", lambda _, media: use(media.get_element()))
        server.get_mount_points().add_factory("/main", factory)
        server.attach(None)
    else:
        pipeline = Gst.parse_launch(f"{CAMERA} ! {SENDERS[options.kind]} port={options.port}")
        use(pipeline)
        pipeline.set_state(Gst.State.PLAYING)
    size_px = (options.width_px, options.height_px)
    threading.Thread(target=feed, args=(sources, size_px, options.fps), daemon=True).start()
    if options.kind == "rtsp":
        print(server.get_bound_port(), flush=True)
    else:
        time.sleep(5 / options.fps)  # whoever comes before the first frame misses the beginning
        print(options.port, flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
