"""TLS: check the certificate, key and authorities before a listener uses them.

`look` is for the supervisor, which does not load OpenSSL (15 ms); `check` is for a worker. Not for making an
engine's TLS context: each engine gets the same files.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mooring.errors import ConfigurationError
from mooring.settings.table import Settings

if TYPE_CHECKING:
    import ssl

_FILES = ("tls_certificate", "tls_key", "tls_client_ca")

# OpenSSL's errors for a key that does not belong to the certificate; the last is for a key of another type
_NO_PAIR = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


def check(settings: Settings) -> tuple[str, ...]:
    """Check that TLS would work. Returns warnings: the certificate is expired, or not valid yet.

    Raises ConfigurationError that names the file and the problem: it is missing, unreadable, no certificate,
    no key, encrypted with another password, the key of another certificate, or without authorities.
    """
    certificate, key, authorities = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if certificate is None and key is None:
        if authorities is not None:
            raise ConfigurationError("tls_client_ca needs tls_certificate and tls_key")
        return ()
    if certificate is None or key is None:
        missing = "tls_key" if key is None else "tls_certificate"
        raise ConfigurationError(f"TLS needs both tls_certificate and tls_key: {missing} is not set")
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_certificates(context, "tls_certificate", certificate)
    _load_pair(context, certificate, key, settings.tls_key_password)
    if authorities is not None:
        _load_certificates(context, "tls_client_ca", authorities)
    return _validity(certificate)


def look(settings: Settings) -> None:
    """Check, without OpenSSL, that the files can be read and are PEM: for the supervisor, before any worker.

    Raises ConfigurationError that names every bad file.
    """
    wrong = []
    for name in _FILES:
        path = getattr(settings, name)
        try:
            if path is not None:
                _read_pem(name, path)
        except ConfigurationError as error:
            wrong.append(str(error))
    if wrong:
        raise ConfigurationError("; ".join(wrong))


def _refused(name: str, path: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"{name}: {path}: {reason}")


def _read(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _refused(name, path, f"cannot be read: {error.strerror}") from None


def _read_pem(name: str, path: str) -> None:
    if b"-----BEGIN " not in _read(name, path):
        raise _refused(name, path, "is not a PEM file")


def _load_certificates(context: ssl.SSLContext, name: str, path: str) -> None:
    _read_pem(name, path)
    try:
        context.load_verify_locations(cafile=path)
    except OSError:  # SSLError is one
        raise _refused(name, path, "holds no certificate that can be read") from None


def _load_pair(context: ssl.SSLContext, certificate: str, key: str, password: str | None) -> None:
    _read("tls_key", key)
    asked = False

    def give() -> str:
        nonlocal asked
        asked = True
        return password or ""

    try:
        context.load_cert_chain(certificate, key, give)  # with a function, OpenSSL never asks on a terminal
    except (OSError, ValueError) as error:  # ValueError: a password of more than 1024 bytes
        reason = getattr(error, "reason", None) or ""
        if reason in _NO_PAIR:
            text = f"does not belong to the certificate {certificate}"
        elif asked:
            wrong = "tls_key_password is wrong" if password else "set tls_key_password"
            text = f"is encrypted: {wrong}"
        elif reason.startswith(("EE_", "CA_")):  # what OpenSSL's security level refuses
            raise _refused("tls_certificate", certificate, reason.lower().replace("_", " ")) from None
        else:
            text = "holds no private key that can be read"
        raise _refused("tls_key", key, text) from None


def _validity(path: str) -> tuple[str, ...]:
    """A warning if the first certificate of a file is not valid now; else empty."""
    import ssl

    begin = b"-----BEGIN CERTIFICATE-----"
    end = b"-----END CERTIFICATE-----"
    _, _, rest = _read("tls_certificate", path).partition(begin)
    body, _, _ = rest.partition(end)
    if not body:
        return ()  # a TRUSTED CERTIFICATE, which is rare: it is not checked
    first, last = _dates(ssl.PEM_cert_to_DER_cert((begin + body + end).decode("ascii", "replace")))
    now = time.strftime("%Y%m%d%H%M%S", time.gmtime())
    if last < now:
        return (f"tls_certificate: {path}: expired on {_day(last)}",)
    if first > now:
        return (f"tls_certificate: {path}: is valid only from {_day(first)}",)
    return ()


def _day(stamp: str) -> str:
    return f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}"


def _dates(der: bytes) -> tuple[str, str]:
    """Begin and end of a certificate's validity as YYYYMMDDHHMMSS (RFC 5280, 4.1).

    The ssl module gives them only for a peer's certificate.
    """
    certificate = _parts(der)[0][1]
    fields = _parts(_parts(certificate)[0][1])
    version = 1 if fields[0][0] == 0xA0 else 0
    first, last = _parts(fields[version + 3][1])[:2]  # after serialNumber, signature, issuer
    return _stamp(*first), _stamp(*last)


def _stamp(tag: int, value: bytes) -> str:
    text = value.decode("ascii").removesuffix("Z")
    if tag == 0x18:  # GeneralizedTime
        return text
    return ("19" if text >= "5" else "20") + text  # UTCTime: RFC 5280, 4.1.2.5.1


def _parts(data: bytes) -> list[tuple[int, bytes]]:
    """The tags and contents of consecutive DER values (X.690, 8.1)."""
    found = []
    at = 0
    while at + 2 <= len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        found.append((tag, data[at : at + length]))
        at += length
    return found
