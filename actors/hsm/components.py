"""Key components of custodians (docs/files.md): sealed one by one, opened and joined once.

    sealed = RSA-OAEP (SHA-1, MGF1-SHA-1) under `transport` of
             01 ‖ number (1 byte) ‖ length of the label (1) ‖ label ‖ component

The label and the number stand inside, so a sealed component is good for one place of one key.
Joining is *software-assisted*: components and key are in the provider's memory for a moment. What
Python lets us overwrite is overwritten; copies that its libraries made are gone when their memory
is used again, and not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from actors.hsm.suites import Suite
from domain.codes import Code
from domain.provider import KeyRefused

_FORMAT = 1
_HEAD = 3
_LONGEST_LABEL = 255
MOST_PARTS = 9

# NIST SP 800-67 rev. 2, 3.4.2: the weak and semi-weak keys of DES.
_WEAK_DES = (
    "0101010101010101 FEFEFEFEFEFEFEFE E0E0E0E0F1F1F1F1 1F1F1F1F0E0E0E0E "
    "011F011F010E010E 1F011F010E010E01 01E001E001F101F1 E001E001F101F101 "
    "01FE01FE01FE01FE FE01FE01FE01FE01 1FE01FE00EF10EF1 E01FE01FF10EF10E "
    "1FFE1FFE0EFE0EFE FE1FFE1FFE0EFE0E E0FEE0FEF1FEF1FE FEE0FEE0FEF1FEF1"
)


def _without_parity(half: bytes) -> bytes:
    return bytes(byte & 0xFE for byte in half)


_WEAK = frozenset(_without_parity(bytes.fromhex(key)) for key in _WEAK_DES.split())


def seal_part(transport_public_key: bytes, label: str, number: int, component: bytes) -> bytes:
    """What a custodian's command sends: `component` as part `number` (1, 2 …) of the key `label`,
    sealed for the centre whose transport key (PEM) this is. ValueError for what does not fit."""
    name = label.encode()
    if not 1 <= number <= MOST_PARTS or not 0 < len(name) <= _LONGEST_LABEL:
        raise ValueError(f"a key has a label and at most {MOST_PARTS} components")
    key = load_pem_public_key(transport_public_key)
    if not isinstance(key, RSAPublicKey):
        raise ValueError("the transport key is an RSA key")
    plain = bytes((_FORMAT, number, len(name))) + name + component
    return key.encrypt(plain, OAEP(MGF1(SHA1()), SHA1(), None))


@dataclass(frozen=True)
class Part:
    """An opened component. `number` counts from 1."""

    label: str
    number: int
    component: bytearray = field(repr=False)


def parse_part(plain: bytes, place: str) -> Part:
    """The component in an opened seal. Raises KeyRefused with `place`, never with its content."""
    if len(plain) < _HEAD or plain[0] != _FORMAT or len(plain) < _HEAD + plain[2]:
        raise _bad(place, "not a component in format 1")
    at = _HEAD + plain[2]
    try:
        label = plain[_HEAD:at].decode()
    except UnicodeDecodeError:
        raise _bad(place, "not a component in format 1") from None
    return Part(label, plain[1], bytearray(plain[at:]))


@contextmanager
def wiped(*parts: Part) -> Iterator[None]:
    """Components whose bytes are overwritten at the end of the block."""
    try:
        yield
    finally:
        for part in parts:
            part.component[:] = bytes(len(part.component))


@contextmanager
def joined(label: str, suite: Suite, lengths: Sequence[int], parts: list[Part]) -> Iterator[bytes]:
    """The key `label` out of all its components, for the length of the block; then all of it is
    overwritten. `lengths`: bytes that such a key may have. Raises KeyRefused for components that
    do not belong together and for a weak key."""
    key = bytearray(len(parts[0].component)) if parts else bytearray()
    with wiped(Part(label, 0, key), *parts):
        _check(label, lengths, parts)
        for part in parts:
            for at, byte in enumerate(part.component):
                key[at] ^= byte
        if is_weak(suite, key):
            raise KeyRefused(Code.KEY_WEAK, label)
        yield bytes(key)


def _check(label: str, lengths: Sequence[int], parts: list[Part]) -> None:
    if len(parts) < 2:
        raise _bad("parts", "a key has two components at least")
    if sorted(part.number for part in parts) != list(range(1, len(parts) + 1)):
        raise _bad("parts", f"components 1 to {len(parts)}, each once")
    for at, part in enumerate(parts):
        if part.label != label:
            raise _bad(f"parts[{at}]", "sealed for another key")
        if len(part.component) not in lengths:
            wanted = " or ".join(map(str, lengths))
            raise _bad(f"parts[{at}]", f"a component of this key has {wanted} bytes")
        if len(part.component) != len(parts[0].component):
            raise _bad(f"parts[{at}]", "not as long as the first one")
    values = {bytes(part.component) for part in parts}
    # Two equal ones cancel each other, and one of zeros adds nothing: the rest is not shared then.
    if len(values) < len(parts) or any(not any(value) for value in values):
        raise KeyRefused(Code.KEY_WEAK, f"{label}: two equal components, or one of zeros")


def is_weak(suite: Suite, key: bytes | bytearray) -> bool:
    """All bytes alike; of 3DES also K1 = K2 and any weak or semi-weak half, whatever the parity."""
    if len(set(key)) == 1:
        return True
    if suite.name != "3des":
        return False
    halves = [_without_parity(bytes(key[at : at + 8])) for at in range(0, len(key), 8)]
    return len(set(halves)) < len(halves) or any(half in _WEAK for half in halves)


def _bad(place: str, reason: str) -> KeyRefused:
    return KeyRefused(Code.KEY_PART_BAD, f"{place}: {reason}")
