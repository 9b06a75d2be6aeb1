"""Key custody inside the provider process (`domain.provider.KeyCustody`).

An act is checked whole before anything of it is done, and its steps stand in such an order that
the same act again, after a kill between any two of them, finishes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import structlog

from actors.hsm import backup, ceremony, components
from actors.hsm.backup import SavedKey
from actors.hsm.key_block import import_key_block, parse_key_block
from actors.hsm.key_places import KeyPlaces, changeable, meaning
from actors.hsm.labels import HEAD, INDEX, OWN, TRANSPORT, Kind
from actors.hsm.labels import data as data_key
from actors.hsm.labels import kek as kek_label
from actors.hsm.masters import Masters, check_value
from actors.hsm.token import KeyToken
from actors.hsm.transport import NotAKey, unsealed
from domain.card.profile import Profile
from domain.codes import Code
from domain.provider import KeyEntry, KeyRefused, KeyState, KnownKey

KEK_BYTES = (32,)
_NEXT = {KeyState.STAGED: KeyState.ACTIVE, KeyState.ACTIVE: KeyState.RETIRED}
_LEAVING = (Kind.FORMAL, Kind.BANK)
_LEAVING_OWN = (INDEX, HEAD, TRANSPORT)
_log = structlog.get_logger(__name__)


class Custody:
    """`KeyCustody` over a token and masters. A provider is one, too, with a session of its own
    making (`_serving`)."""

    def __init__(self, token: KeyToken, masters: Masters, profile: Profile) -> None:
        self.token, self.masters, self._profile = token, masters, profile
        self._keys = KeyPlaces(token, masters, profile)

    @contextmanager
    def _serving(self) -> Iterator[None]:
        """An open session."""
        yield

    def _permit(self, operation: str) -> None:
        """Raises KeyRefused if this `Operation` may not be done."""

    def combine(
        self, label: str, suite: str, parts: Sequence[bytes], lost: KnownKey | None = None
    ) -> KeyEntry:
        """See `KeyCustody.combine`."""
        self._permit("join_components")
        with self._alone():
            place = self._keys.place_of_new(label, suite)
            is_kek = meaning(label).kind is Kind.KEK
            lengths = KEK_BYTES if is_kek else place.suite.key_lengths
            opened = [self._part(part, f"parts[{at}]") for at, part in enumerate(parts)]
            with components.joined(label, place.suite, lengths, opened) as key:
                block = place.suite.encipher(key, place.suite.check_block)
                if lost is not None and check_value(block) != lost.check_value:
                    raise KeyRefused(Code.KEY_CHECK_VALUE_DIFFERS, label)
                if not place.state(label):
                    place.create(label, key, KeyState(lost.state) if lost else KeyState.STAGED)
                elif place.check_block(label) != block:
                    raise KeyRefused(Code.KEY_EXISTS_DIFFERENT, label)
            if not is_kek:
                # A fresh token needs its KEK before the transport key of a backup can come.
                ceremony.put_in_use(self.token, TRANSPORT)
            return self._keys.entry(label)

    def part_value(self, label: str, suite: str, number: int, part: bytes) -> str:
        """See `KeyCustody.part_value`."""
        with self._serving():
            cipher = self._keys.place_of_new(label, suite).suite
            opened = self._part(part, "part")
        with components.wiped(opened):
            if (opened.label, opened.number) != (label, number):
                raise KeyRefused(Code.KEY_PART_BAD, f"part: not component {number} of {label}")
            if len(opened.component) not in cipher.key_lengths:
                raise KeyRefused(Code.KEY_PART_BAD, f"part: no length of suite {suite}")
            return cipher.check_value(bytes(opened.component)).hex().upper()

    def set_state(self, labels: Sequence[str], state: KeyState) -> list[KeyEntry]:
        """See `KeyCustody.set_state`. The new version is active before the one before is retired:
        at every moment a whole version is."""
        with self._alone():
            what = self._keys.whole_set(labels)
            keys = {label: self._keys.present(label) for label in labels}
            for label, place in keys.items():
                now = KeyState(place.state(label))
                if now != state and _NEXT.get(now) != state:
                    raise KeyRefused(Code.KEY_STATE, f"{label}: {now}, not to be {state}")
            others = self._keys.other_versions(what) if state is KeyState.ACTIVE else {}
            for label, place in others.items():
                if meaning(label).version > what.version and place.state(label) != KeyState.STAGED:
                    raise KeyRefused(Code.KEY_STATE, f"{label} came after it")
            for label, place in keys.items():
                if place.state(label) != state:
                    place.set_state(label, state)
            for label, place in others.items():
                if place.state(label) == KeyState.ACTIVE:
                    place.set_state(label, KeyState.RETIRED)
            return [self._keys.entry(label) for label in labels]

    def destroy(self, labels: Sequence[str]) -> None:
        """See `KeyCustody.destroy`."""
        with self._alone():
            for label in labels:
                changeable(label)
            keys = {label: place for label in labels if (place := self._keys.find(label))}
            for label, place in keys.items():
                if place.state(label) == KeyState.ACTIVE:
                    raise KeyRefused(Code.KEY_STATE, f"{label}: active")
            for label, place in keys.items():
                place.destroy(label)

    def destroy_data_keys(self, batch_ids: Sequence[str]) -> None:
        """See `KeyCustody.destroy_data_keys`."""
        with self._alone():
            for label in map(data_key, batch_ids):
                if place := self._keys.find(label):
                    place.destroy(label)

    def inventory(self) -> list[KeyEntry]:
        """See `KeyCustody.inventory`."""
        with self._serving():
            return self._keys.inventory()

    def export(self, labels: Sequence[str], kek_version: int) -> bytes:
        """See `KeyCustody.export`."""
        self._permit("back_up")
        with self._serving():
            kek = self._kek(kek_version, KeyState.ACTIVE)
            for label in labels:
                if not self._leaves(label):
                    raise KeyRefused(Code.KEY_STAYS, label)
            saved = [self._saved(label, kek) for label in labels]
            return backup.sealed(self.token, kek, kek_version, saved)

    def backup(self, kek_version: int) -> bytes:
        """See `KeyCustody.backup`."""
        with self._serving():
            leaving = [label for label in self._keys.all() if self._leaves(label)]
        return self.export([*leaving, *_LEAVING_OWN], kek_version)

    def read_backup(self, blob: bytes) -> list[KeyEntry]:
        """See `KeyCustody.read_backup`."""
        self._permit("back_up")
        with self._serving():
            _, saved = self._opened(blob)
            return [key.entry for key in saved]

    def restore(self, blob: bytes, states: Mapping[str, str]) -> list[KeyEntry]:
        """See `KeyCustody.restore`."""
        self._permit("back_up")
        with self._alone():
            kek, saved = self._opened(blob)
            if missing := states.keys() - {key.entry.label for key in saved}:
                raise KeyRefused(Code.KEY_BACKUP_BAD, f"{min(missing)}: not in the file")
            own = [key for key in saved if key.entry.label in OWN]
            keys = [
                replace(key, entry=replace(key.entry, state=KeyState(states[key.entry.label])))
                for key in saved
                if key.entry.label in states
            ]
            for key in keys:
                self._refuse_another(key)
            self._refuse_second_active(keys)
            for key in own:
                self._restore_own(key, kek)
            for key in keys:
                self._restore(key, kek)
            return [self._keys.entry(key.entry.label) for key in (*own, *keys)]

    def stage_temporary_keys(self, block: bytes) -> list[KeyEntry]:
        """See `KeyCustody.stage_temporary_keys`. A refused block leaves nothing."""
        parsed = parse_key_block(block, self._profile)
        self._permit("take_sealed_key")
        with self._alone():
            taken = import_key_block(self.token, self.masters, parsed, KeyState.STAGED)
            ceremony.put_in_use(self.token, TRANSPORT)
            return [self._keys.entry(label) for label in taken]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._serving(), self.token.alone():
            yield

    def _part(self, part: bytes, place: str) -> components.Part:
        try:
            return components.parse_part(unsealed(self.token, part), place)
        except NotAKey:
            reason = f"{place}: not sealed under this centre's transport key"
            raise KeyRefused(Code.KEY_PART_BAD, reason) from None

    def _leaves(self, label: str) -> bool:
        """Whether a key may leave under a KEK."""
        if meaning(label).kind not in _LEAVING:
            return label in _LEAVING_OWN
        return self._keys.present(label).exportable

    def _kek(self, version: int, *states: KeyState) -> Any:
        label = kek_label(version)
        if self._keys.present(label).state(label) not in states:
            raise KeyRefused(Code.KEY_NOT_ACTIVE, label)
        return self.token.find(label)

    def _saved(self, label: str, kek: Any) -> SavedKey:
        if label in OWN:
            wrapped, public = ceremony.wrapped(self.token, label, kek)
            return SavedKey(self._keys.entry(label), wrapped, public)
        wrapped = self._keys.present(label).wrapped(label, kek)
        return SavedKey(self._keys.entry(label), wrapped)

    def _opened(self, blob: bytes) -> tuple[Any, list[SavedKey]]:
        """A file and the KEK that opened it."""
        kek = self._kek(backup.kek_version(blob), KeyState.ACTIVE, KeyState.RETIRED)
        return kek, backup.opened(self.token, kek, blob)

    def _refuse_another(self, key: SavedKey) -> None:
        """Raises KeyRefused if another key has the label of this one, or it is in another state:
        a restore moves no key that is there."""
        label = key.entry.label
        place = self._keys.place_of_new(label, key.entry.suite)
        if not place.state(label):
            return
        now = self._keys.entry(label)
        if now.check_value != key.entry.check_value:
            raise KeyRefused(Code.KEY_EXISTS_DIFFERENT, label)
        if now.state != key.entry.state:
            raise KeyRefused(Code.KEY_STATE, f"{label}: {now.state}, not {key.entry.state}")

    def _refuse_second_active(self, keys: Sequence[SavedKey]) -> None:
        """Raises KeyRefused if two versions of one family would be active."""
        active = [key.entry.label for key in keys if key.entry.state == KeyState.ACTIVE]
        versions: dict[str, int] = {}
        for label in active:
            what = meaning(label)
            others = self._keys.other_versions(what).items()
            if versions.setdefault(what.family, what.version) != what.version or any(
                place.state(other) == KeyState.ACTIVE for other, place in others
            ):
                raise KeyRefused(Code.KEY_STATE, f"{label}: another version is active")

    def _restore(self, key: SavedKey, kek: Any) -> None:
        label = key.entry.label
        place = self._keys.place_of_new(label, key.entry.suite)
        if place.state(label):
            return
        place.take_wrapped(label, key.wrapped, kek, key.entry.state)
        if self._keys.entry(label).check_value != key.entry.check_value:
            place.destroy(label)
            raise KeyRefused(Code.KEY_BACKUP_BAD, f"{label}: another check value")

    def _restore_own(self, key: SavedKey, kek: Any) -> None:
        label, state = key.entry.label, KeyState(key.entry.state)
        if not self._keeps(key):
            ceremony.take_wrapped(self.token, label, key.wrapped, key.public, kek, state)

    def _keeps(self, key: SavedKey) -> bool:
        """Whether an own key stays: it is the same, or something hangs on it, which would be lost
        with it. One that is staged is as `centre init` made it."""
        label = key.entry.label
        if ceremony.find(self.token, label) is None:
            return False
        now = self._keys.entry(label)
        if now.check_value == key.entry.check_value:
            return True
        if now.state == KeyState.STAGED:
            return False
        _log.warning("own_key_kept", label=label)
        return True
