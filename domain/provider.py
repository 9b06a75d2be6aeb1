"""What a key provider does for a line: whole operations on chunks, never keys. And how its keys
are kept: `KeyCustody`.

A provider is one process with one HSM session. It takes ids and returns protected bytes.
`check_key_provider` and the checks of `custody_suite` in `tests/conformance` hold every
implementation to this page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


class KeySet(StrEnum):
    """Which keys of a chip: the factory's, or the province's."""

    TEMPORARY = "temporary"
    FORMAL = "formal"


@dataclass(frozen=True)
class Chip:
    """A chip as a provider knows it. `batch_id` names the factory's temporary keys; a carton
    draws keys for no more chips than it has bodies."""

    identification_code: str
    batch_id: str
    carton_id: str


@dataclass(frozen=True)
class KeyStanding:
    """What the ledger knows of a chip's keys. `begun`: the first WRITE KEY was released;
    `replaced`: all its keys are formal, and proven."""

    begun: bool = False
    replaced: bool = False


@dataclass(frozen=True)
class Authenticate:
    """Encipher the card's challenge (8 bytes) for EXTERNAL AUTHENTICATE: with the temporary loading
    key, or with a formal key that checks it. Answer: `data`, one block of the suite."""

    chip: Chip
    key_set: KeySet
    usage: str
    challenge: bytes
    version: int = 0
    """Of the formal set; 0 is the active one. So in all requests."""


@dataclass(frozen=True)
class KeyChange:
    """The WRITE KEY command that puts the formal key of `usage` on a chip whose loading key is
    still temporary; `challenge` (8 bytes) is the IV of its MAC. A chip whose first key was released
    is finished in the `version` with which it was begun. Answer: `data`, the whole APDU."""

    chip: Chip
    usage: str
    challenge: bytes
    version: int = 0


@dataclass(frozen=True)
class Prove:
    """Check an INTERNAL AUTHENTICATE: does `response` belong to `random` (one block of the suite)
    under the key? Answer: `difference` is empty, or the usage of the key that the chip does not
    hold."""

    chip: Chip
    key_set: KeySet
    usage: str
    random: bytes
    response: bytes
    version: int = 0


@dataclass(frozen=True)
class ProveCheckValue:
    """Check what a chip's key information says of a key: is `value` (3 bytes) its check value?
    Answer: as of `Prove`."""

    chip: Chip
    usage: str
    version: int
    value: bytes
    key_set: KeySet = KeySet.FORMAL


@dataclass(frozen=True)
class FormalVersion:
    """Ask which formal keys are active, together with what else a chunk asks. Answer: `version`."""


@dataclass(frozen=True)
class Compare:
    """Compare what a chip reads back with the sealed record of its order, field by field.
    `read_back` holds values as on the chip (bytes of the record's value) by field name of the
    profile. Answer: `difference` is empty (equal), or the name of the first field that differs."""

    batch_id: str
    order_id: str
    sealed: bytes
    read_back: Mapping[str, bytes]


@dataclass(frozen=True)
class LookUp:
    """Compute the look-up value of a number, as `Provider.index` does, together with what else a
    chunk asks. Answer: `data`, the value's bytes."""

    text: str


@dataclass(frozen=True)
class ReplaceCardKeys:
    """PUT KEY in a channel: the chip's three keys out of its bank's KMC `kmc_version`, as key
    version `new_version` in the place of `replace_version` (0: beside what the chip has)."""

    kmc_version: int
    replace_version: int
    new_version: int


@dataclass(frozen=True)
class Channel:
    """A secure channel with the bank's application, whole, since a provider keeps nothing between
    two requests. The bank is that of the chip's carton: its KMC serves its own chips alone."""

    chip: Chip
    kmc_version: int
    diversification: str
    """How the bank makes a chip's keys from its KMC: emv, visa2 (SCP02) or kdf3 (SCP03)."""
    host_challenge: bytes
    initialize_update: bytes
    """The chip's answer, without status word."""
    level: int
    """Security level: 01, 03; with SCP03 also 11, 13, 33 (hexadecimal)."""
    commands: tuple[bytes | ReplaceCardKeys, ...]
    """Plain commands after EXTERNAL AUTHENTICATE, in the order in which they are sent."""


@dataclass(frozen=True)
class OpenChannel:
    """Answer: `apdus`, EXTERNAL AUTHENTICATE and every command as it is sent; or refused
    (CARD_CRYPTOGRAM: the chip does not hold the bank's keys). No line asks for a channel yet."""

    channel: Channel


@dataclass(frozen=True)
class ReadChannel:
    """What a chip answered to the first commands of a channel, status words included. Answer:
    `apdus`, the plain answers; or refused (RESPONSE_MAC: an answer is not the chip's;
    CARD_CHECK_VALUE: PUT KEY stored another key, nothing may follow)."""

    channel: Channel
    responses: tuple[bytes, ...]


Request = (
    Authenticate
    | KeyChange
    | Prove
    | ProveCheckValue
    | FormalVersion
    | Compare
    | LookUp
    | OpenChannel
    | ReadChannel
)


class Answer(NamedTuple):
    """`refused` is empty, or a code of `domain.codes.Code` that says why nothing was done.
    `version` is that of the formal keys that served; 0 where none did."""

    data: bytes = b""
    difference: str = ""
    refused: str = ""
    version: int = 0
    apdus: tuple[bytes, ...] = ()


class KeyState(StrEnum):
    """The life of a key, in this order and never back. STAGED: it is there, and used for nothing
    but its check value. ACTIVE: in use. RETIRED: serves only what already carries it.

    The centre's own keys (index, head, transport) are staged until something hangs on them."""

    STAGED = "staged"
    ACTIVE = "active"
    RETIRED = "retired"


@dataclass(frozen=True)
class KeyEntry:
    """One line of the key inventory, by `label` (docs/architecture.md). `version` is 0 for keys
    that have none. `suite`: 3des, sm4, aes; hmac (index), rsa (transport), ecdsa (head).
    `check_value` is hex, 3 bytes: of 3DES and SM4 a block of 00, of AES a block of 01 under the
    key, of HMAC the code of nothing, of a pair the SHA-256 of its public key."""

    label: str
    usage: str
    version: int
    suite: str
    state: str
    check_value: str


class KnownKey(NamedTuple):
    """What the ledger says of a key: its state (of `KeyState`, or destroyed), and the check value
    with which it was staged or restored."""

    state: str
    check_value: str


class Where(StrEnum):
    """TOKEN: no key that the operation uses or makes is ever outside the device. SOFTWARE: a key
    stands in the provider's memory for one call."""

    TOKEN = "token"
    SOFTWARE = "software-assisted"


@dataclass(frozen=True)
class Operation:
    """What a provider can do, and where it is done. `note` says why it is not in the token."""

    name: str
    where: Where
    note: str = ""


class ProviderError(Exception):
    """The provider can't work now (device lost, session refused). The call may be repeated."""


class KeyRefused(Exception):
    """An act on keys was not done, and nothing has changed; `code` is one of
    `domain.codes.Code`."""

    def __init__(self, code: str, reason: str) -> None:
        # Both, not the text: exceptions are rebuilt from their arguments in another process.
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


class KeyBlockRefused(KeyRefused):
    """A sealed key block was not taken."""


class RecordUnsealable(Exception):
    """A sealed record does not open: damaged, another order's, or its data key is gone
    (`Code.RECORD_UNSEALABLE`)."""

    def __init__(self, order_id: str) -> None:
        super().__init__(order_id)
        self.order_id = order_id

    def __str__(self) -> str:
        return f"the sealed record of order {self.order_id} does not open"


class Provider(Protocol):
    """Plain and synchronous: the actor around it is a shell. Every method takes a whole chunk."""

    def perform(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer for each request, in order. A request that cannot be served is refused
        alone; ProviderError means that none was served."""
        ...

    def seal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """Seal (order id, plaintext) pairs under the batch's data key, which is made if absent.
        A sealed record opens only under its own order id."""
        ...

    def unseal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """The inverse of `seal`, for the return writer and authorised screens. Raises
        RecordUnsealable if one of the records does not open."""
        ...

    def index(self, values: Sequence[str]) -> list[str]:
        """A look-up value (HMAC-SHA-256, hex) for each number, the same for the same number."""
        ...

    def self_test(self) -> list[str]:
        """The names of the known answers that hold. Raises ProviderError if one does not."""
        ...

    def refresh(self) -> None:
        """Forget what is remembered of the token's keys: another session changed them."""
        ...

    def operations(self) -> list[Operation]:
        """What this provider does with keys, and where; nothing is opened for it."""
        ...

    def sign(self, digests: Sequence[bytes]) -> list[bytes]:
        """Sign heads of the ledger (SHA-256 digests) with the head key (ECDSA P-256, r ‖ s)."""
        ...


class KeyCustody(Protocol):
    """Custody of the keys that a provider uses: the same object, since a process holds one session.
    Every act may be repeated after an interruption, and then finishes
    what it began. Who may ask for an act, and that two people did, is the custody line's matter.

    All methods raise KeyRefused, with a code and the label or field at fault, and change nothing;
    ProviderError when the device can't work now.
    """

    def combine(
        self, label: str, suite: str, parts: Sequence[bytes], lost: KnownKey | None = None
    ) -> KeyEntry:
        """Join the components that custodians sealed for `label` (docs/files.md, Key component)
        into one key, staged. The same components again get the same answer; others are refused
        (KEY_EXISTS_DIFFERENT). `lost`: such a key was here before, and comes back in its state;
        another one than that is refused (KEY_CHECK_VALUE_DIFFERS)."""
        ...

    def part_value(self, label: str, suite: str, number: int, part: bytes) -> str:
        """The check value (hex, 3 bytes) of one sealed component, as its custodian computed it.
        Refused (KEY_PART_BAD) unless it was sealed as component `number` (1, 2 …) of `label`."""
        ...

    def set_state(self, labels: Sequence[str], state: KeyState) -> list[KeyEntry]:
        """Activate or retire keys: staged → active → retired, nothing else. Keys of a set (the
        formal masters of one version, the temporary ones of a batch) go together. Activating a
        version retires the one before. Answers every key whose state the act decided."""
        ...

    def destroy(self, labels: Sequence[str]) -> None:
        """Destroy staged or retired keys; those that are gone are no error. Whether open work
        depends on them is asked before, of the ledger (`ledger.key_use`)."""
        ...

    def destroy_data_keys(self, batch_ids: Sequence[str]) -> None:
        """Destroy the data keys of batches whose retention time is over: what they sealed opens
        nowhere any more. Those that are gone are no error."""
        ...

    def inventory(self) -> list[KeyEntry]:
        """Every key, by label."""
        ...

    def export(self, labels: Sequence[str], kek_version: int) -> bytes:
        """The keys `labels`, sealed under the active `kek:v<n>` (docs/files.md, Key backup)."""
        ...

    def backup(self, kek_version: int) -> bytes:
        """As `export`, every key that may leave. Data keys, temporary keys and KEKs stay. Raises
        KeyRefused (FILE_TOO_LARGE) for more keys than `restore` would take."""
        ...

    def read_backup(self, blob: bytes) -> list[KeyEntry]:
        """The keys of a backup or an export, as they were when it was written. Raises KeyRefused
        (KEY_BACKUP_BAD) for a file that was changed."""
        ...

    def restore(self, blob: bytes, states: Mapping[str, str]) -> list[KeyEntry]:
        """Recreate keys of a backup or an export: those whose labels are in `states`, each in the
        state that stands there, and the centre's own of the file. Every check value is compared.
        A key that is there already must be the same, in that state; an own key on which something
        hangs stays as it is. Two versions are never active. Answers these keys as they are now."""
        ...

    def stage_temporary_keys(self, block: bytes) -> list[KeyEntry]:
        """Take a factory's sealed block, staged until somebody accepts it by `set_state`.
        Check values are compared; the same block again changes nothing. Raises KeyBlockRefused."""
        ...
