"""What each kind of act on keys needs, says and does.

A ceremony looks at a proposal and answers its `Plan`; the plan stands in the act's content, so
the second person sees it and verification holds the events to it. Doing it goes through the
provider, whose operations may be asked again: after a crash it is simply done once more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from actors.acts import Outcome, Plan
from actors.hsm import labels
from actors.hsm.key_block import parse_key_block
from actors.key_events import events, restored, result, values
from actors.key_sets import KEK, KeySet, key_set
from actors.restoring import restoration, transport_of
from domain.card.profile import Profile
from domain.changes import Event, EventType
from domain.codes import Code
from domain.custody import (
    COMPONENTS,
    DESTROYED,
    TRANSPORT_FILE,
    Act,
    ActKind,
    Denied,
    KeyLine,
    Proposal,
)
from domain.lines import KeyCustodian
from domain.provider import KeyEntry, KeyState, KnownKey

STEPS: Mapping[str, tuple[KeyState, ...]] = {
    ActKind.KEY_ACTIVATE: (KeyState.STAGED,),
    ActKind.KEY_RETIRE: (KeyState.ACTIVE,),
    ActKind.KEY_DESTROY: (KeyState.STAGED, KeyState.RETIRED),
}
"""Acts that take a version from one state to another: in which state it is before."""


class Ceremonies:
    """Acts on keys, through the provider."""

    def __init__(
        self,
        keys: KeyCustodian,
        profile: Profile,
        known: Callable[[], Mapping[str, KnownKey]],
        dependents: Callable[[Sequence[str]], Mapping[str, int]],
        deliver: Callable[[str, bytes], None],
    ) -> None:
        """`known()`: every key that people have had to do with, by label. `dependents(labels)`:
        how many bodies in open work need each key. `deliver(name, content)` writes an export or a
        backup where people find it; the same name again is the same file."""
        self._keys, self._profile, self._known = keys, profile, known
        self.dependents, self._deliver = dependents, deliver

    def _states(self) -> dict[str, str]:
        return {label: key.state for label, key in self._known().items()}

    async def plan(self, proposal: Proposal) -> Plan:
        """Raises Denied, or what the provider raises."""
        kind = proposal.kind
        if kind in COMPONENTS:
            return await self._plan_components(proposal)
        if kind == ActKind.KEY_ACCEPT_TEMPORARY:
            return self._plan_acceptance(proposal)
        if kind in (ActKind.KEY_EXPORT, ActKind.KEY_BACKUP):
            return self._plan_way_out(proposal)
        if kind == ActKind.KEY_RESTORE:
            if not proposal.block:
                raise Denied(Code.FIELD_MISSING, "block")
            return await self._plan_restore(proposal.block)
        return await self._plan_step(proposal)

    async def check_current(self, act: Act) -> None:
        """Raises Denied if the keys are no more as they were when `act` was proposed: its content
        would say something else now."""
        version, kek = act.content.get("version", 0), act.content.get("kek_version", 0)
        if act.kind in COMPONENTS and not act.content["lost"]:
            version = 0
        now = Proposal(
            "", act.kind, act.subject, version, kek, suite=act.content.get("suite", "")
        )  # fmt: skip
        if act.kind in COMPONENTS:
            same = {**await self._wanted(now), "parts": act.content["parts"]} == act.content
        elif act.kind in STEPS:
            same = await self._step(now) == act.content
        elif act.kind == ActKind.KEY_ACCEPT_TEMPORARY:
            self._check_new(act.content["labels"])
            return
        elif act.kind in (ActKind.KEY_EXPORT, ActKind.KEY_BACKUP):
            same = self._plan_way_out(now).content == act.content
        else:
            return
        if not same:
            raise Denied(Code.KEY_STATE, act.subject)

    async def next_keys(self, proposal: Proposal) -> tuple[KeyLine, ...]:
        """The keys that a proposal of components would make. Raises Denied."""
        content = await self._wanted(proposal)
        return tuple(
            KeyLine(label, usage, content["version"], content["suite"], "", "")
            for usage, label in content["labels"].items()
        )

    async def _wanted(self, proposal: Proposal) -> dict[str, Any]:
        """What an act on components makes: the next version of its set; or, imported, keys of the
        version that it names."""
        wanted = key_set(proposal.subject, self._profile, proposal.suite)
        if proposal.kind == ActKind.KEY_IMPORT and proposal.version:
            version = proposal.version
            lost = await self._lost(wanted.labels(version))
        else:
            version, lost = self._next(wanted, proposal.kind), {}
        keys = {u: k for u, k in wanted.labels(version).items() if not lost or k in lost}
        return {"version": version, "suite": wanted.suite, "labels": keys, "lost": lost}

    async def _lost(self, keys: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """Those of `keys` that the token has lost, and what the ledger says of them: out of the
        same components they come back as they were."""
        known, there = self._known(), {e.label for e in await self._keys.inventory()}
        lost = {k: known[k] for k in keys.values() if k in known and k not in there}
        if not lost or any(key.state == DESTROYED for key in lost.values()):
            raise Denied(Code.KEY_STATE, ", ".join(keys.values()))
        return {label: key._asdict() for label, key in lost.items()}

    def _next(self, wanted: KeySet, kind: str) -> int:
        """One version is staged at a time, and after an active version comes the next by
        `rotate`, so that nobody makes it by mistake."""
        versions = wanted.versions(self._states())
        states = set(versions.values())
        if KeyState.STAGED in states:
            raise Denied(Code.KEY_STATE, KeyState.STAGED)
        rotates = KeyState.ACTIVE in states
        if kind != ActKind.KEY_IMPORT and rotates != (kind == ActKind.KEY_ROTATE):
            raise Denied(Code.KEY_STATE, "centre key rotate" if rotates else "centre key generate")
        return max(versions, default=0) + 1

    async def _plan_components(self, proposal: Proposal) -> Plan:
        content = await self._wanted(proposal)
        values = await self.part_values(content["labels"], content["suite"], 1, proposal.parts)
        sealed = {usage: part.hex() for usage, part in proposal.parts.items()}
        return Plan({**content, "parts": values}, {"parts": [sealed]})

    async def part_values(
        self, labels: Mapping[str, str], suite: str, number: int, parts: Mapping[str, bytes]
    ) -> dict[str, str]:
        """The check value of component `number` of each key, by usage. Raises Denied if one is
        missing."""
        if set(parts) != set(labels):
            raise Denied(Code.FIELD_MISSING, f"parts: {', '.join(labels)}")
        return {
            usage: await self._keys.part_value(label, suite, number, parts[usage])
            for usage, label in labels.items()
        }

    def _plan_acceptance(self, proposal: Proposal) -> Plan:
        """The check values are the block's own until it is opened, which is when somebody else
        has compared them: one person alone brings nothing into the token."""
        if not proposal.block:
            raise Denied(Code.FIELD_MISSING, "block")
        block = parse_key_block(proposal.block, self._profile)
        if block.batch_id != proposal.subject:
            raise Denied(Code.BAD_FORMAT, "subject")
        keys = {k.usage: labels.temporary(block.batch_id, k.usage, k.version) for k in block.keys}
        self._check_new(keys)
        values = {k.usage: k.check_value.hex().upper() for k in block.keys}
        return Plan({"labels": keys, "check_values": values}, {"block": proposal.block.hex()})

    def _check_new(self, keys: Mapping[str, str]) -> None:
        states = self._states()
        known = {states.get(label, DESTROYED) for label in keys.values()} - {DESTROYED}
        if known:
            raise Denied(Code.KEY_STATE, ", ".join(sorted(known)))

    def _plan_way_out(self, proposal: Proposal) -> Plan:
        kek = key_set(KEK, self._profile).versions(self._states())
        version = proposal.kek_version or max(kek, default=0)
        if kek.get(version) != KeyState.ACTIVE:
            raise Denied(Code.KEY_STATE, f"kek:v{version}")
        if proposal.kind == ActKind.KEY_BACKUP:
            return Plan({"kek_version": version})
        leaving = (KeyState.ACTIVE, KeyState.RETIRED)
        keys = self._existing(proposal, self._states(), leaving)
        return Plan({"kek_version": version, "version": proposal.version, "labels": keys})

    async def _plan_restore(self, block: bytes) -> Plan:
        saved, there = await self._keys.read_backup(block), await self._keys.inventory()
        content = restoration(saved, there, self._states())
        known = {k: v for k, v in self._known().items() if v.state != DESTROYED}
        for label, key in content["keys"].items():
            if label in known and key["check_value"] != known[label].check_value:
                raise Denied(Code.KEY_CHECK_VALUE_DIFFERS, label)
        digest = hashlib.sha256(block).hexdigest()
        return Plan({"digest": digest, **content}, {"block": block.hex()})

    async def _plan_step(self, proposal: Proposal) -> Plan:
        content = await self._step(proposal)
        self._check_unused(proposal.kind, content["labels"])
        return Plan(content)

    async def _step(self, proposal: Proposal) -> dict[str, Any]:
        """A version of a set goes from one state to another, all its keys together: the content
        of such an act."""
        states = self._states()
        if proposal.kind == ActKind.KEY_DESTROY and _is_batch(proposal.subject):
            states |= await self._strays(states)
        keys = self._existing(proposal, states, STEPS[proposal.kind])
        content: dict[str, Any] = {"version": proposal.version, "labels": keys}
        if proposal.kind == ActKind.KEY_ACTIVATE:
            wanted = key_set(proposal.subject, self._profile, proposal.suite)
            versions = wanted.versions(states)
            active = [v for v, state in versions.items() if state == KeyState.ACTIVE]
            content["retires"] = wanted.labels(active[0]) if active else {}
        return content

    async def _strays(self, states: Mapping[str, str]) -> dict[str, str]:
        """Temporary keys that are staged in the token, and of which the ledger knows nothing: an
        act was cut off and refused, or somebody was at the token past the centre."""
        return {
            e.label: e.state
            for e in await self._keys.inventory()
            if labels.kind_of(e.label) is labels.Kind.TEMPORARY
            and e.state == KeyState.STAGED
            and states.get(e.label, DESTROYED) == DESTROYED
        }

    def _existing(
        self, proposal: Proposal, states: Mapping[str, str], wanted: tuple[KeyState, ...]
    ) -> dict[str, str]:
        """The labels of the set that is meant, if all its keys are in one of the states `wanted`.
        The keys of a factory's batch are no set of ours: they go with their batch."""
        if _is_batch(proposal.subject):
            meanings = {label: labels.meaning(label) for label in sorted(states)}
            keys = {m.usage: k for k, m in meanings.items() if m.family == proposal.subject}
        else:
            keys = key_set(proposal.subject, self._profile, proposal.suite).labels(proposal.version)
        if not keys or not {states.get(k, "") for k in keys.values()} <= set(wanted):
            raise Denied(Code.KEY_STATE, f"{proposal.subject} v{proposal.version}")
        return keys

    def _check_unused(self, kind: str, keys: Mapping[str, str]) -> None:
        retires = kind == ActKind.KEY_RETIRE and any(map(_is_batch, keys.values()))
        # A retired temporary key serves no chip that still waits for its formal ones.
        if kind == ActKind.KEY_DESTROY or retires:
            used = max(self.dependents(sorted(keys.values())).values(), default=0)
            if used:
                raise Denied(Code.KEY_IN_USE, f"{used}")

    async def do(self, act: Act) -> Outcome:
        """Do a confirmed act. Raises Denied, or what the provider raises."""
        steps: Mapping[str, Callable[[Act], Awaitable[Outcome]]] = {
            **dict.fromkeys(COMPONENTS, self._combine),
            ActKind.KEY_ACTIVATE: self._activate,
            ActKind.KEY_ACCEPT_TEMPORARY: self._accept,
            ActKind.KEY_RETIRE: self._retire,
            ActKind.KEY_DESTROY: self._destroy,
            ActKind.KEY_EXPORT: self._way_out,
            ActKind.KEY_BACKUP: self._way_out,
            ActKind.KEY_RESTORE: self._restore,
        }
        return await steps[act.kind](act)

    async def _combine(self, act: Act) -> Outcome:
        first, second = act.sealed["parts"]
        lost = {label: KnownKey(**key) for label, key in act.content["lost"].items()}
        entries = [
            await self._keys.combine(
                label,
                act.content["suite"],
                [bytes.fromhex(first[usage]), bytes.fromhex(second[usage])],
                lost.get(label),
            )
            for usage, label in act.content["labels"].items()
        ]
        if lost:
            return Outcome(result(entries), restored(act.act_id, entries))
        return Outcome(result(entries), events(EventType.KEY_STAGED, act.act_id, values(entries)))

    async def _accept(self, act: Act) -> Outcome:
        entries = await self._keys.stage_temporary_keys(bytes.fromhex(act.sealed["block"]))
        staged = events(EventType.KEY_STAGED, act.act_id, values(entries))
        activated = await self._activate(act)
        return replace(activated, events=staged + activated.events)

    async def _activate(self, act: Act) -> Outcome:
        """The version that was active until then is retired with it."""
        retires, known = act.content.get("retires", {}), self._known()
        await self._there(retires)  # one that is lost is retired all the same
        entries = await self._moved(act, KeyState.ACTIVE)
        retired = {label: known[label].check_value for label in retires.values()}
        return Outcome(
            result(entries),
            events(EventType.KEY_ACTIVATED, act.act_id, values(entries))
            + events(EventType.KEY_RETIRED, act.act_id, retired),
        )

    async def _retire(self, act: Act) -> Outcome:
        entries = await self._moved(act, KeyState.RETIRED)
        return Outcome(result(entries), events(EventType.KEY_RETIRED, act.act_id, values(entries)))

    async def _moved(self, act: Act, state: KeyState) -> list[KeyEntry]:
        entries = await self._entries(act.content["labels"])
        await self._keys.set_state([e.label for e in entries], state)
        return entries

    async def _entries(self, keys: Mapping[str, str]) -> list[KeyEntry]:
        """What the token has under `keys`. Raises Denied as `_there`, or if one is missing."""
        entries = await self._there(keys)
        if missing := set(keys.values()) - {e.label for e in entries}:
            raise Denied(Code.KEY_UNKNOWN, ", ".join(sorted(missing)))
        return entries

    async def _there(self, keys: Mapping[str, str]) -> list[KeyEntry]:
        """Those of `keys` that the token has. Raises Denied if one is not the key that the
        ledger knows: somebody was at the token past the centre."""
        wanted = set(keys.values())
        known = {k: v for k, v in self._known().items() if v.state != DESTROYED}
        entries = [e for e in await self._keys.inventory() if e.label in wanted]
        for e in entries:
            if e.label in known and e.check_value != known[e.label].check_value:
                raise Denied(Code.KEY_CHECK_VALUE_DIFFERS, e.label)
        return entries

    async def _destroy(self, act: Act) -> Outcome:
        keys = set(act.content["labels"].values())
        # What has begun is finished: cards that came since can't bring back what is gone.
        if keys <= {e.label for e in await self._keys.inventory()}:
            self._check_unused(act.kind, act.content["labels"])
        await self._keys.destroy(sorted(keys))
        gone = [{"act_id": act.act_id, "label": k} for k in act.content["labels"].values()]
        return Outcome({}, tuple(Event(EventType.KEY_DESTROYED, data=data) for data in gone))

    async def _way_out(self, act: Act) -> Outcome:
        version, leaving = act.content["kek_version"], act.content.get("labels", {})
        entries = await self._entries(leaving)
        if act.kind == ActKind.KEY_EXPORT:
            blob = await self._keys.export(sorted(leaving.values()), version)
        else:
            blob = await self._keys.backup(version)
        name = f"{act.kind.partition('.')[2]}-{act.act_id}.json"
        self._deliver(name, blob)
        out = events(EventType.KEY_EXPORTED, act.act_id, values(entries))
        # Wrapping is not the same bytes each time: what was delivered is the file itself.
        return Outcome({"file": name, "digest": hashlib.sha256(blob).hexdigest()}, out)

    async def _restore(self, act: Act) -> Outcome:
        block = bytes.fromhex(act.sealed["block"])
        wanted = {label: key["state"] for label, key in act.content["keys"].items()}
        entries = await self._keys.restore(block, wanted)
        if public := transport_of(block, entries):
            # Custodians and factories seal under the key that is in the token now.
            self._deliver(TRANSPORT_FILE, public)
        # The centre's own keys have no states that people decide.
        back = [e for e in entries if e.label in wanted]
        return Outcome(result(entries), restored(act.act_id, back))


def _is_batch(subject: str) -> bool:
    return subject.startswith("temporary:")
