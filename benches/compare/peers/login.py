"""A message as a row of user_logins: what all Python peers have in common."""

import json
import os
from datetime import UTC, date, datetime
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK_BYTES = 16

_cipher = Cipher(
    algorithms.AES(bytes.fromhex(os.environ["PGSLUICE_KEY"])),
    modes.CBC(bytes.fromhex(os.environ["PGSLUICE_FIXED_IV"])),
)


class NotALoginError(ValueError):
    """The body lacks a required field, or is no JSON object."""


class Login(NamedTuple):
    """A row, in the order of the table's columns."""

    user_id: str
    device_type: str
    masked_ip: str
    masked_device_id: str
    locale: str | None
    app_version: int
    create_date: date


COLUMNS = ", ".join(Login._fields)


def login(body: str, sent_at_ms: int) -> Login:
    """The row of a message, its personal data masked."""
    try:
        fields = json.loads(body)
        return Login(
            fields["user_id"],
            fields["device_type"],
            mask(fields["ip"]),
            mask(fields["device_id"]),
            fields.get("locale"),
            int(fields["app_version"].replace(".", "")),
            datetime.fromtimestamp(sent_at_ms / 1000, UTC).date(),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NotALoginError(type(error).__name__) from error


def mask(value: str) -> str:
    """AES-CBC with PKCS#7 under the one key and IV, as hexadecimal digits."""
    encoded = value.encode()
    padding = BLOCK_BYTES - len(encoded) % BLOCK_BYTES
    encryptor = _cipher.encryptor()
    masked = encryptor.update(encoded + bytes([padding]) * padding) + encryptor.finalize()
    return masked.hex()
