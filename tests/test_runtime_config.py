"""`--config FILE`: the same options as on the command line, and refusals that name the file."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.console import run_command
from s4g.core.errors import InputError
from s4g.runtime.cli import cli
from s4g.runtime.config import read_config

COMMAND = cli.commands["main-job"]
OPTIONS = {
    next(name for name in option.opts if name.startswith("--")).removeprefix("--"): option
    for option in COMMAND.params
    if isinstance(option, click.Option) and option.expose_value
}
# No full stop: a path that begins with one lies beside the file, which the command line knows not.
TEXTS = st.text("abzÄ日0129 :?&=%@#'\"\\/,;{}[]$\t", min_size=1, max_size=20)


def values_of(option: click.Option) -> st.SearchStrategy[Any] | None:
    """Return what may be given for an option, None where only its part knows."""
    kind = option.type
    if option.is_flag:
        return st.booleans()
    if isinstance(kind, click.IntRange):
        return st.integers(kind.min or 0, kind.max or 10**6)
    if isinstance(kind, click.FloatRange):
        return st.floats(kind.min or 0.0, kind.max or 1e6, exclude_min=kind.min_open)
    if isinstance(kind, click.types.FloatParamType):
        return st.floats(-1e6, 1e6) | st.integers(-1000, 1000)
    if isinstance(kind, click.Choice):
        return st.sampled_from(list(kind.choices))
    if isinstance(kind, click.Path):
        return TEXTS.map(lambda text: "/" + text)
    if type(kind) is type(click.STRING):
        return st.lists(TEXTS, max_size=3) if option.multiple else TEXTS
    return None


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def words(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}"] if value else []
    return [f"--{name}={one}" for one in (value if isinstance(value, list) else [value])]


def parsed(*arguments: str) -> dict[str, Any]:
    return dict(COMMAND.make_context("s4g-run", list(arguments)).params)


CHOICES = st.fixed_dictionaries(
    {"camera": TEXTS, "pack": TEXTS.map(lambda text: "/" + text)},
    optional={
        name: values
        for name, option in OPTIONS.items()
        if name not in ("camera", "pack") and (values := values_of(option)) is not None
    },
)


@given(CHOICES)
def test_a_file_gives_the_same_values_as_the_command_line(
    tmp_path_factory: pytest.TempPathFactory, chosen: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("config") / "flight.toml"
    text = "".join(f"{name} = {toml(value)}\n" for name, value in chosen.items())
    path.write_text(text, encoding="utf-8")
    typed = [word for name, value in chosen.items() for word in words(name, value)]
    assert parsed("--config", str(path)) == parsed(*typed)


def test_most_options_of_the_command_are_tried_by_that() -> None:
    untried = {name for name, option in OPTIONS.items() if values_of(option) is None}
    assert untried == set()


def test_the_documented_file_is_read(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "service.md").read_text("utf-8")
    example = re.search(r"^(?: {4}.+\n)+", page, re.M)
    assert example is not None
    path = tmp_path / "flight.toml"
    path.write_text(textwrap.dedent(example[0]), encoding="utf-8")
    values = parsed("--config", str(path))
    assert values["pack_path"] == tmp_path / "region.s4gpack"
    assert values["to"] == ("mavlink:telemetry", "nmea+tcp://127.0.0.1:10110?rate=5")
    assert (values["rate"], values["metrics"], values["quiet"]) == (10.0, "9464", True)


@pytest.fixture
def config(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "flight.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_command_line_wins_over_the_file_wherever_it_stands(config: Any) -> None:
    path = str(config('camera = "0"\npack = "/a.s4gpack"\nmax-age = 0.25\nhfov = 80\n'))
    for typed in (["--config", path, "--max-age", "1"], ["--max-age", "1", "--config", path]):
        values = parsed(*typed)
        assert (values["max_age"], values["hfov"], values["camera"]) == (1.0, 80.0, "0")


def test_paths_lie_beside_the_file_and_so_do_others_that_say_so(config: Any) -> None:
    path = config(
        'camera = "./frames"\npack = "region.s4gpack"\ntelemetry = "telemetry.csv"\n'
        'truth = "../truth.csv"\nintrinsics = "/etc/camera.json"\n'
    )
    folder, values = path.parent, parsed("--config", str(path))
    assert values["camera"] == f"{folder}/frames"
    assert values["pack_path"] == folder / "region.s4gpack"
    assert values["telemetry"] == "telemetry.csv"
    assert values["truth"] == folder / "../truth.csv"
    assert values["intrinsics"] == Path("/etc/camera.json")


def test_a_path_in_an_outputs_url_lies_beside_the_file_where_it_says_so(tmp_path: Path) -> None:
    @click.command
    @click.option("--to", multiple=True)
    def command(to: tuple[str, ...]) -> None:
        pass

    folder = tmp_path / "50 % off?"
    folder.mkdir()
    path = folder / "flight.toml"
    path.write_text('to = ["jsonl:./a.jsonl?keep=2", "nmea+udp://h:1", "gpx:b.gpx"]\n')
    beside = f"{tmp_path}/50%20%25%20off%3F/a.jsonl?keep=2"
    assert read_config(path, command)["to"] == [f"jsonl:{beside}", "nmea+udp://h:1", "gpx:b.gpx"]


def test_options_that_a_file_leaves_out_are_as_without_it(config: Any) -> None:
    path = config('camera = "0"\npack = "/a.s4gpack"\n')
    assert parsed("--config", str(path)) == parsed("--camera=0", "--pack=/a.s4gpack")


def test_an_option_that_neither_gives_is_still_missing(
    config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_command(cli, ["--config", str(config('camera = "0"\n'))])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: Missing option '--pack'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_age = 1", "max_age: no option of s4g-run; did you mean max-age?"),
        ("--max-age = 1", "--max-age: no option of s4g-run; did you mean max-age?"),
        ('camra = "0"', "camra: no option of s4g-run; did you mean camera?"),
        ("debug = true", "debug: no option of s4g-run; see s4g-run --help"),
        ('config = "b.toml"', "config: no option of s4g-run; see s4g-run --help"),
        ("wings = 2", "wings: no option of s4g-run; see s4g-run --help"),
        ('max-age = "1"', 'max-age = "1": expected a number, without quotes'),
        ("max-age = true", "max-age = true: expected a number, without quotes"),
        ("threads = 1.0", "threads = 1.0: expected a whole number, without quotes"),
        ("threads = true", "threads = true: expected a whole number, without quotes"),
        ("quiet = 1", "quiet = 1: expected true or false"),
        ("camera = 0", 'camera = 0: expected text, such as camera = "0"'),
        ('camera = ["0"]', 'camera = ["0"]: expected text, such as camera = "…"'),
        ("[camera]", 'camera = a table: expected text, such as camera = "…"'),
        ("rate = 0", "rate = 0: 0.0 is not in the range 0<x<=1000"),
        ('device = "gpu"', "device = \"gpu\": 'gpu' is not one of "),
    ],
)
def test_what_is_wrong_in_a_file_is_named(config: Any, text: str, message: str) -> None:
    path = config(text + "\n")
    with pytest.raises(InputError) as refused:
        read_config(path, COMMAND)
    assert str(refused.value).startswith(f"{path}: {message}")
    assert message.endswith("one of ") or str(refused.value) == f"{path}: {message}"


def test_one_text_is_no_list_of_outputs(tmp_path: Path) -> None:
    @click.command
    @click.option("--to", multiple=True)
    def command(to: tuple[str, ...]) -> None:
        pass

    path = tmp_path / "flight.toml"
    path.write_text('to = "gpx:a.gpx"\n')
    with pytest.raises(InputError) as refused:
        read_config(path, command)
    assert str(refused.value) == (
        f'{path}: to = "gpx:a.gpx": expected a list, such as to = ["gpx:a.gpx"]'
    )
    path.write_text("to = [8080]\n")
    with pytest.raises(InputError) as refused:
        read_config(path, command)
    assert str(refused.value) == f'{path}: to = [8080]: expected texts, such as to = ["8080"]'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"max-age: 1\n", "not TOML: "),
        (b"max-age = 1\nmax-age = 2\n", "not TOML: "),
        (b"camera = \xff\n", "not UTF-8 at byte 9; save it as UTF-8"),
        (b"#" * 1_000_001, "1000001 bytes; expected a file of options, in TOML"),
    ],
)
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "flight.toml"
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_config(path, COMMAND)
    assert str(refused.value).startswith(f"{path}: {message}")


def test_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.toml"
    with pytest.raises(SystemExit) as stop:
        run_command(cli, ["--config", str(path)])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"error: {path}: cannot be read (No such file or directory)\n"
    )


@given(st.binary(max_size=200))
def test_no_content_whatever_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("config") / "flight.toml"
    path.write_bytes(content)
    try:
        assert isinstance(read_config(path, COMMAND), dict)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
