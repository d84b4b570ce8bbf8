"""What all commands share: the main job, exit codes, one-line errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.console import (
    CommandGroup,
    MainCommand,
    debug_option,
    parse_numbers,
    progress,
    run_command,
    say,
)
from s4g.core.errors import InputError, IntegrityError, S4GError


def make_pack_command() -> CommandGroup:
    @click.group(cls=CommandGroup, name="s4g-pack")
    def cli() -> None:
        """Build and inspect packs."""

    @cli.main_job
    @click.command(cls=MainCommand)
    @click.option("--bbox", required=True, help="Region in degrees.")
    @click.option("--fail", type=click.Choice(["input", "disk", "bug", "os", "interrupt"]))
    @debug_option
    def build(bbox: str, fail: str | None) -> None:
        """Build a pack."""
        errors: dict[str | None, BaseException] = {
            "input": IntegrityError("a.tif: truncated;\nfetch it again"),
            "disk": S4GError("disk full"),
            "bug": ZeroDivisionError("division by zero"),
            "os": FileNotFoundError(2, "No such file or directory", "a.csv"),
            "interrupt": KeyboardInterrupt(),
        }
        if fail in errors:
            raise errors[fail]
        click.echo(f"built {bbox}")

    @cli.command()
    @click.argument("pack")
    def info(pack: str) -> None:
        """Show what a pack holds."""
        click.echo(f"info {pack}")

    return cli


def run(
    capsys: pytest.CaptureFixture[str], *arguments: str, command: click.Command | None = None
) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        run_command(command or make_pack_command(), arguments)
    out, err = capsys.readouterr()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, out, err


Capsys = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def program_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["s4g-pack"])


def test_options_go_to_the_main_job(capsys: Capsys) -> None:
    assert run(capsys, "--bbox", "1,2,3,4") == (0, "built 1,2,3,4\n", "")


def test_a_first_word_runs_the_subcommand_of_that_name(capsys: Capsys) -> None:
    assert run(capsys, "info", "region.s4gpack") == (0, "info region.s4gpack\n", "")


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_help_shows_the_main_job_under_the_groups_name_and_lists_subcommands(
    capsys: Capsys, arguments: list[str]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: s4g-pack [OPTIONS]\n\n  Build a pack.\n")
    assert out.endswith("Subcommands:\n  info  Show what a pack holds.\n")
    assert "main-job" not in out


def test_help_of_a_subcommand_names_both(capsys: Capsys) -> None:
    _, out, _ = run(capsys, "info", "--help")
    assert out.startswith("Usage: s4g-pack info [OPTIONS] PACK\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["inof", "a"],
            "error: no subcommand 'inof'; expected an option or one of: info (see s4g-pack --help)",
        ),
        (
            ["--fail", "disk"],
            "error: Missing option '--bbox' (see s4g-pack --help)",
        ),
        (["--bogus"], "error: No such option '--bogus'"),
        (["info"], "error: Missing argument 'PACK' (see s4g-pack info --help)"),
        (["main-job"], "error: no subcommand 'main-job'; expected an option or one of: info"),
    ],
)
def test_wrong_usage_is_one_line_and_exits_with_2(
    capsys: Capsys, arguments: list[str], message: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(message)


@pytest.mark.parametrize(
    ("fail", "expected_code", "message"),
    [
        ("input", 2, "error: a.tif: truncated; fetch it again\n"),
        ("disk", 1, "error: disk full\n"),
        ("os", 1, "error: a.csv: No such file or directory\n"),
        (
            "bug",
            1,
            "error: unexpected ZeroDivisionError: division by zero; "
            "run again with --debug and report it\n",
        ),
    ],
)
def test_errors_are_one_line_without_traceback(
    capsys: Capsys, fail: str, expected_code: int, message: str
) -> None:
    assert run(capsys, "--bbox", "1", "--fail", fail) == (expected_code, "", message)


@pytest.mark.parametrize("fail", ["input", "disk", "os", "bug"])
def test_debug_shows_the_traceback_before_the_line(capsys: Capsys, fail: str) -> None:
    code, _, err = run(capsys, "--bbox", "1", "--fail", fail, "--debug")
    assert code in (1, 2)
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1].startswith("error: ")


def test_an_interrupt_exits_as_shells_report_it(capsys: Capsys) -> None:
    code, _, err = run(capsys, "--bbox", "1", "--fail", "interrupt")
    assert code == 130
    assert err.strip() == "error: interrupted"


def test_a_main_job_that_takes_words_gets_them(capsys: Capsys) -> None:
    @click.group(cls=CommandGroup)
    def cli() -> None:
        """Export."""

    @cli.main_job
    @click.command(cls=MainCommand)
    @click.argument("checkpoint")
    def export(checkpoint: str) -> None:
        """Export a checkpoint."""
        click.echo(checkpoint)

    @cli.command()
    def doctor() -> None:
        """Look."""

    assert run(capsys, "run.safetensors", command=cli) == (0, "run.safetensors\n", "")


PROGRAM = """
import click
from s4g.core.console import run_command
@click.command()
def cli():
    click.echo("x" * 10)
run_command(cli, [])
"""


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def test_a_reader_that_goes_away_gets_no_complaint() -> None:
    program = PROGRAM.replace('"x" * 10', '"x" * 1_000_000')
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        complaint = process.stderr.read()
    assert (process.returncode, complaint) == (1, "")


def test_status_lines_go_to_stderr(capsys: Capsys) -> None:
    say("Packing 12 tiles")
    assert capsys.readouterr() == ("", "Packing 12 tiles\n")


def test_progress_draws_nothing_where_stderr_is_no_terminal(capsys: Capsys) -> None:
    with progress("embedding", 3, "tiles") as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


def test_progress_draws_a_bar_on_a_terminal(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress("embedding", 3, "tiles") as advance:
        advance(3)
    out, err = capsys.readouterr()
    assert out == ""
    assert "embedding" in err and "3/3" in err


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_numbers_are_read_back_as_they_were_written(values: list[float]) -> None:
    text = ",".join(map(repr, values))
    assert parse_numbers(text, len(values), "--bbox", "numbers") == tuple(values)


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4,5", "1,2,3,x", "1,2,3,nan", "1,2,inf,4"])
def test_wrong_numbers_are_refused_with_option_value_and_meaning(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_numbers(text, 4, "--bbox", "W,S,E,N in degrees")
    assert str(caught.value) == f"--bbox {text}: expected W,S,E,N in degrees"


def test_what_is_said_can_be_overheard_for_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    from s4g.core.console import overheard, say

    first: list[str] = []
    second: list[str] = []
    with overheard(first.append):
        say("one")
        with overheard(second.append):
            say("two")
    say("three")
    assert (first, second) == (["one", "two"], ["two"])
    assert capsys.readouterr().err == "one\ntwo\nthree\n"
