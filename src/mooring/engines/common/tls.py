"""The TLS context for engines that take one from mooring. Its files are read once, when serving starts."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mooring.errors import ConfigurationError

if TYPE_CHECKING:
    from mooring.settings.table import Settings


def context(settings: Settings, alpn: Sequence[str]) -> ssl.SSLContext:
    """A server context for TLS 1.2 and later; with tls_client_ca, clients must present a certificate.

    Raises ConfigurationError, which names the files, if they can't be read or don't fit together.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(list(alpn))
    certificate, key = settings.tls_certificate or "", settings.tls_key
    try:
        # "" and not None: with None OpenSSL would ask for a password on the terminal, and wait
        made.load_cert_chain(certificate, key, settings.tls_key_password or "")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"TLS: certificate {certificate} and key {key} can't be used: {error}"
        ) from None
    if settings.tls_client_ca is not None:
        try:
            made.load_verify_locations(settings.tls_client_ca)
        except OSError as error:
            raise ConfigurationError(
                f"TLS: client authorities {settings.tls_client_ca} can't be used: {error}"
            ) from None
        made.verify_mode = ssl.CERT_REQUIRED
    return made
