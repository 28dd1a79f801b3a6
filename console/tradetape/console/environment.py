"""The settings of a command: the environment's, or where that names no service, those of the running local stack."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tradetape.producers.settings import UNPREFIXED, Settings, load


def effective(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment, completed by the local stack's where it names no service at all."""
    environ = dict(os.environ if environ is None else environ)
    if not any(environ.get(name) for name in UNPREFIXED):
        environ = {**_running(), **environ}
    return environ


def _running() -> Mapping[str, str]:
    try:
        from tradetape.console.local.stack import running_environment
    except ModuleNotFoundError:
        # Without the extra `local` there is no local stack to find.
        return {}
    return running_environment()


def settings() -> Settings:
    """The settings of this command. Raises SettingsError; a missing service is an error where it is asked for."""
    return load(effective())
