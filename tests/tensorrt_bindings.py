"""The real bindings of TensorRT without TensorRT: fetched, made importable, written down.

NVIDIA publishes the Python bindings of each version as a small wheel without the libraries. The
extension needs nine functions from them; a stub with those nine lets it load, and then every class,
enum and signature can be read, without a GPU. The wheels are fetched when the tests run and are
never part of this repository (docs/tensorrt.md).

Run as a script with a folder, it imports `tensorrt_bindings` from there and prints JSON.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# JetPack 6.1 and 6.2 bring 10.3.0, JetPack 7.2 brings 10.16 and later 11.4.
PACKAGES = {
    "10.3.0": "tensorrt_cu12_bindings",
    "10.13.3.9": "tensorrt_cu13_bindings",
    "10.16.1.11": "tensorrt_cu13_bindings",
    "11.4.0.106": "tensorrt_cu13_bindings",
}
LIBRARIES = ("libnvinfer", "libnvonnxparser", "libnvinfer_plugin")
STUB = """
#define NOTHING(name) void *name(void) { return 0; }
NOTHING(createInferBuilder_INTERNAL)
NOTHING(createInferRefitter_INTERNAL)
NOTHING(createInferRuntime_INTERNAL)
NOTHING(createNvOnnxParser_INTERNAL)
NOTHING(createNvOnnxParserRefitter_INTERNAL)
NOTHING(getPluginRegistry)
NOTHING(getBuilderPluginRegistry)
int getNvOnnxParserVersion(void) { return 0; }
_Bool initLibNvInferPlugins(void *logger, const char *name) { return 1; }
"""
_PREFIX = "tensorrt_bindings.tensorrt."


class Unavailable(Exception):
    """The bindings cannot be had here; the message says why."""


def fetch(version: str, cache: Path) -> Path:
    """Return a folder from which `tensorrt_bindings` of a version can be imported.

    Raises:
        Unavailable: pip cannot fetch the wheel, or there is no C compiler.
    """
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    folder = cache / f"{version}-{python}"
    if folder.is_dir():
        return folder
    if (compiler := shutil.which("gcc") or shutil.which("cc")) is None:
        raise Unavailable("no C compiler (gcc or cc) for the stub libraries")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as made:
        whole = Path(made) / "whole"
        package = f"{PACKAGES[version]}=={version}"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--no-deps", "--only-binary=:all:", "--retries=1", "--timeout=20"]
        _run([*pip, "--target", str(whole), package], f"pip cannot fetch {package} for {python}")
        source = Path(made) / "stub.c"
        source.write_text(STUB)
        for library in LIBRARIES:
            name = f"{library}.so.{version.split('.')[0]}"
            target = str(whole / "tensorrt_bindings" / name)
            build = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", target, str(source)]
            _run(build, f"{compiler} cannot build {name}")
        with contextlib.suppress(OSError):  # another run was faster
            whole.rename(folder)
    return folder


def _run(command: list[str], failure: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or [done.stderr]
        raise Unavailable(f"{failure}: {lines[-1].strip()}")


# ---- what a version has ------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    """A parameter of a call: its name, its type where that is one of TensorRT's, and a default."""

    name: str
    type: str | None
    optional: bool


@dataclass(frozen=True)
class Signature:
    """One way to call something; `self` is left out."""

    parameters: tuple[Parameter, ...]
    returns: str | None


class Bindings:
    """Names, members and signatures of one version.

    Types are written as `Builder` (an object of that class), `class:Builder`, `list:Dims`,
    `module`, and `call:Builder.create_network`.
    """

    def __init__(self, version: str, reported: str, names: dict[str, Any]) -> None:
        self.version = version
        self.reported = reported  # what the module itself says
        self.names = names

    @classmethod
    def load(cls, version: str, folder: Path) -> Bindings:
        """Read a version in a process of its own: all of them have the same module name."""
        done = subprocess.run(
            [sys.executable, __file__, str(folder)], capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout)
        return cls(version, found["version"], found["names"])

    def entry(self, path: str) -> dict[str, Any] | None:
        """Return what stands at a dotted path, None where there is nothing."""
        names: dict[str, Any] = self.names
        found: dict[str, Any] | None = None
        for part in path.split("."):
            found = names.get(part)
            if found is None:
                return None
            names = found.get("members", {})
        return found

    def attribute(self, owner: str, name: str) -> tuple[bool, str | None]:
        """Return whether something of type `owner` has an attribute, and the attribute's type."""
        holder = owner.removeprefix("class:")
        path = name if owner == "module" else f"{holder}.{name}"
        found = self.entry(path)
        if found is None:
            return False, None
        if found["kind"] == "class":
            return True, f"class:{path}"
        if found["kind"] == "call":
            return True, f"call:{path}"
        return True, known_type(found.get("type", ""))

    def signatures(self, path: str) -> list[Signature]:
        """Return the ways to call a method, or a class to make an object."""
        found = self.entry(path) or {}
        if found.get("kind") == "class":
            found = self.entry(f"{path}.__init__") or {}
        return [parse_signature(text) for text in found.get("signatures", ())]

    def is_kind_of(self, name: str, wanted: str) -> bool:
        """Return whether objects of class `name` are objects of class `wanted`."""
        return name == wanted or wanted in (self.entry(name) or {}).get("bases", ())


def known_type(text: str) -> str | None:
    """Return a docstring's type as `Bindings` writes it, None where it is not TensorRT's."""
    text = text.strip()
    if (inner := re.fullmatch(r"[Ll]ist\[(.*)\]", text)) is not None:
        element = known_type(inner[1])
        return f"list:{element}" if element else None
    if text.startswith(_PREFIX):
        return text.removeprefix(_PREFIX)
    if "::" in text:  # a C++ name: `nvonnxparser::IParserError` is ParserError in Python
        return text.split("::")[-1].replace("IParserError", "ParserError")
    return None


def parse_signature(text: str) -> Signature:
    """Parse `name(self: A, x: B = c) -> D`."""
    inside, _, returns = text.partition("(")[2].rpartition(") -> ")
    parameters = []
    for part in _split(inside):
        name, _, rest = part.partition(":")
        kind, _, default = rest.partition(" = ")
        parameters.append(Parameter(name.strip(), known_type(kind), bool(default)))
    return Signature(
        tuple(p for p in parameters if p.name not in ("self", "arg0")), known_type(returns)
    )


def _split(text: str) -> list[str]:
    """Split at commas that lie in no bracket."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]


# ---- run as a script: one version, in a process of its own -------------------------------------


def describe(thing: Any, name: str) -> dict[str, Any]:
    """Return what a public name is, with its members."""
    if isinstance(thing, property):
        getter = str(getattr(thing.fget, "__doc__", "") or "")
        kind = getter.rpartition("->")[2].strip().splitlines()
        return {
            "kind": "property",
            "type": kind[0] if kind else "",
            "settable": thing.fset is not None,
        }
    if isinstance(thing, type):
        values = getattr(thing, "__members__", {})
        members = {
            member: describe(getattr(thing, member), member)
            for member in dir(thing)
            if (member == "__init__" or not member.startswith("_")) and member not in values
        }
        path = f"{_PREFIX}{thing.__qualname__}"
        for member, value in values.items():
            members[member] = {"kind": "value", "type": path, "value": int(value)}
        bases = [base.__qualname__ for base in thing.__mro__[1:]]
        return {"kind": "class", "members": members, "bases": bases}
    if callable(thing):
        doc = str(getattr(thing, "__doc__", "") or "")
        found = re.findall(rf"^\s*(?:\d+\. )?({re.escape(name)}\(.*\) -> .*)$", doc, re.M)
        signatures = [text for text in found if "(*args, **kwargs)" not in text]
        return {"kind": "call", "signatures": signatures}
    return {"kind": "value", "type": f"{_PREFIX}{type(thing).__qualname__}"}


def main() -> None:
    """Print what `tensorrt_bindings` in the folder named on the command line has."""
    sys.path.insert(0, sys.argv[1])
    import tensorrt_bindings

    names = {
        name: describe(getattr(tensorrt_bindings, name), name)
        for name in [*dir(tensorrt_bindings), "__version__"]
        if name == "__version__" or not name.startswith("_")
    }
    json.dump({"version": tensorrt_bindings.__version__, "names": names}, sys.stdout)


if __name__ == "__main__":
    main()
