"""Chip cryptography: published vectors, and agreement with an independent implementation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.hsm import cryptograms
from actors.hsm.suites import TRIPLE_DES, factor_block
from tests.conformance import card_side

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


@given(KEYS, BLOCKS, st.binary(max_size=70))
def test_mac_agrees(key: bytes, iv: bytes, data: bytes) -> None:
    """The MAC is that of the standard's drawing, for any data, also none and whole blocks."""
    assert TRIPLE_DES.mac(key, iv, data) == card_side.retail_mac(key, iv, data)


@given(KEYS, KEYS, BLOCKS, st.integers(0, 255), st.integers(0, 255))
def test_write_key_opens_on_the_card_side(
    loading: bytes, new: bytes, challenge: bytes, version: int, key_id: int
) -> None:
    """What the centre sends, a chip takes: version, key id and key come out as they went in."""
    apdu = cryptograms.write_key(TRIPLE_DES, loading, new, version, key_id, challenge)
    assert card_side.open_write_key(loading, challenge, apdu) == (version, key_id, new)


@given(KEYS, BLOCKS)
def test_one_level_of_diversification_agrees(key: bytes, factor: bytes) -> None:
    """E(K, F) ‖ E(K, ~F) in one call is what the two calls give."""
    assert TRIPLE_DES.encipher(key, factor_block(factor)) == card_side.diversify(key, factor)
