"""The systemd unit that flies `s4g-run` (`s4g-run --print-unit`), filled in for this machine."""

from __future__ import annotations

from pathlib import PurePosixPath

_UNIT = """\
# s4g-run as a service: docs/service.md. Made by `s4g-run --print-unit`.
[Unit]
Description=Position from camera frames, without GNSS (s4g)
# CSI cameras of a Jetson; its power mode.
After=nvargus-daemon.service nvpmodel.service
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} --config /etc/s4g/flight.toml
# Ready at the first frame. A camera that is not there yet prolongs this.
TimeoutStartSec=60
# A frame takes 10 to 100 ms, and where there is none that is told twice a second.
WatchdogSec=5
Restart=on-failure
RestartSec=1
TimeoutStopSec=15

# An account that lives as long as the run, in the groups of the devices.
DynamicUser=yes
User=s4g
SupplementaryGroups=video dialout render
ConfigurationDirectory=s4g
StateDirectory=s4g
StateDirectoryMode=0755
LogsDirectory=s4g
CacheDirectory=s4g
WorkingDirectory=%S/s4g
# Kernels compiled for the GPU are kept in /var/cache/s4g.
Environment=XDG_CACHE_HOME=%C
UMask=0022

# Fixes come before anything but the autopilot's link.
Nice=-5
OOMScoreAdjust=-500

# Devices: cameras, serial ports, and what CUDA and TensorRT open on a Jetson.
DevicePolicy=closed
DeviceAllow=char-video4linux rw
DeviceAllow=char-media rw
DeviceAllow=char-ttyTHS rw
DeviceAllow=char-ttyACM rw
DeviceAllow=char-ttyUSB rw
DeviceAllow=char-ttyAMA rw
DeviceAllow=char-ttyS rw
DeviceAllow=char-drm rw
DeviceAllow=char-nv* rw
DeviceAllow=/dev/nvmap rw

# What it does not need.
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome={protect_home}
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
LockPersonality=yes
CapabilityBoundingSet=
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""
_HOMES = ("/home/", "/root/", "/run/user/")


def unit(program: str) -> str:
    """Return the unit's text.

    Args:
        program: absolute path of `s4g-run`. Under a home folder the unit leaves homes readable;
            otherwise it hides them.
    """
    home = "read-only" if is_in_home(program) else "yes"
    return _UNIT.format(program=_quoted(program), protect_home=home)


def is_in_home(program: str) -> bool:
    """Tell whether a program lies where other accounts may not look."""
    return str(PurePosixPath(program)).startswith(_HOMES)


def _quoted(program: str) -> str:
    """Quote a path for ExecStart: systemd.service(5), systemd.syntax(7)."""
    text = program.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if any(c in text for c in " \t'\"\\") else text
