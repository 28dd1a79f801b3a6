"""Why a server's certificate is not trusted, in words that say what to do; OpenSSL's own are for whoever wrote OpenSSL."""

from __future__ import annotations

import ssl

_REASONS = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is signed by itself, and by nobody whom we trust",
    19: "its certificate is signed by nobody whom we trust",
    20: "its certificate is signed by nobody whom we trust",
    21: "its certificate is signed by nobody whom we trust",
    62: "its certificate is made out to another host",
    64: "its certificate is made out to another host",
}
"""By OpenSSL's numbers, X509_V_ERR_…"""
EXPIRED, UNTRUSTED, OTHER_HOST = _REASONS[10], _REASONS[20], _REASONS[62]


def distrust(error: BaseException) -> str | None:
    """Why the other side's certificate is not trusted; None where an error, and what led to it, is about something else."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    return _REASONS.get(cause.verify_code, f"its certificate is not trusted: {cause.verify_message}")
