"""Chip cryptography: published vectors, and agreement with an independent implementation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.hashes import SM3, Hash
from hypothesis import given
from hypothesis import strategies as st

from actors.hsm import cryptograms
from actors.hsm.suites import SM4, SUITES, TRIPLE_DES, factor_block
from counterparts import sm4
from tests.conformance.card_side import CARDS

SUITE = st.sampled_from(["3des", "sm4"])
# K1 and K2 must differ, also without parity bits: the independent library refuses others.
KEYS = st.binary(min_size=16, max_size=16).filter(
    lambda k: [b & 0xFE for b in k[:8]] != [b & 0xFE for b in k[8:]]
)
BLOCKS = st.binary(min_size=8, max_size=8)


def test_check_values_that_are_published() -> None:
    """GlobalPlatform's default key and the key pair of ISO/IEC 9797-1 have their known values."""
    vectors = {
        "404142434445464748494A4B4C4D4E4F": "8BAF47",
        "0123456789ABCDEFFEDCBA9876543210": "08D7B4",
    }
    for key, value in vectors.items():
        assert TRIPLE_DES.check_value(bytes.fromhex(key)).hex().upper() == value


def test_three_key_vector_of_the_standard_by_its_parts() -> None:
    """NIST SP 800-67 with K1 = K2 = K3 is single DES: the table of SP 800-17 holds."""
    got = TRIPLE_DES.encipher(b"\x01" * 16, bytes.fromhex("8000000000000000"))
    assert got.hex().upper() == "95F8A5E5DD31D900"


KEY = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")


@pytest.mark.parametrize("encipher", [SM4.encipher, sm4.encrypt], ids=["centre", "factory"])
def test_sm4_of_the_standard(encipher: Callable[[bytes, bytes], bytes]) -> None:
    """GB/T 32907-2016, A.1, example 1: the centre's SM4 and the factory's (the chips' is in
    tests/virtual)."""
    assert encipher(KEY, KEY).hex().upper() == "681EDF34D206965E86B3E94F536E4246"


def test_sm4_a_million_times() -> None:
    """GB/T 32907-2016, A.1, example 2: enciphered 1,000,000 times under the same key."""
    block, encipher = KEY, SM4.encipherer(KEY)
    for _ in range(1_000_000):
        block = encipher(block)
    assert block.hex().upper() == "595298C7C6FD271F0402F804C33D3F66"


def test_sm3_of_the_standard() -> None:
    """GB/T 32905-2016, A.1 and A.2: "abc", and "abcd" sixteen times."""
    vectors = {
        b"abc": "66C7F0F462EEEDD9D1F2D46BDC10E4E24167C4875CF2F7A2297DA02B8F4BA8E0",
        b"abcd" * 16: "DEBE9FF92275B8A138604889C18E5A4D6FDB70E5387E5765293DCBA39C0C5732",
    }
    for message, digest in vectors.items():
        sm3 = Hash(SM3())
        sm3.update(message)
        assert sm3.finalize().hex().upper() == digest


@given(SUITE, KEYS, BLOCKS, st.binary(max_size=70))
def test_mac_agrees(suite: str, key: bytes, iv: bytes, data: bytes) -> None:
    """The MAC is that of the standard's drawing, for any data, also none and whole blocks."""
    assert SUITES[suite].mac(key, iv, data) == CARDS[suite].mac(key, iv, data)


@given(SUITE, KEYS, KEYS, BLOCKS, st.integers(0, 255), st.integers(0, 255))
def test_write_key_opens_on_the_card_side(
    suite: str, loading: bytes, new: bytes, challenge: bytes, version: int, key_id: int
) -> None:
    """What the centre sends, a chip takes: version, key id and key come out as they went in."""
    writer = cryptograms.KeyWriter(SUITES[suite], version, key_id)
    apdu = writer.command(SUITES[suite].ready(loading), new, challenge)
    assert CARDS[suite].open_write_key(loading, challenge, apdu) == (version, key_id, new)


@given(SUITE, KEYS, BLOCKS)
def test_one_level_of_diversification_agrees(suite: str, key: bytes, factor: bytes) -> None:
    """3DES E(K, F) ‖ E(K, ~F), SM4 E(K, F ‖ ~F): in one call what the standard writes."""
    given_key = SUITES[suite].encipher(key, factor_block(factor))
    assert given_key == CARDS[suite].diversify(key, factor)
