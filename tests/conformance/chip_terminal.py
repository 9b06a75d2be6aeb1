"""What a terminal that knows a chip's keys sends to it, on pyca/cryptography: the chip's side has
another library, and an SM4 of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import SM4

from domain.card.profile import File, FileKind, Profile

OK = "9000"
GET_KEYS, GET_PIN_TRIES, GET_LIFE_CYCLE = "80CA00E000", "80CA9F1700", "80CA9F7000"


def ecb(suite: str, key: bytes, data: bytes, *, decrypt: bool = False) -> bytes:
    algorithm = SM4(key) if suite == "sm4" else TripleDES(key + key[:8])
    cipher = Cipher(algorithm, modes.ECB())
    work = cipher.decryptor() if decrypt else cipher.encryptor()
    return work.update(data) + work.finalize()


def pad(data: bytes, block: int) -> bytes:
    padded = data + b"\x80"
    return padded + bytes(-len(padded) % block)


def mac(suite: str, key: bytes, iv: bytes, data: bytes) -> bytes:
    """ISO/IEC 9797-1 algorithm 3 (3DES) or 1 (SM4), block by block as the standard writes it."""
    block = 16 if suite == "sm4" else 8
    chain = iv.ljust(block, b"\x00")
    padded = pad(data, block)
    single = key[:8] * 2 if suite == "3des" else key
    for at in range(0, len(padded), block):
        mixed = bytes(a ^ b for a, b in zip(chain, padded[at : at + block], strict=True))
        chain = ecb(suite, single, mixed)
    if suite == "3des":
        chain = ecb(suite, single, ecb(suite, key[8:] * 2, chain, decrypt=True))
    return chain


@dataclass
class Terminal:
    """Speaks with one chip. `keys` by usage, as the terminal believes them to be; `send` answers
    data and status word. Every method returns the status word as hex unless it says otherwise."""

    profile: Profile
    keys: dict[str, bytes]
    send: Callable[[bytes], bytes]

    def word(self, apdu: bytes | str) -> str:
        answer = self.send(bytes.fromhex(apdu) if isinstance(apdu, str) else apdu)
        return answer[-2:].hex().upper()

    def data(self, apdu: bytes | str) -> bytes:
        answer = self.send(bytes.fromhex(apdu) if isinstance(apdu, str) else apdu)
        assert answer[-2:].hex() == OK, answer[-2:].hex()
        return answer[:-2]

    def select(self, aid: bytes | None = None) -> str:
        name = self.profile.aid if aid is None else aid
        return self.word(b"\x00\xa4\x04\x00" + bytes((len(name),)) + name)

    def select_fid(self, fid: int) -> str:
        return self.word(b"\x00\xa4\x00\x00\x02" + fid.to_bytes(2, "big"))

    def enter(self, usage_or_file: str | File) -> None:
        """Select the DF where a key or file is; for one of the environment nothing is selected."""
        of = self.profile.key(usage_or_file) if isinstance(usage_or_file, str) else usage_or_file
        if of.df:
            assert self.select(bytes.fromhex(of.df)) == OK

    def challenge(self) -> bytes:
        return self.data("0084000008")

    def cryptogram(self, usage: str, challenge: bytes) -> bytes:
        block = challenge.ljust(self.profile.block, b"\x00")
        key_id = self.profile.key(usage).key_id
        data = ecb(self.profile.suite, self.keys[usage], block)
        return bytes((0x00, 0x82, 0x00, key_id, len(data))) + data

    def authenticate(self, usage: str) -> str:
        """EXTERNAL AUTHENTICATE with a fresh challenge."""
        return self.word(self.cryptogram(usage, self.challenge()))

    def internal(self, usage: str, random: bytes) -> bytes:
        """The whole answer."""
        head = bytes((0x00, 0x88, 0x00, self.profile.key(usage).key_id, len(random)))
        return self.send(head + random + bytes((len(random),)))

    def with_mac(self, head: str, body: bytes, usage: str, challenge: bytes) -> bytes:
        """`head`: CLA INS P1 P2."""
        header = bytes.fromhex(head) + bytes((len(body) + 4,))
        code = mac(self.profile.suite, self.keys[usage], challenge, header + body)
        return header + body + code[:4]

    def write_key(
        self, usage: str, new: bytes, version: int, challenge: bytes, *, length: int = 16
    ) -> bytes:
        """The command, under the loading key that the terminal knows."""
        loading = self.profile.loading_usage
        plain = pad(bytes((length,)) + new, self.profile.block)
        body = ecb(self.profile.suite, self.keys[loading], plain)
        key_id = self.profile.key(usage).key_id
        return self.with_mac(f"84D4{version:02X}{key_id:02X}", body, loading, challenge)

    def replace_key(self, usage: str, new: bytes, version: int) -> str:
        """WRITE KEY, where the loading key was authenticated; the DF of the key is selected."""
        self.enter(usage)
        word = self.word(self.write_key(usage, new, version, self.challenge()))
        if word == OK:
            self.keys[usage] = new
        return word

    def verify(self, pin: str) -> str:
        value = bytes.fromhex(pin)
        return self.word(bytes((0x00, 0x20, 0x00, 0x00, len(value))) + value)

    def change_pin(self, old: str, new: str) -> str:
        value = bytes.fromhex(f"{old}FF{new}")
        return self.word(bytes((0x80, 0x5E, 0x01, 0x00, len(value))) + value)

    def reload_pin(self, new: str, usage: str = "RPK") -> str:
        return self.word(self.with_mac("805E0000", bytes.fromhex(new), usage, self.challenge()))

    def only_mac(self, head: str, usage: str) -> str:
        """A command that is nothing but a MAC (blocking, unblocking)."""
        return self.word(self.with_mac(head, b"", usage, self.challenge()))

    def update(self, file: File, value: bytes, *, usage: str = "", challenge: bytes = b"") -> bytes:
        """UPDATE RECORD of tag 0B, or UPDATE BINARY at offset 1, with its MAC."""
        if file.kind is FileKind.RECORDS:
            head, body = f"04DC0B{file.sfi << 3 | 4:02X}", bytes((0x0B, len(value))) + value
        else:
            head, body = f"04D6{0x80 | file.sfi:02X}01", value
        return self.with_mac(head, body, usage or file.update, challenge)

    def read(self, file: File, length: int) -> bytes:
        """The whole answer to the reading of what `update` wrote."""
        if file.kind is FileKind.RECORDS:
            return self.send(bytes((0x00, 0xB2, 0x0B, file.sfi << 3 | 4, length + 2)))
        return self.send(bytes((0x00, 0xB0, 0x80 | file.sfi, 1, length)))
