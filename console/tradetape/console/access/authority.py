"""A certificate authority of one's own, for services that no public one would certify: signs, and does nothing else.

Keys are EC P-256. All of it is PEM, which Kafka, Redis, PostgreSQL, Quarkus and Python read as it is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3_650
LEAF_DAYS = 397
"""Longer is refused by some clients."""
CLOCKS_APART = timedelta(minutes=5)
"""Certificates are valid a little before they were made, for machines whose clocks are behind."""
NAME = "tradetape local authority"


class Certified(NamedTuple):
    """A private key and its certificate, both PEM."""

    key: bytes
    certificate: bytes


def new_authority(*, days: int = AUTHORITY_DAYS, now: datetime | None = None) -> Certified:
    """An authority that is trusted by whoever is given its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(NAME)
    builder = (
        _builder(name, key, days, now)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _certified(key, builder.sign(key, hashes.SHA256()))


def sign(
    authority: Certified, name: str, hosts: Sequence[str] = (), *, days: int = LEAF_DAYS, now: datetime | None = None
) -> Certified:
    """A key and a certificate for a server that answers on these names and addresses; without any, for a client."""
    signer = serialization.load_pem_private_key(authority.key, password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
    builder = (
        _builder(_name(name), key, days, now)
        .issuer_name(issuer.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(one) for one in hosts]), critical=False)
    return _certified(key, builder.sign(signer, hashes.SHA256()))


def valid_until(certificate: bytes) -> datetime:
    """When a certificate expires."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def _builder(
    name: x509.Name, key: ec.EllipticCurvePrivateKey, days: int, now: datetime | None
) -> x509.CertificateBuilder:
    now = now or datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_APART)
        .not_valid_after(now + timedelta(days=days))
    )


def _certified(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Certified:
    # PKCS #8 and unencrypted: what guards it is the file's mode, and who owns the file.
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certified(plain, certificate.public_bytes(serialization.Encoding.PEM))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs, crl_sign=signs, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
