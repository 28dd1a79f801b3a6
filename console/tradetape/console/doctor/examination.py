"""The whole examination: where the settings come from, each service side by side, the packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from tradetape.console.access.roles import Role
from tradetape.console.doctor import kafka, packages, postgres, redis, registry, rights
from tradetape.console.doctor.finding import Finding, State
from tradetape.console.extras import extra_of
from tradetape.producers.settings import EXAMPLES, UNPREFIXED, Settings

Check = Callable[[Settings], Iterator[Finding]]

_SERVICES: dict[str, tuple[str, Check]] = {
    "kafka": ("KAFKA_BOOTSTRAP_SERVERS", kafka.check),
    "redis": (redis.VARIABLE, redis.check),
    "postgres": (postgres.VARIABLE, postgres.check),
    "registry": (registry.VARIABLE, registry.check),
}


def examine(settings: Settings, *, named: bool) -> list[Finding]:
    """Every finding. `named` says that the environment itself names a service. Raises SettingsError."""
    with ThreadPoolExecutor(len(_SERVICES)) as pool:
        found = pool.map(lambda name: _service(name, settings, named), _SERVICES)
        return [_source(settings, named), *chain.from_iterable(found), *packages.check()]


def examine_role(settings: Settings, of: Role, *, named: bool) -> list[Finding]:
    """The findings about one role: the services that it uses let it in, and let it do what it has to and no more."""
    found = [_source(settings, named)]
    checks: list[Check] = [kafka.check_reach, lambda one: rights.kafka(one, of)]
    checks += [lambda one: rights.redis_rights(one, of)] if of.uses_redis else []
    checks += [lambda one: rights.postgres(one, of)] if of.database else []
    for check in checks:
        found += check(settings)
        if any(one.unreachable for one in found):
            break
    return found


def names_services(environ: Mapping[str, str]) -> bool:
    """Whether the environment names a service, so that no local stack is looked for."""
    return any(environ.get(name) for name in UNPREFIXED)


def _source(settings: Settings, named: bool) -> Finding:
    if named:
        return Finding("settings", State.OK, "the services are those that the environment names")
    if any(getattr(settings, name.lower()) for name in UNPREFIXED):
        return Finding("settings", State.OK, "the services are those of the local stack")
    detail = "the environment names no service, and no local stack runs"
    return Finding("settings", State.WARN, detail, "tradetape up")


def _service(name: str, settings: Settings, named: bool) -> list[Finding]:
    variable, check = _SERVICES[name]
    if not getattr(settings, variable.lower()):
        return [_unnamed(name, variable, named)]
    try:
        return list(check(settings))
    except ModuleNotFoundError as error:
        if (extra := extra_of(error)) is None:
            raise
        mend = f"pip install 'tradetape[{extra}]'"
        return [Finding(name, State.FAIL, f"the package {error.name} is not installed", mend)]


def _unnamed(name: str, variable: str, named: bool) -> Finding:
    if variable == registry.VARIABLE:
        return Finding(name, State.OK, "none is used: ids come from the schemas")
    if named:
        detail = f"{variable} is not set: what needs it does not work here"
        return Finding(name, State.WARN, detail, f"export {variable}={EXAMPLES[variable]}")
    return Finding(name, State.FAIL, "does not run", "tradetape up", unreachable=True)
