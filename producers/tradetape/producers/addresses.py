"""A service's address, completed with what has no place in an environment: the password, and whose certificates to trust.

A password in a file can be rotated without touching the address, and is in no `docker inspect` and no `ps`.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlencode, urlsplit


def completed(address: str, *, password: str | None, ca_file: str | None) -> str:
    """The address with its user's password, and under TLS with the certificates that the server's must be signed by.

    What is no URL is returned as it is given, but for PostgreSQL's `name=value` form. Raises ValueError for an address
    that has a password already.
    """
    if "://" not in address:
        return _completed_words(address, password, ca_file) if "=" in address else address
    try:
        parts = urlsplit(address)
        has_password = parts.password is not None
    except ValueError:
        # Whoever connects says what is wrong with it, without repeating it.
        return address
    if password is not None:
        if has_password:
            raise ValueError
        user, _, place = parts.netloc.rpartition("@")
        parts = parts._replace(netloc=f"{user}:{quote(password, safe='')}@{place}")
    if ca_file is not None:
        known = dict(parse_qsl(parts.query))
        missing = {name: value for name, value in _trust(parts.scheme, ca_file).items() if name not in known}
        parts = parts._replace(query="&".join(filter(None, (parts.query, urlencode(missing, safe="/")))))
    return parts.geturl()


def _trust(scheme: str, ca_file: str) -> dict[str, str]:
    """How an address of this scheme says whom to trust. An https:// address has no way to."""
    if scheme == "rediss":
        return {"ssl_ca_certs": ca_file}
    if scheme in ("postgresql", "postgres"):
        # libpq's default neither asks for TLS nor looks at the name in the certificate.
        return {"sslmode": "verify-full", "sslrootcert": ca_file}
    return {}


def _completed_words(address: str, password: str | None, ca_file: str | None) -> str:
    words = {} if password is None else {"password": password}
    if password is not None and "password=" in address:
        raise ValueError
    trust = _trust("postgresql", ca_file) if ca_file is not None else {}
    words |= {name: value for name, value in trust.items() if f"{name}=" not in address}
    return " ".join([address, *(f"{name}={_quoted(value)}" for name, value in words.items())])


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def place_of(address: str) -> str:
    """Host and port of an address, for messages: without user, password and options."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    return f"{host}:{port}" if port else host


def user_of(address: str) -> str:
    """The user that an address names, for messages; empty where it names none, or cannot be read."""
    try:
        return urlsplit(address).username or ""
    except ValueError:
        return ""
