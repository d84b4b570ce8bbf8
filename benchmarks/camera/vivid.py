"""Boots a virtual machine whose kernel has `vivid`, the V4L2 driver that makes its own pictures.

Containers and small virtual machines have kernels without modules, so the driver runs in QEMU: a
Debian kernel, an initramfs of busybox and modules, and this machine's files, read only.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "cpio": "cpio",
    "depmod": "kmod",
    "modprobe": "kmod",
    "v4l2-ctl": "v4l-utils",
}
VIVID = "vivid"
# One webcam, nothing but a capture node: YUYV in several sizes.
VIVID_PARAMETERS = "n_devs=1 node_types=0x1 num_inputs=1 input_types=0x0"
MODULES = ("virtio_pci", "9p", "9pnet_virtio", VIVID)
INIT = """#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
$bb mount -t devtmpfs dev /dev
while read -r module parameters; do
  $bb insmod "/modules/$module" $parameters || echo "insmod $module failed"
done < /order
$bb mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144,cache=loose hostroot /host
for folder in proc sys dev; do $bb mount -o bind /$folder /host/$folder; done
$bb mount -t tmpfs tmp /host/tmp
$bb chroot /host /bin/sh -c "$($bb cat /command)"
$bb poweroff -f
"""


def lacking(kernel: Path) -> str | None:
    """Return what is missing to boot, with the remedy; None where all is there."""
    packages = {package for tool, package in TOOLS.items() if _tool(tool) is None}
    if packages:
        return f"not installed: apt install {' '.join(sorted(packages))}"
    if not list(kernel.glob("boot/vmlinuz-*")):
        return (
            f"{kernel} holds no boot/vmlinuz-*; unpack a Debian kernel there: apt-get download "
            f"linux-image-VERSION-amd64 && dpkg-deb -x linux-image-*.deb {kernel}"
        )
    return None


def make_initramfs(kernel: Path, work: Path, command: str) -> tuple[Path, Path]:
    """Write the initramfs that runs a command in this machine's files; return kernel and it."""
    image = sorted(kernel.glob("boot/vmlinuz-*"))[-1]
    version = image.name.removeprefix("vmlinuz-")
    subprocess.run([_need("depmod"), "-b", str(kernel), version], check=True)
    root = work / "initramfs"
    for folder in ("bin", "proc", "sys", "dev", "host", "modules"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    shutil.copy(_need("busybox"), root / "bin" / "busybox")
    order: list[str] = []
    for module in MODULES:
        for path in _with_dependencies(kernel, version, module):
            if path.name not in order:
                order.append(path.name)
                shutil.copy(path, root / "modules" / path.name)
    lines = [f"{n} {VIVID_PARAMETERS if n == f'{VIVID}.ko' else ''}".strip() for n in order]
    (root / "order").write_text("\n".join(lines) + "\n")
    (root / "command").write_text(command)
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    archive = work / "initramfs.cpio"
    with archive.open("wb") as file:
        subprocess.run(
            [_need("cpio"), "--quiet", "-o", "-H", "newc"],
            cwd=root,
            input=names.encode(),
            stdout=file,
            check=True,
        )
    return image, archive


def boot(image: Path, archive: Path, timeout_s: float) -> Iterator[str]:
    """Run the machine until it powers itself off; yield the lines of its console."""
    share = "local,path=/,mount_tag=hostroot,security_model=none,readonly=on,multidevs=remap"
    command = [_need("timeout"), str(timeout_s), _need("qemu-system-x86_64")]
    # TCG, as nested KVM hangs in places; the default CPU lacks what wheels are compiled for.
    command += ["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "2000", "-smp", "2"]
    command += ["-nographic", "-no-reboot", "-net", "none", "-virtfs", share]
    command += ["-kernel", str(image), "-initrd", str(archive)]
    command += ["-append", "console=ttyS0 quiet panic=-1"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as machine:
        assert machine.stdout is not None
        for line in machine.stdout:
            yield line.rstrip()


def _with_dependencies(kernel: Path, version: str, module: str) -> list[Path]:
    """Return the files of a module and of what it needs, in the order of loading."""
    shown = subprocess.run(
        [_need("modprobe"), "-d", str(kernel), "-S", version, "--show-depends", module],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    lines = [line.split() for line in shown.splitlines()]
    return [Path(words[1]) for words in lines if words[0] == "insmod"]


def _tool(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def _need(name: str) -> str:
    path = _tool(name)
    assert path is not None, name
    return path
