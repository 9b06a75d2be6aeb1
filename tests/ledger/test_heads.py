"""Signed heads and the file that keeps them outside the database."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from domain.lines import NoteCarton
from ledger.heads import (
    HeadFileDamaged,
    append_head_file,
    head_digest,
    is_signed,
    latest_links,
    load_public_key,
    read_head_file,
    signed_head,
    unsigned_heads,
)
from ledger.verify import verify
from tests.ledger.building import (
    TEMPORARY,
    Building,
    factory_return,
    note,
    one_of_each,
    record,
)

LINK = {"line": "sorting", "number": 7, "hash": "ab" * 32, "at": "2024-03-01T08:00:00.000Z"}
HEADS = [{**LINK, "number": n, "signature": f"{n:0128x}"} for n in range(1, 4)]


@pytest.fixture
def building(tmp_path: Path) -> Building:
    return Building.make(tmp_path)


def test_the_digest_is_of_all_that_a_head_says() -> None:
    """Each part of a head changes what is signed, and no two parts run into each other."""
    digests = {
        head_digest("sorting", 7, "ab", "t"),
        head_digest("sortin", 7, "ab", "t"),
        head_digest("sorting", 8, "ab", "t"),
        head_digest("sorting", 7, "a", "bt"),
        head_digest("sorting", 7, "abt", ""),
    }
    assert len(digests) == 5
    assert {len(d) for d in digests} == {32}


def test_a_signature_fits_its_head_alone(building: Building) -> None:
    """Raw r ‖ s over the digest; another head, key, length or spelling is not right."""
    head = signed_head(LINK, building.sign(LINK))
    key = load_public_key(building.public_key)
    assert is_signed(head, key)
    assert not is_signed({**head, "number": 8}, key)
    assert not is_signed({**head, "signature": head["signature"].upper()}, key)
    assert not is_signed({**head, "signature": head["signature"][:-2]}, key)
    assert not is_signed({**head, "signature": "zz" * 64}, key)
    assert not is_signed({**head, "signature": "00" * 64}, key)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    assert not is_signed(head, other)
    building.close()


def test_only_a_p256_key_is_a_head_key() -> None:
    """Another curve is refused where it comes in."""
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(ValueError, match="P-256"):
        load_public_key(pem)
    with pytest.raises(ValueError):
        load_public_key(b"nothing")
    assert hashes.SHA256.digest_size == 32


def test_only_what_is_new_waits_for_a_signature(tmp_path: Path) -> None:
    """The newest link of each line, until a head covers it."""
    building = one_of_each(tmp_path)
    waiting = unsigned_heads(building.queries)
    assert {h["line"] for h in waiting} == {"sorting"}
    assert len(latest_links(building.queries)) == 5
    assert building.sign_heads() == 1
    assert unsigned_heads(building.queries) == []
    building.close()


def test_the_file_keeps_heads_in_order(tmp_path: Path) -> None:
    """What was appended is read back, over several appends; nothing appended, no file."""
    path = tmp_path / "heads.jsonl"
    append_head_file(path, [])
    assert not path.exists()
    append_head_file(path, HEADS[:1])
    append_head_file(path, HEADS[1:])
    assert read_head_file(path) == HEADS


@pytest.mark.parametrize("kept", [1, 50, 200])
def test_a_torn_last_line_is_cut_away(tmp_path: Path, kept: int) -> None:
    """A crash in the middle of an append costs that line alone, and the next append goes on."""
    path = tmp_path / "heads.jsonl"
    append_head_file(path, HEADS[:2])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    os.truncate(path, first + kept)
    assert read_head_file(path) == HEADS[:1]
    append_head_file(path, HEADS[2:])
    assert read_head_file(path) == [HEADS[0], HEADS[2]]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    """Damage within the file is not passed over."""
    path = tmp_path / "heads.jsonl"
    append_head_file(path, HEADS)
    path.write_bytes(path.read_bytes().replace(b'"number":2', b'"number":"2"'))
    with pytest.raises(HeadFileDamaged, match="line 2"):
        read_head_file(path)


def test_a_working_centre_can_be_verified(tmp_path: Path) -> None:
    """While commits go on and heads are signed, each verification finds its snapshot whole."""
    building = Building.make(tmp_path)
    building.take_note(note([NoteCarton("T1", "102", TEMPORARY, 40, "430102")]))
    building.sign_for("D1", T1=40)
    building.take_return(factory_return([record(1)]))
    found: list[str] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            report = verify(building.url, building.head_file, building.public_key)
            found.append(report.finding)

    looking = threading.Thread(target=look)
    looking.start()
    for n in range(40):
        building.replace_keys("T1", n)
        building.sign_heads()
    done.set()
    looking.join()
    assert found
    assert set(found) == {""}
    building.close()
