"""The help of every command: an example that really is one, options that say what they do."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest

from tradetape.console import cli

PROMISED = {
    "up", "down", "status", "logs", "demo", "doctor", "topics", "schemas", "tail", "outbox", "state", "history",
    "replay", "work",
}  # fmt: skip
"""The commands of the design that are due by now."""


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    below = subcommands(parser)
    if not below:
        yield parser
    for one in below.values():
        yield from leaves(one)


PARSER = cli._parser()
COMMANDS = {one.prog: one for one in leaves(PARSER)}


def test_every_promised_command_is_there() -> None:
    assert set(subcommands(PARSER)) >= PROMISED


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_of_itself_that_parses(command: str) -> None:
    text = COMMANDS[command].format_help()
    _, _, examples = text.partition("\nexample")
    shown = re.findall(r"\btradetape ([^|()\n>]+)", examples)
    assert any(f"tradetape {one}".startswith(command) for one in shown), text
    for one in shown:
        PARSER.parse_args(shlex.split(one.strip().rstrip('"'), comments=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_does(command: str) -> None:
    silent = [
        one.option_strings[0]
        for one in COMMANDS[command]._actions
        if one.option_strings and not (one.help or "").strip()
    ]
    assert silent == []


def test_every_command_has_a_line_in_the_list() -> None:
    action = next(one for one in PARSER._actions if isinstance(one, argparse._SubParsersAction))
    listed = {one.dest for one in action._choices_actions if one.help}
    assert listed == set(action.choices)


def test_examples_of_the_first_steps_parse() -> None:
    shown = re.findall(r"^  tradetape (.*?)(?:   .*)?$", PARSER.epilog or "", re.MULTILINE)
    assert shown
    for one in shown:
        PARSER.parse_args(shlex.split(one))
