"""What the parser of every command has in common: its text as it is written, and the function that carries it out."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, TypeAlias

Run = Callable[[argparse.Namespace], int]


class CommandParser(argparse.ArgumentParser):
    """The parser of `tradetape`, of a command or of a group of them; those below it are of this kind too."""

    def __init__(
        self, *, run: Run | None = None, formatter_class: Any = argparse.RawDescriptionHelpFormatter, **given: Any
    ) -> None:
        """`run` takes the parsed arguments and gives the exit code; a group has none. Lines are not wrapped anew."""
        super().__init__(formatter_class=formatter_class, **given)
        if run is not None:
            self.set_defaults(run=run)

    def actions(self) -> Commands:
        """Where the commands of this group are added."""
        return self.add_subparsers(title="actions", metavar="ACTION", required=True)

    def add_json(self, what: str = "one JSON document") -> None:
        """The option for programs."""
        self.add_argument("--json", action="store_true", help=what)


Commands: TypeAlias = "argparse._SubParsersAction[CommandParser]"
