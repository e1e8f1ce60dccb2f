"""TLS files are checked before anything listens: each mistake is one line that names the file."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from mooring.errors import ConfigurationError
from mooring.plan import tls
from mooring.settings.table import Settings

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Ünïcode")])


def certificate(key: Any, first: datetime.datetime = NOW - DAY, last: datetime.datetime = NOW + DAY) -> bytes:
    builder = x509.CertificateBuilder().subject_name(NAME).issuer_name(NAME).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(first).not_valid_after(last)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def private(key: Any, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a and b are two pairs, e is a's key encrypted, r is RSA, old and new are not valid today."""
    folder = tmp_path_factory.mktemp("tls")
    a, b = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    r = rsa.generate_private_key(65537, 2048)
    files = {
        "a.crt": certificate(a),
        "a.key": private(a),
        "b.crt": certificate(b),
        "b.key": private(b),
        "r.crt": certificate(r),
        "r.key": private(r),
        "e.key": private(a, b"sesame"),
        "old.crt": certificate(a, NOW - 3 * DAY, NOW - 2 * DAY),
        "new.crt": certificate(a, NOW + 2 * DAY, NOW + 3 * DAY),
        "far.crt": certificate(a, NOW - DAY, datetime.datetime(2060, 1, 1)),
        "chain.crt": b"subject=CN = \xc3\x9c\n" + certificate(a) + certificate(b),
        "both.pem": private(a) + certificate(a),
        "text": b"hello\n",
        "broken.crt": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "broken.key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


Check = Callable[..., tuple[str, ...]]


@pytest.fixture
def check(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    monkeypatch.chdir(folder)

    def run(
        certificate: str | None, key: str | None, password: str | None = None, ca: str | None = None
    ) -> Any:
        given = Settings(
            tls_certificate=certificate, tls_key=key, tls_key_password=password, tls_client_ca=ca
        )
        return tls.check(given)

    return run


@pytest.mark.parametrize(
    "given",
    [
        (None, None),
        ("a.crt", "a.key"),
        ("r.crt", "r.key"),
        ("chain.crt", "a.key"),
        ("both.pem", "both.pem"),
        ("a.crt", "e.key", "sesame"),
        ("a.crt", "a.key", "not needed"),
        ("a.crt", "a.key", None, "b.crt"),
        ("a.crt", "a.key", None, "chain.crt"),
        ("far.crt", "a.key"),
    ],
)
def test_what_works_is_accepted_without_a_word(check: Check, given: tuple[Any, ...]) -> None:
    assert check(*given) == ()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("a.crt", None), "TLS needs both tls_certificate and tls_key: tls_key is not set"),
        ((None, "a.key"), "TLS needs both tls_certificate and tls_key: tls_certificate is not set"),
        ((None, None, None, "a.crt"), "tls_client_ca needs tls_certificate and tls_key"),
        (("no", "a.key"), "tls_certificate: no: cannot be read: No such file or directory"),
        (("a.crt", "no"), "tls_key: no: cannot be read: No such file or directory"),
        (("a.crt", "a.key", None, "no"), "tls_client_ca: no: cannot be read: No such file or directory"),
        (("/", "a.key"), "tls_certificate: /: cannot be read: Is a directory"),
        (("text", "a.key"), "tls_certificate: text: is not a PEM file"),
        (("a.key", "a.key"), "tls_certificate: a.key: holds no certificate that can be read"),
        (("broken.crt", "a.key"), "tls_certificate: broken.crt: holds no certificate that can be read"),
        (("a.crt", "text"), "tls_key: text: holds no private key that can be read"),
        (("a.crt", "b.crt"), "tls_key: b.crt: holds no private key that can be read"),
        (("a.crt", "broken.key"), "tls_key: broken.key: holds no private key that can be read"),
        (("a.crt", "b.key"), "tls_key: b.key: does not belong to the certificate a.crt"),
        (("a.crt", "r.key"), "tls_key: r.key: does not belong to the certificate a.crt"),
        (("a.crt", "e.key"), "tls_key: e.key: is encrypted: set tls_key_password"),
        (("a.crt", "e.key", "Sesame"), "tls_key: e.key: is encrypted: tls_key_password is wrong"),
        (("a.crt", "e.key", "x" * 2000), "tls_key: e.key: is encrypted: tls_key_password is wrong"),
        (("a.crt", "a.key", None, "a.key"), "tls_client_ca: a.key: holds no certificate that can be read"),
    ],
)
def test_each_mistake_is_one_line_that_names_the_file(
    check: Check, given: tuple[Any, ...], text: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check(*given)
    assert str(caught.value) == text
    assert caught.value.exit_code == 2


def test_a_certificate_out_of_its_time_is_a_warning(check: Check) -> None:
    old, new = NOW - 2 * DAY, NOW + 2 * DAY
    assert check("old.crt", "a.key") == (f"tls_certificate: old.crt: expired on {old:%Y-%m-%d}",)
    assert check("new.crt", "a.key") == (f"tls_certificate: new.crt: is valid only from {new:%Y-%m-%d}",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_key_without_the_right_to_read_it(check: Check, folder: Path) -> None:
    (folder / "secret.key").write_bytes((folder / "a.key").read_bytes())
    (folder / "secret.key").chmod(0)
    with pytest.raises(
        ConfigurationError, match=r"^tls_key: secret\.key: cannot be read: Permission denied$"
    ):
        check("a.crt", "secret.key")


def test_an_encrypted_key_never_asks_on_a_terminal(folder: Path) -> None:
    """OpenSSL would: with a terminal as its standard input and no password, it waits."""
    code = "from mooring.plan import tls; from mooring.settings.table import Settings\n"
    code += f"given = Settings(tls_certificate='{folder}/a.crt', tls_key='{folder}/e.key')\n"
    code += "try: tls.check(given)\nexcept Exception as e: print(e)"
    controller, terminal = os.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=terminal,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    os.close(controller)
    os.close(terminal)
    assert done.stdout == f"tls_key: {folder}/e.key: is encrypted: set tls_key_password\n"


def test_ssl_is_imported_only_where_tls_is_on() -> None:
    code = (
        "import sys; from mooring.plan import tls; from mooring.settings.table import Settings\n"
        "tls.check(Settings()); "
    )
    subprocess.run([sys.executable, "-c", code + "assert 'ssl' not in sys.modules"], timeout=30, check=True)
