"""Where each key lies, and which keys belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from actors.hsm import ceremony, labels
from actors.hsm.labels import Kind, Meaning
from actors.hsm.masters import Masters, check_value
from actors.hsm.suites import AES, TRIPLE_DES, Suite
from actors.hsm.token import KeyToken
from actors.hsm.token_keys import TokenKeys
from domain.card.profile import Profile
from domain.codes import Code
from domain.provider import KeyEntry, KeyRefused

OF_CHIPS = (Kind.FORMAL, Kind.TEMPORARY)
CHANGED_BY_PEOPLE = (*OF_CHIPS, Kind.BANK, Kind.KEK)


class Keys(Protocol):
    """Keys of one suite in one kind of place (`Masters`, `TokenKeys`)."""

    suite: Suite
    exportable: bool
    """Whether they may leave under a KEK."""

    def labels(self) -> list[str]: ...

    def state(self, label: str) -> str:
        """A `KeyState`; empty for a label that is not there."""
        ...

    def check_block(self, label: str) -> bytes:
        """The suite's check block under the key, whole."""
        ...

    def create(self, label: str, key: bytes, state: str) -> None: ...

    def set_state(self, label: str, state: str) -> None: ...

    def destroy(self, label: str) -> None: ...

    def wrapped(self, label: str, kek: Any) -> bytes:
        """The key under a KEK of the token, by AES key wrap (RFC 3394)."""
        ...

    def take_wrapped(self, label: str, blob: bytes, kek: Any, state: str) -> None:
        """The inverse of `wrapped`."""
        ...


class KeyPlaces:
    """Masters of chips, 3DES and AES keys of the token, and the centre's own keys, by label.

    Whatever is asked for by a label raises KeyRefused (KEY_LABEL_BAD) if no key is called so.
    """

    def __init__(self, token: KeyToken, masters: Masters, profile: Profile) -> None:
        self._token, self._masters = token, masters
        self._profile = profile
        self._in_token = {suite.name: TokenKeys(token, suite) for suite in (TRIPLE_DES, AES)}

    def place_of_new(self, label: str, suite: str) -> Keys:
        """Where a key `label` of `suite` goes. Raises KeyRefused (KEY_LABEL_BAD,
        KEY_EXISTS_DIFFERENT) if there can't be one."""
        what = meaning(label)
        usages = {slot.usage for slot in self._profile.keys}
        place: Keys
        match what.kind:
            case Kind.FORMAL if suite == self._profile.suite and what.usage in usages:
                place = self._masters
            case Kind.BANK if suite in self._in_token:
                place = self._in_token[suite]
            case Kind.KEK if suite == AES.name:
                place = self._in_token[suite]
            case _:
                raise KeyRefused(Code.KEY_LABEL_BAD, f"{label} in suite {suite}")
        if self.find(label) not in (None, place):
            raise KeyRefused(Code.KEY_EXISTS_DIFFERENT, f"{label} in another suite")
        return place

    def find(self, label: str) -> Keys | None:
        """Where the key `label` lies; None if there is none."""
        places: Sequence[Keys] = tuple(self._in_token.values())
        if meaning(label).kind in OF_CHIPS:
            places = (self._masters,)
        return next((keys for keys in places if keys.state(label)), None)

    def present(self, label: str) -> Keys:
        """As `find`. Raises KeyRefused (KEY_UNKNOWN)."""
        keys = self.find(label)
        if keys is None:
            raise KeyRefused(Code.KEY_UNKNOWN, label)
        return keys

    def all(self) -> dict[str, Keys]:
        """Every key but the centre's own."""
        found: dict[str, Keys] = {}
        for label in self._masters.labels():
            if labels.kind_of(label) in OF_CHIPS:
                found[label] = self._masters
        for keys in self._in_token.values():
            found.update(dict.fromkeys(keys.labels(), keys))
        return found

    def other_versions(self, what: Meaning) -> dict[str, Keys]:
        """The keys of the same family in other versions."""
        return {
            label: keys
            for label, keys in self.all().items()
            if meaning(label).family == what.family and meaning(label).version != what.version
        }

    def whole_set(self, names: Sequence[str]) -> Meaning:
        """What these labels have in common. Raises KeyRefused unless they are all the keys of
        one version: of chips' keys one for each usage of the profile."""
        for label in names:
            changeable(label)
        meanings = [meaning(label) for label in names]
        if len({(what.family, what.version) for what in meanings}) != 1:
            raise KeyRefused(Code.KEY_SET_INCOMPLETE, "keys of one version at a time")
        if meanings[0].kind in OF_CHIPS:
            missing = {slot.usage for slot in self._profile.keys} - {m.usage for m in meanings}
            if missing:
                raise KeyRefused(Code.KEY_SET_INCOMPLETE, f"missing: {', '.join(sorted(missing))}")
        return meanings[0]

    def entry(self, label: str) -> KeyEntry:
        """The line of a key in the inventory."""
        if label in labels.OWN:
            return ceremony.entry(self._token, label)
        keys, what = self.present(label), meaning(label)
        value = check_value(keys.check_block(label))
        return KeyEntry(label, what.usage, what.version, keys.suite.name, keys.state(label), value)

    def inventory(self) -> list[KeyEntry]:
        """Every key, by label."""
        own = [label for label in labels.OWN if ceremony.find(self._token, label) is not None]
        return [self.entry(label) for label in sorted([*self.all(), *own])]


def meaning(label: str) -> Meaning:
    """`labels.meaning`. Raises KeyRefused (KEY_LABEL_BAD)."""
    try:
        return labels.meaning(label)
    except labels.LabelError as e:
        raise KeyRefused(Code.KEY_LABEL_BAD, str(e)) from None


def changeable(label: str) -> None:
    """Raises KeyRefused for a key that no act of people changes."""
    if meaning(label).kind not in CHANGED_BY_PEOPLE:
        raise KeyRefused(Code.KEY_STATE, f"{label}: no act changes it")
