"""People at the door, their login sessions, and acts of two people: the words of custody.

An *act* is proposed by one person in a login session, confirmed by another in another session,
and then done, once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from domain.codes import Code
from domain.lines import Receipt
from domain.provider import KeyEntry, KeyState
from domain.words import in_words

SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 200
"""Characters."""
_NAME = re.compile(r"\w[\w.-]{1,31}")


TRANSPORT_FILE = "centre-transport.pem"
"""In `exchange/`: the public key under which factories and custodians seal what comes in."""


class Role(StrEnum):
    """What a person may do."""

    OPERATOR = "operator"
    INSPECTOR = "inspector"
    STOREKEEPER = "storekeeper"
    KEY_CUSTODIAN = "key_custodian"
    SUPERVISOR = "supervisor"


ROLE_WORDS: Mapping[str, str] = {
    Role.OPERATOR: "操作员",
    Role.INSPECTOR: "检验员",
    Role.STOREKEEPER: "库管员",
    Role.KEY_CUSTODIAN: "密钥保管员",
    Role.SUPERVISOR: "主管",
}


APART = frozenset({Role.SUPERVISOR, Role.KEY_CUSTODIAN})
"""Never one person's: who decides who the custodians are holds no key."""


class ActKind(StrEnum):
    """What takes two people."""

    KEY_GENERATE = "key.generate"  # components made by two custodians, the first version
    KEY_IMPORT = "key.import"  # components that came on paper
    KEY_ROTATE = "key.rotate"  # components for the version after the active one
    KEY_ACTIVATE = "key.activate"  # a staged version takes the place of the active one
    KEY_RETIRE = "key.retire"
    KEY_DESTROY = "key.destroy"
    KEY_ACCEPT_TEMPORARY = "key.accept-temporary"
    KEY_EXPORT = "key.export"
    KEY_BACKUP = "key.backup"
    KEY_RESTORE = "key.restore"
    PEOPLE_ADD = "people.add"
    PEOPLE_CLOSE = "people.close"
    PEOPLE_ROLES = "people.roles"
    PEOPLE_PASSWORD = "people.password"  # forgotten: typed anew by its owner beside a supervisor
    CARD_SCRAP = "card.scrap"  # a held card that both have in hand
    STOCK_ADJUST = "stock.adjust"  # what a count missed, or found again
    LOT_RELEASE = "lot.release"  # a refused inspection lot goes on as it is
    LOT_INSPECT = "lot.inspect"  # every card of it is read again, and the good ones go on


COMPONENTS = (ActKind.KEY_GENERATE, ActKind.KEY_IMPORT, ActKind.KEY_ROTATE)
"""Acts to which each of the two brings a component of every key."""


FLOOR = (
    ActKind.CARD_SCRAP, ActKind.STOCK_ADJUST, ActKind.LOT_RELEASE, ActKind.LOT_INSPECT,
)  # fmt: skip
"""Acts on cards: the line that has them carries them out (`actors/floor_acts.py`)."""

_ROLES: Mapping[str, Role] = {
    "people": Role.SUPERVISOR,
    "key": Role.KEY_CUSTODIAN,
    "card": Role.OPERATOR,
    "stock": Role.STOREKEEPER,
    "lot": Role.INSPECTOR,
}


def role_of(kind: str) -> Role:
    """The role that both people of an act need."""
    return _ROLES[kind.partition(".")[0]]


class Reason(StrEnum):
    """Why people do an act on cards. Words of a list: what anybody types may name a person."""

    DAMAGED = "damaged"
    LOST = "lost"
    MISPLACED = "misplaced"
    MISCOUNTED = "miscounted"
    CONCESSION = "concession"
    NONCONFORMING = "nonconforming"


REASON_WORDS: Mapping[str, str] = {
    Reason.DAMAGED: "损坏",
    Reason.LOST: "遗失",
    Reason.MISPLACED: "错放",
    Reason.MISCOUNTED: "点错",
    Reason.CONCESSION: "让步放行",
    Reason.NONCONFORMING: "抽检不合格",
}


class ActState(StrEnum):
    PROPOSED = "proposed"
    CONFIRMED = "confirmed"  # being done; after a crash it is finished by itself
    DONE = "done"
    REFUSED = "refused"  # the provider or the state of things said no
    WITHDRAWN = "withdrawn"


DESTROYED = "destroyed"
"""What the ledger says of a key that is gone."""
KEY_STEPS: frozenset[tuple[str, str]] = frozenset(
    {
        ("", KeyState.STAGED),
        (DESTROYED, KeyState.STAGED),  # a factory's block that came again
        (KeyState.STAGED, KeyState.ACTIVE),
        (KeyState.STAGED, DESTROYED),
        (KeyState.ACTIVE, KeyState.RETIRED),
        (KeyState.RETIRED, DESTROYED),
        # A factory's key that no act of ours has left in the token.
        ("", DESTROYED),
        (DESTROYED, DESTROYED),
    }
)
"""Which steps a key takes; "": it was not there."""


@dataclass(frozen=True)
class Act:
    """One act. `sealed` holds what waits for its end and is wiped then: components under the
    centre's transport key, the hash of a password."""

    act_id: str
    kind: str
    subject: str
    content: Mapping[str, Any]
    proposed_by: str
    proposed_in: str
    confirmed_by: str = ""
    confirmed_in: str = ""
    state: str = ActState.PROPOSED
    result: Mapping[str, Any] = field(default_factory=dict)
    sealed: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Person:
    """An account. `refused_at`: when the last of `failures` refused logins in a row was.
    `password_to_change`: somebody else was there when it was typed, so until its owner changes it
    it is good for nothing else."""

    name: str
    roles: tuple[str, ...]
    state: str
    failures: int = 0
    refused_at: str = ""
    password_to_change: bool = True
    credential: str = field(default="", repr=False)


@dataclass(frozen=True)
class Session:
    """A login session, from `since` `until` (empty: open)."""

    session: str
    name: str
    since: str
    until: str
    terminal: str


LARGEST_BLOCK = 60 * 1024
"""Bytes of a key block, a backup or an export: a call with it stays under the 100 KB up to which
Ray carries arguments outside its object store."""


@dataclass(frozen=True)
class KeyLine(KeyEntry):
    """One line of the key inventory; `dependents`: bodies in open work that need the key, or
    files under a KEK."""

    dependents: int = 0


@dataclass(frozen=True)
class Login:
    name: str
    terminal: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Founding:
    """The owner of the home adds a supervisor, while there are fewer than two. `proof`: what
    stands in the owner's file."""

    name: str
    password: str = field(repr=False)
    proof: str = field(repr=False)


@dataclass(frozen=True)
class NewPassword:
    old: str = field(repr=False)
    new: str = field(repr=False)


@dataclass(frozen=True)
class Proposal:
    """`command_id` makes a repeat one act. `subject`: a person's name, a key set, a batch. What
    else is needed depends on the kind (`actors/ceremonies.py`, `actors/floor_acts.py`): `parts` are
    components sealed under the transport key, by usage; `block` a factory's block or a backup;
    `card` what was scanned of a card: the look-up value of its face, or what identifies a card
    without number; `reason` one of `Reason`."""

    command_id: str
    kind: str
    subject: str
    version: int = 0
    kek_version: int = 0
    suite: str = ""
    roles: tuple[str, ...] = ()
    parts: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    block: bytes = field(default=b"", repr=False)
    password: str = field(default="", repr=False)
    card: str = field(default="", repr=False)
    reason: str = ""


@dataclass(frozen=True)
class Confirmation:
    """`parts`: the second person's components. `check_values`: what stands in the letter, by
    usage. `card`: what the second person has scanned."""

    act_id: str
    parts: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    check_values: Mapping[str, str] = field(default_factory=dict)
    card: str = field(default="", repr=False)


@dataclass(frozen=True)
class Answered:
    """The answer of the custody line to whatever was asked."""

    receipt: Receipt
    token: str = field(default="", repr=False)
    sessions: tuple[Session, ...] = ()
    people: tuple[Person, ...] = ()
    acts: tuple[Act, ...] = ()
    keys: tuple[KeyLine, ...] = ()


class CustodyLine(Protocol):
    """The custody line as its door sees it. Every call but the first two is made in a login
    session, named by its token."""

    async def found(self, founding: Founding) -> Answered: ...

    async def log_in(self, login: Login) -> Answered: ...

    async def log_out(self, token: str) -> Answered: ...

    async def who(self, token: str) -> Answered:
        """The session of this token, and its person."""
        ...

    async def change_password(self, token: str, change: NewPassword) -> Answered: ...

    async def next_keys(self, token: str, proposal: Proposal) -> Answered:
        """The keys to which a proposal of components would lead: a component is sealed for the
        label of its key."""
        ...

    async def propose(self, token: str, proposal: Proposal) -> Answered: ...

    async def confirm(self, token: str, confirmation: Confirmation) -> Answered: ...

    async def withdraw(self, token: str, act_id: str) -> Answered: ...

    async def list_people(self, token: str) -> Answered:
        """All people, and the sessions that are open."""
        ...

    async def list_acts(self, token: str, act_id: str, everything: bool) -> Answered:
        """One act, or those that are open, or all."""
        ...

    async def list_keys(self, token: str) -> Answered: ...


class Denied(Exception):
    """What was asked is refused, and nothing has changed."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    @property
    def receipt(self) -> Receipt:
        """Chinese first: it is read by the person at the door."""
        words = in_words(self.code)
        return Receipt(False, self.code, f"{words}: {self.detail}" if self.detail else words)


def checked_name(name: str) -> str:
    """`name`, if an account can have it: 2 to 32 letters, digits, `.`, `_`, `-`. Raises Denied."""
    if not _NAME.fullmatch(name):
        raise Denied(Code.BAD_FORMAT, "name")
    return name


def checked_roles(roles: tuple[str, ...]) -> list[str]:
    """`roles`, sorted, if all of them are roles, there is one, and one person may hold them.
    Raises Denied."""
    if not roles or not set(roles) <= {str(r) for r in Role}:
        raise Denied(Code.BAD_FORMAT if roles else Code.FIELD_MISSING, "roles")
    if set(roles) >= APART:
        raise Denied(Code.ROLES_APART)
    return sorted(set(roles))


def checked_password(password: str) -> str:
    """`password`, if it is long enough. Raises Denied, without it."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise Denied(Code.PASSWORD_SHORT, f"{SHORTEST_PASSWORD}–{LONGEST_PASSWORD}")
    return password
