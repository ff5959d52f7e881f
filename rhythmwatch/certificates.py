"""A private certificate authority for one site: certificates of the broker and the pages, and of devices if wanted."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ingest.broker import Certificates

AUTHORITY_DAYS: Final = 3650
DAYS: Final = 397
"""The longest that browsers accept of a server's certificate."""
SERVERS: Final = ("broker", "web")
_BACKDATE: Final = dt.timedelta(hours=1)
"""Clocks of devices are late now and then."""


class CertificateError(Exception):
    """Certificates can't be made or used; the text says what to do."""


def make_certificates(folder: Path, names: Sequence[str], *, days: int = DAYS, now: dt.datetime) -> list[Path]:
    """Make the authority where there is none, and certificates of broker and pages.

    Parameters
    ----------
    folder : Path
        Where the files go: ``ca.pem``, ``ca.key``, ``broker.pem``, ``broker.key``, ``web.pem``, ``web.key``.
    names : sequence of str
        Host names and addresses by which devices and browsers reach this machine.
    days : int
        How long the certificates hold; run it again before they end (the authority stays, so devices notice nothing).
    now : datetime
        With a time zone.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    CertificateError
        If a name is missing or the folder holds half an authority.
    """
    if not names:
        raise CertificateError(
            "name this machine as devices and browsers reach it: certs init --host-name rhythm.example"
        )
    folder.mkdir(parents=True, exist_ok=True)
    ca_file, ca_key_file = folder / "ca.pem", folder / "ca.key"
    written: list[Path] = []
    if ca_file.exists() != ca_key_file.exists():
        raise CertificateError(f"{folder} holds only one of ca.pem and ca.key; restore the other or use a new folder")
    if not ca_file.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name("RhythmWatch private authority")
        authority = (
            _begin(subject, subject, key, now, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        written += _write(folder / "ca", authority, key)
    for server in SERVERS:
        key = ec.generate_private_key(ec.SECP256R1())
        extra = x509.SubjectAlternativeName([_alternative(name) for name in dict.fromkeys((*names, "localhost"))])
        written += _sign(folder, server, names[0], key, now, days, ExtendedKeyUsageOID.SERVER_AUTH, extra)
    return written


def make_client_certificate(folder: Path, device: str, *, days: int = DAYS, now: dt.datetime) -> list[Path]:
    """Make the certificate of one device, where the broker asks for them; arguments as of `make_certificates`."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _sign(folder, f"client-{device}", device, key, now, days, ExtendedKeyUsageOID.CLIENT_AUTH, None)


def broker_certificates(folder: Path, *, clients: bool = False) -> Certificates:
    """Files that the embedded broker needs.

    Raises
    ------
    CertificateError
        If one is missing.
    """
    files = [(folder / name).resolve() for name in ("broker.pem", "broker.key", "ca.pem")]
    for file in files:
        if not file.exists():
            raise CertificateError(
                f"{file} is missing; make it: rhythmwatch certs init --out {folder} --host-name HOST"
            )
    certificate, key, authority = map(str, files)
    return Certificates(certificate, key, authority, clients)


def client_context(
    authority: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """How a client checks the broker and shows its own certificate.

    Parameters
    ----------
    authority : Path, optional
        Certificate of the private authority; else those of the system.
    certificate, key : Path, optional
        Own certificate.
    """
    try:
        context = ssl.create_default_context(cafile=str(authority) if authority else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise CertificateError(f"certificate files can't be read: {error}") from error
    return context


def _sign(
    folder: Path,
    stem: str,
    name: str,
    key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
    days: int,
    purpose: x509.ObjectIdentifier,
    extra: x509.SubjectAlternativeName | None,
) -> list[Path]:
    try:
        authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        signer = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except (OSError, ValueError) as error:
        raise CertificateError(f"there is no authority in {folder}; make it with: rhythmwatch certs init") from error
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{folder / 'ca.key'} is no key that was made here; use a new folder")
    builder = (
        _begin(_name(name), authority.subject, key, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if extra is not None:
        builder = builder.add_extension(extra, critical=False)
    return _write(folder / stem, builder.sign(signer, hashes.SHA256()), key)


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: dt.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(stem: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> list[Path]:
    """Write both files; the key is ours alone to read."""
    public, private = stem.with_name(stem.name + ".pem"), stem.with_name(stem.name + ".key")
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.unlink(missing_ok=True)
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return [public, private]
