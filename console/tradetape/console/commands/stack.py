"""`tradetape up`, `down`, `status`, `logs`: the local stack."""

from __future__ import annotations

import argparse
import json
import shlex
import sys

from tradetape.console import exit_codes
from tradetape.console.parsers import Commands

_SERVICES = "Kafka, PostgreSQL and Redis (the first start fetches Kafka, about 45 MB)"
_REGISTRY_TOO = "Kafka, PostgreSQL, Redis and Apicurio Registry (the first start fetches about 205 MB)"


def register(commands: Commands) -> None:
    """Add the commands of the local stack."""
    up = commands.add_parser(
        "up", run=_up, help="start a Kafka, a PostgreSQL and a Redis of your own",
        description="Start the local stack and print the environment that leads to it. Harmless when it runs.",
        epilog='examples:\n  eval "$(tradetape up)"\n  tradetape up --registry',
    )  # fmt: skip
    up.add_argument("--registry", action="store_true", help="a schema registry too; `tradetape schemas push` fills it")
    down = commands.add_parser("down", run=_down, help="stop them", epilog="example:\n  tradetape down --wipe")
    down.add_argument("--wipe", action="store_true", help="remove their data too")
    status = commands.add_parser(
        "status", run=_status, help="what runs, and where", epilog="example:\n  tradetape status --json"
    )
    status.add_json()
    logs = commands.add_parser(
        "logs", run=_logs, help="the log of a service", epilog="example:\n  tradetape logs kafka -n 50"
    )
    logs.add_argument("service", choices=("kafka", "postgres", "redis", "registry"))
    logs.add_argument(
        "-n", type=int, default=30, metavar="LINES", help="how many of its last lines (default: %(default)s)"
    )


def _up(args: argparse.Namespace) -> int:
    from tradetape.console.local.stack import LocalStack

    stack = LocalStack()
    print(f"Starting {_REGISTRY_TOO if args.registry else _SERVICES} …", file=sys.stderr)
    _print_exports(stack.up(registry=args.registry))
    return exit_codes.OK


def _down(args: argparse.Namespace) -> int:
    from tradetape.console.local.stack import LocalStack

    stopped = LocalStack().down(wipe=args.wipe)
    what = f"Stopped {', '.join(stopped)}" if stopped else "Nothing ran"
    print(f"{what}{'; data removed' if args.wipe else ''}.", file=sys.stderr)
    return exit_codes.OK


def _status(args: argparse.Namespace) -> int:
    from tradetape.console.local.stack import LocalStack

    stack = LocalStack()
    found, environment = stack.status(), stack.environment()
    if args.json:
        services = {one.name: {"port": one.port, "pid": one.pid, "running": one.pid is not None} for one in found}
        print(json.dumps({"home": str(stack.places.home), "services": services, "environment": environment}, indent=2))
    else:
        for one in found:
            print(f"{one.name:<10} {f'port {one.port}  pid {one.pid}' if one.pid else 'not running'}")
        _print_exports(environment)
    return exit_codes.OK if environment else exit_codes.FAILED


def _print_exports(environment: dict[str, str]) -> None:
    for name, value in environment.items():
        print(f"export {name}={shlex.quote(value)}")


def _logs(args: argparse.Namespace) -> int:
    from tradetape.console.errors import StackError
    from tradetape.console.local.places import Places, default_cache, default_home

    log = Places(home=default_home(), cache=default_cache()).log(args.service)
    if not log.exists():
        option = " --registry" if args.service == "registry" else ""
        raise StackError(f"{args.service} has no log yet; start it with `tradetape up{option}`")
    print("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-args.n :]))
    return exit_codes.OK
