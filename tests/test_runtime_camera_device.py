"""Finding a camera again, on trees of links like those that Linux makes."""

import shutil
from pathlib import Path

import pytest

from s4g.runtime.camera_device import Devices


class Machine:
    """The parts of /dev and /sys that tell cameras apart; cameras can be plugged in and out."""

    def __init__(self, root: Path) -> None:
        self.dev, self.sys, self.hardware = root / "dev", root / "sys", root / "devices"
        for folder in (self.dev / "v4l" / "by-id", self.sys, self.hardware):
            folder.mkdir(parents=True)
        self.devices = Devices(self.dev, self.sys)

    def plug(self, node: str, socket: str, by_id: str | None = None, index: int = 0) -> Path:
        (self.dev / node).write_text("")
        (self.hardware / socket).mkdir(exist_ok=True)
        entry = self.sys / node
        entry.mkdir()
        (entry / "device").symlink_to(self.hardware / socket)
        (entry / "index").write_text(f"{index}\n")
        if by_id is not None:
            link = self.dev / "v4l" / "by-id" / by_id
            link.unlink(missing_ok=True)
            link.symlink_to(self.dev / node)
        return self.dev / node

    def unplug(self, node: str) -> None:
        (self.dev / node).unlink()
        shutil.rmtree(self.sys / node)
        for link in (self.dev / "v4l" / "by-id").iterdir():
            if not link.exists():
                link.unlink()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_camera_that_stays_is_where_it_was(machine: Machine) -> None:
    node = machine.plug("video0", "usb-1")
    assert machine.devices.find(machine.devices.identify(node)) == node


def test_a_camera_that_comes_back_under_another_number_is_found_by_its_socket(
    machine: Machine,
) -> None:
    device = machine.devices.identify(machine.plug("video0", "usb-1"))
    machine.unplug("video0")
    assert machine.devices.find(device) is None
    machine.plug("video1", "usb-1")
    assert machine.devices.find(device) == machine.dev / "video1"


def test_another_camera_that_takes_the_number_is_not_taken_for_it(machine: Machine) -> None:
    device = machine.devices.identify(machine.plug("video0", "usb-1"))
    machine.unplug("video0")
    machine.plug("video0", "usb-2")
    assert machine.devices.find(device) is None


def test_a_camera_that_is_plugged_in_elsewhere_is_found_by_its_serial_number(
    machine: Machine,
) -> None:
    device = machine.devices.identify(machine.plug("video0", "usb-1", "usb-Cam_4711-index0"))
    machine.unplug("video0")
    machine.plug("video3", "usb-2", "usb-Cam_4711-index0")
    assert machine.devices.find(device) == machine.dev / "video3"


def test_a_twin_without_serial_number_is_not_taken_for_it(machine: Machine) -> None:
    twin = machine.plug("video1", "usb-2", "usb-Cam-index0")
    device = machine.devices.identify(machine.plug("video0", "usb-1", "usb-Cam-index0"))
    machine.unplug("video0")
    (machine.dev / "v4l" / "by-id" / "usb-Cam-index0").symlink_to(twin)  # as udev does
    assert machine.devices.find(device) is None


def test_the_node_of_a_cameras_metadata_is_not_taken_for_its_pictures(machine: Machine) -> None:
    device = machine.devices.identify(machine.plug("video0", "usb-1", index=0))
    machine.plug("video1", "usb-1", index=1)
    machine.unplug("video0")
    assert machine.devices.find(device) is None
    machine.plug("video2", "usb-1", index=0)
    assert machine.devices.find(device) == machine.dev / "video2"


def test_a_link_of_the_users_choice_is_followed(machine: Machine) -> None:
    machine.plug("video0", "usb-1")
    link = machine.dev / "nadir"
    link.symlink_to(machine.dev / "video0")
    device = machine.devices.identify(link)
    machine.unplug("video0")
    assert machine.devices.find(device) is None
    machine.plug("video5", "usb-9")
    link.unlink()
    link.symlink_to(machine.dev / "video5")
    assert machine.devices.find(device) == link


def test_where_sys_is_silent_the_path_has_to_do(machine: Machine) -> None:
    node = machine.dev / "video0"
    node.write_text("")
    device = machine.devices.identify(node)
    assert machine.devices.find(device) == node
    node.unlink()
    assert machine.devices.find(device) is None


def test_nodes_are_listed_by_number(machine: Machine) -> None:
    for name in ("video10", "video2", "video", "videox", "vbi0"):
        (machine.dev / name).write_text("")
    assert [path.name for path in machine.devices.nodes()] == ["video2", "video10"]


def test_a_number_means_a_node(machine: Machine) -> None:
    assert machine.devices.path("7") == machine.dev / "video7"
    assert machine.devices.path("/dev/x") == Path("/dev/x")
