"""Options of `s4g-run` from a TOML file (`--config FILE`), under their long names.

Whatever option the command has may stand in the file, whichever part adds it; click takes the
values as defaults, so that the command line wins.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from ..core.errors import InputError
from ..core.files import read_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MOST_BYTES = 1_000_000  # a file of options is far smaller; another file was meant
# What begins so lies beside the file, in options too that take URLs and devices as well.
_BESIDE = re.compile(r"(?P<kind>[a-z][a-z0-9+]*:)?(?P<path>\.{1,2}/.*)", re.DOTALL)


def read_config(path: Path, command: click.Command) -> dict[str, Any]:
    """Return the values of a file of options, by the names that click gives the parameters.

    Relative paths are relative to the file's folder: all of options that take nothing but a path,
    and those that begin with `./` or `../` of others (`camera = "./photos"`,
    `to = ["jsonl:./fixes.jsonl"]`).

    Args:
        path: the file, TOML 1.0: a key without dashes in front for each option.
        command: whose options may stand in it.

    Returns:
        Values in the types that click's parameters take, checked by them.

    Raises:
        InputError: the file cannot be read, is no TOML, has a key that is no option, or a value
            that is of the wrong type or refused by the option.
    """
    options = {
        name.removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option) and option.expose_value
        for name in option.opts
        if name.startswith("--")
    }
    values = {}
    for key, value in _tables(path).items():
        if key not in options:
            raise InputError(f"{path}: {key}: {_no_option(key, list(options))}")
        option = options[key]
        _check_type(path, key, value, option)
        value = _beside(path.absolute().parent, value, option)
        _check_value(path, key, value, option, command)
        assert option.name is not None
        values[option.name] = value
    return values


def _tables(path: Path) -> dict[str, Any]:
    data = read_bytes(path)
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path}: {len(data)} bytes; expected a file of options, in TOML")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML: {error}; expected lines like max-age = 0.5") from error


def _no_option(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key.replace("_", "-").removeprefix("--"), known, 1, 0.6)
    if near:
        return f"no option of s4g-run; did you mean {near[0]}?"
    return "no option of s4g-run; see s4g-run --help"


def _check_type(path: Path, key: str, value: Any, option: click.Option) -> None:
    """Refuse a value that click would convert: `"0.5"` for a number, `1` for a switch."""
    seen = _spelt(value)
    if option.multiple:
        if not isinstance(value, list):
            raise InputError(f"{path}: {key} = {seen}: expected a list, such as {key} = [{seen}]")
        wrong = next((one for one in value if not isinstance(one, str)), None)
        if wrong is not None:
            raise InputError(
                f'{path}: {key} = {seen}: expected texts, such as {key} = ["{_bare(wrong)}"]'
            )
    elif option.is_flag:
        if not isinstance(value, bool):
            raise InputError(f"{path}: {key} = {seen}: expected true or false")
    elif isinstance(option.type, click.types.IntParamType):  # IntRange is one too
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(f"{path}: {key} = {seen}: expected a whole number, without quotes")
    elif isinstance(option.type, click.types.FloatParamType):
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InputError(f"{path}: {key} = {seen}: expected a number, without quotes")
    elif not isinstance(value, str):
        raise InputError(f'{path}: {key} = {seen}: expected text, such as {key} = "{_bare(value)}"')


def _beside(folder: Path, value: Any, option: click.Option) -> Any:
    if isinstance(value, list):
        return [_beside(folder, one, option) for one in value]
    if isinstance(option.type, click.Path):
        return str(folder / value)
    if not isinstance(value, str):
        return value
    match = _BESIDE.fullmatch(value)
    if match is None:
        return value
    if match["kind"] is None:
        return str(folder / match["path"])
    # Of an output's URL (`jsonl:./fixes.jsonl`) percent signs are undone later.
    return f"{match['kind']}{Path(quote(str(folder))) / match['path']}"


def _check_value(
    path: Path, key: str, value: Any, option: click.Option, command: click.Command
) -> None:
    """Let the option itself refuse a value, so that the message names the file."""
    context = click.Context(command)
    try:
        for one in value if isinstance(value, list) else [value]:
            option.type.convert(one, option, context)
    except click.BadParameter as error:
        reason = error.message.removesuffix(".")
        raise InputError(f"{path}: {key} = {_spelt(value)}: {reason}") from error


def _spelt(value: Any) -> str:
    """Return a value as it stands in a file, but for tables and dates."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(_spelt(one) for one in value)}]"
    return "a table" if isinstance(value, Mapping) else str(value)


def _bare(value: Any) -> str:
    return "…" if isinstance(value, list | dict) else _spelt(value)
