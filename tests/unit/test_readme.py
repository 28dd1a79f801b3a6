"""The README says what is: its settings, commands and exit codes are the program's own."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tradetape.console import cli, exit_codes
from tradetape.producers.settings import variables

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def settings_table() -> str:
    """The table that the README has to show."""
    rows = [f"| `{one.name}` | {f'`{one.default}`' if one.default else ''} | {one.meaning} |" for one in variables()]
    return "\n".join(["| variable | default | |", "|---|---|---|", *rows])


def test_the_settings_are_those_that_are_read() -> None:
    shown = README.partition("producers/settings.py -->\n")[2].partition("\n<!-- end of settings")[0]
    assert shown == settings_table()


def test_every_command_is_listed() -> None:
    (commands,) = (action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction))
    listed = README.partition("| command | does |")[2].partition("\n\n")[0]
    assert {name for name in commands.choices if f"`{name}" not in listed} == set()


def test_every_exit_code_is_explained() -> None:
    listed = README.partition("| exit code | means |")[2].partition("\n\n")[0]
    codes = {str(value) for name, value in vars(exit_codes).items() if name.isupper()}
    assert codes == set(re.findall(r"\b\d+\b", "".join(line.split("|")[1] for line in listed.splitlines() if line)))


def test_every_file_that_is_linked_is_there() -> None:
    root = Path(__file__).resolve().parents[2]
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (root / link).exists()] == []


def test_every_file_in_the_drawing_is_there() -> None:
    root = Path(__file__).resolve().parents[2]
    drawing = README.partition("## The way of an event")[2].partition("Five rooms")[0]
    names = re.findall(r"[a-z_]+\.(?:py|lua)", drawing)
    assert names
    assert [name for name in names if not any(root.glob(f"*/tradetape/**/{name}"))] == []
