"""Finding a V4L2 camera again after it was unplugged: its node may have another number by then.

Linux numbers nodes as they come. What stays is where the device is plugged in, as `/sys` says it
(the links of `/dev/v4l/by-path` are made from that, where udev runs), and in another port its
serial number, from which udev makes `/dev/v4l/by-id`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_NODE = "video"


@dataclass(frozen=True)
class Device:
    """What is known of a camera while it is there.

    Attributes:
        given: the path the user named.
        socket: where it is plugged in and which of the nodes there, None where `/sys` is silent.
        by_id: link that follows it to other ports, None where there is none.
        strangers: where other cameras were plugged in at that time.
    """

    given: Path
    socket: tuple[Path, str] | None
    by_id: Path | None
    strangers: frozenset[tuple[Path, str]]


class Devices:
    """The cameras of a machine; the folders are arguments for the tests' sake."""

    def __init__(
        self, dev: Path = Path("/dev"), sys: Path = Path("/sys/class/video4linux")
    ) -> None:
        """Remember where the kernel lists its devices."""
        self._dev, self._sys = dev, sys

    def nodes(self) -> list[Path]:
        """Return the video nodes that exist, by number."""
        nodes = [path for path in self._dev.glob(f"{_NODE}*") if _is_node(path)]
        return sorted(nodes, key=lambda path: int(path.name[len(_NODE) :]))

    def path(self, source: str) -> Path:
        """Return the node or link that `--camera` means: a number or a path."""
        return self._dev / f"{_NODE}{source}" if source.isdigit() else Path(source)

    def identify(self, given: Path) -> Device:
        """Remember what tells this camera from others."""
        node = given.resolve()
        links = sorted(p for p in (self._dev / "v4l" / "by-id").glob("*") if p.resolve() == node)
        others = {self._socket(other) for other in self.nodes() if other.resolve() != node}
        return Device(
            given,
            self._socket(node),
            links[0] if links else None,
            frozenset(socket for socket in others if socket is not None),
        )

    def find(self, device: Device) -> Path | None:
        """Return the node that the camera has now, None while it is not there.

        A link that the user chose is taken at its word. Two cameras without serial numbers share
        one link in `by-id`, so it must not lead to a camera that was there all the time.
        """
        if device.socket is None or not _is_node(device.given):
            return device.given if device.given.exists() else None
        for node in self.nodes():
            if self._socket(node) == device.socket:
                return node
        if device.by_id is None or not device.by_id.exists():
            return None
        node = device.by_id.resolve()
        return None if self._socket(node) in device.strangers else node

    def _socket(self, node: Path) -> tuple[Path, str] | None:
        entry = self._sys / node.name
        try:
            return (entry / "device").resolve(strict=True), (entry / "index").read_text().strip()
        except OSError:
            return None


def _is_node(path: Path) -> bool:
    return path.name.startswith(_NODE) and path.name[len(_NODE) :].isdigit()
