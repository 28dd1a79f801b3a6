"""`tradetape credentials make|renew|rotate`: an authority, certificates and passwords, in one folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tradetape.console import exit_codes

if TYPE_CHECKING:
    from tradetape.console.access.folder import Folder

_RAW = argparse.RawDescriptionHelpFormatter


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of credentials."""
    credentials = commands.add_parser(
        "credentials", help="certificates and passwords for TLS and roles, in one folder", formatter_class=_RAW,
        description="An authority of your own, certificates of the services, and passwords of the roles that "
        "`tradetape access show` lists. As root, each service's folder is handed to the user of its container.",
        epilog="examples:\n  sudo tradetape credentials make credentials --host kafka.internal\n"
        "  sudo tradetape credentials rotate credentials bot\n  sudo tradetape credentials renew credentials",
    )  # fmt: skip
    actions = credentials.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = actions.add_parser(
        "make", help="make what is missing; what is there stays", formatter_class=_RAW,
        epilog="example:\n  tradetape credentials make credentials",
    )  # fmt: skip
    renew = actions.add_parser(
        "renew", help="certificates anew, by the same authority; restart the services afterwards", formatter_class=_RAW,
        epilog="example:\n  tradetape credentials renew credentials",
    )  # fmt: skip
    rotate = actions.add_parser(
        "rotate", help="new passwords for one role; `tradetape access apply` tells the services", formatter_class=_RAW,
        epilog="example:\n  tradetape credentials rotate credentials bot",
    )  # fmt: skip
    for action, run in ((make, _make), (renew, _renew), (rotate, _rotate)):
        action.add_argument("folder", type=Path, metavar="FOLDER", help="the folder of all credentials")
        action.set_defaults(run=run)
    for action in (make, renew):
        action.add_argument(
            "--host", action="append", default=[], metavar="NAME",
            help="a name or address that clients reach the services by, besides kafka, redis, postgres, registry and localhost",
        )  # fmt: skip
    rotate.add_argument("role", metavar="ROLE", help="such as bot, or registry for its login in PostgreSQL")


def _folder(args: argparse.Namespace) -> Folder:
    from tradetape.console.access.folder import Folder
    from tradetape.producers.settings import load

    return Folder(args.folder, redis_prefix=load().redis_prefix)


def _make(args: argparse.Namespace) -> int:
    folder = _folder(args)
    return _done(folder, folder.make(args.host))


def _renew(args: argparse.Namespace) -> int:
    folder = _folder(args)
    return _done(folder, folder.renew(args.host))


def _rotate(args: argparse.Namespace) -> int:
    folder = _folder(args)
    return _done(folder, folder.rotate(args.role))


def _done(folder: Folder, made: Iterable[Path]) -> int:
    made = list(made)
    for path in made:
        print(folder.path / path)
    if not folder.own():
        print(
            "Only root can hand the files to the users of containers; as they are, only you read them.", file=sys.stderr
        )
    print(f"{len(made)} files written." if made else "All is there.", file=sys.stderr)
    return exit_codes.OK
