"""The documentation names only what exists, and everything that exists."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SOURCE_FOLDERS = ("core", "train", "export", "tilepacks", "runtime")
RECIPES = ROOT / "train" / "recipes"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_commands", DOCS / "make_commands.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = load_generator()
COMMANDS: dict[str, click.Command] = dict(GENERATOR.commands())
MAIN_COMMANDS = sorted(name for name in COMMANDS if " " not in name)


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def shell_lines(path: Path) -> Iterator[str]:
    """Yield the command lines of a page's fenced blocks, continuation lines joined."""
    text = path.read_text(encoding="utf-8")
    for block in re.findall(r"^ *```(?:sh|bash|console)\n(.*?)^ *```", text, re.M | re.S):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            yield line.strip().removeprefix("$ ")


def options_of(command: click.Command) -> set[str]:
    names = {"--help"}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            names |= {*parameter.opts, *parameter.secondary_opts}
    return names


def complaints(line: str) -> list[str]:
    """Return what a command line names that does not exist."""
    words = shlex.split(line.split(" #")[0].split(" | ")[0].split(" > ")[0])
    words = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
    words = [Path(words[0]).name, *words[1:]] if words else []
    if words[:1] == ["python"]:
        return missing_in_script(ROOT / words[1], words[2:])
    if not words or not (words[0].startswith("s4g-") or words[0] == "make"):
        return []
    if words[0] == "make":
        return [f"make {word}" for word in words[1:] if word not in make_targets()]
    names = [" ".join(words[:count]) for count in (3, 2)]
    name = next((name for name in names if name in COMMANDS), words[0])
    if name not in COMMANDS:
        return [name]
    known = options_of(COMMANDS[name])
    wrong = [f"{name} {option}" for option in options_in(words) if option not in known]
    if "--recipe" in words[:-1]:
        recipe = words[words.index("--recipe") + 1]
        if not (recipe.endswith(".toml") or (RECIPES / f"{recipe}.toml").is_file()):
            wrong.append(f"--recipe {recipe}")
    return wrong


def options_in(words: list[str]) -> list[str]:
    return [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]


def missing_in_script(script: Path, words: list[str]) -> list[str]:
    if not script.is_file():
        return [f"python {page_id(script)}"]
    text = script.read_text(encoding="utf-8")
    return [f"python {page_id(script)} {o}" for o in options_in(words) if o not in text]


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return {name for line in re.findall(r"^\.PHONY:(.*)$", text, re.M) for name in line.split()}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_every_option_says_what_it_is_for(name: str) -> None:
    command = COMMANDS[name]
    assert command.help, f"{name}: no help"
    silent = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert silent == []


@pytest.mark.parametrize("name", MAIN_COMMANDS)
def test_the_help_of_every_main_command_shows_an_example(name: str) -> None:
    text = f"{COMMANDS[name].help} {COMMANDS[name].epilog}"
    assert re.search(r"Examples?:\s", text)
    assert f"{name} " in text


def test_the_page_of_commands_is_current() -> None:
    written = GENERATOR.PAGE.read_text(encoding="utf-8")
    assert written == GENERATOR.page(), "run `make docs`"


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_command_lines_in_the_documentation_name_real_commands_and_options(path: Path) -> None:
    assert [wrong for line in shell_lines(path) for wrong in complaints(line)] == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("make demo", []),
        ("make damo", ["make damo"]),
        ("make test PYTHON=python3.12", []),
        ("s4g-fly --camera x", ["s4g-fly"]),
        ("s4g-run --camera x --pakc y", ["s4g-run --pakc"]),
        ("s4g-pack info region.s4gpack", []),
        ("s4g-run --camera 'a b' --pack y > fixes.jsonl  # live", []),
        ("s4g-train --recipe edgy --out x", ["--recipe edgy"]),
        ("s4g-train --recipe sample4geo/cvusa --data D --out x", []),
        ("python benchmarks/brighten.py", ["python benchmarks/brighten.py"]),
        ("python benchmarks/naip.py --wheels 3", ["python benchmarks/naip.py --wheels"]),
        ("python benchmarks/naip.py --levels 640", []),
        ("git clone --depth 1 x", []),
    ],
)
def test_the_check_of_command_lines_itself_sees_mistakes(line: str, wrong: list[str]) -> None:
    assert complaints(line) == wrong


TOML_BLOCKS = [
    pytest.param(block, id=f"{page_id(path)}:{number}")
    for path in PAGES
    for number, block in enumerate(
        re.findall(r"^```toml\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)
    )
]


@pytest.mark.parametrize("block", TOML_BLOCKS)
def test_recipes_in_the_documentation_are_read_by_the_loader(block: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="recipes need torch (the train extra)")
    from s4g.train.recipe import load_recipe

    if "[[ground]]" not in block and "[data]" not in block:  # a table alone
        block += '[[ground]]\nkind = "landscape"\nworlds = 1\n'
    path = tmp_path / "documented.toml"
    path.write_text(block, encoding="utf-8")
    load_recipe(str(path))


def test_the_first_screen_of_the_readme_shows_the_two_commands_and_the_four() -> None:
    screen = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:70])
    for text in ("make demo", "make test", "s4g-train", "s4g-export", "s4g-pack", "s4g-run"):
        assert text in screen


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (path.parent / target).exists()] == []


def test_every_page_is_linked_from_the_index_and_the_index_from_the_readme() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = {path.name for path in DOCS.glob("*.md")} - {"index.md"}
    assert {name for name in pages if f"({name})" not in index} == set()
    assert "(docs/index.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_pages_that_the_code_refers_to_exist() -> None:
    sources = [path for folder in SOURCE_FOLDERS for path in (ROOT / folder).glob("*.py")]
    named = {
        name
        for path in sources
        for name in re.findall(r"\bdocs/[\w-]+\.md\b", path.read_text(encoding="utf-8"))
    }
    assert {name for name in named if not (ROOT / name).exists()} == set()
