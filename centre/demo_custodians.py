"""The people of a demo who hold keys: two supervisors and two custodians, each with a password and
a terminal of their own. What they have done already they see in the ledger, so a demo that was
killed goes on; nothing here does what takes two by itself.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from centre.config import Config
from centre.demo_terminal import AWAY_SECONDS, DemoError, Patient, Said, Terminal
from domain.codes import Code
from domain.custody import Act, ActKind, ActState, Role
from domain.provider import KeyState
from ledger import people
from ledger.queries import Queries

SUPERVISORS = ("supervisor-1", "supervisor-2")
CUSTODIANS = ("custodian-1", "custodian-2")
_EVERYBODY = (*SUPERVISORS, *CUSTODIANS)
_FIRST = "first password of "
_LOGGED_OUT = (Code.NOT_LOGGED_IN, Code.SESSION_ENDED)


class Custodians:
    """Their things lie in `people/` (0700): passwords, session files, components until they are
    brought."""

    def __init__(
        self, config: Config, say: Callable[[str], None], envelopes: Path | None = None
    ) -> None:
        """`envelopes`: where the components are put away; None: they are destroyed."""
        self._config, self._say, self._envelopes = config, say, envelopes
        self._place = config.home / "people"
        self._place.mkdir(mode=0o700, exist_ok=True)
        self._passwords = self._remembered()
        # All at once: each takes a moment to start.
        self._terminals = {name: self._terminal(name) for name in _EVERYBODY}

    def _remembered(self) -> dict[str, str]:
        """Everybody's own password, and the first one that they change at their terminal."""
        file = self._place / "passwords.json"
        if not file.exists():
            made = {
                kind + n: secrets.token_urlsafe(12) for n in _EVERYBODY for kind in ("", _FIRST)
            }
            new = file.with_suffix(".new")
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
                json.dump(made, f)
            new.replace(file)
        found: dict[str, str] = json.loads(file.read_text("ascii"))
        return found

    def close(self) -> None:
        """They go home; their sessions end by themselves."""
        for terminal in self._terminals.values():
            terminal.close()

    def bring_formal_keys(self) -> None:
        """Accounts first: the owner adds two supervisors, they add two custodians; those make the
        province's masters out of a component of each and activate them."""
        queries = Patient(self._config.ledger)
        try:
            self._accounts(queries)
            states = people.key_states(queries)
            formal = {s for label, s in states.items() if label.startswith("formal:")}
            if not formal:
                self._say("两名密钥保管员各出一份分量 two custodians make the province's keys")
                self._both(queries, CUSTODIANS, ActKind.KEY_GENERATE, "formal", "key", "generate")
            if KeyState.ACTIVE not in formal:
                self._both(
                    queries, CUSTODIANS, ActKind.KEY_ACTIVATE, "formal",
                    "key", "activate", more=("--version", "1"),
                )  # fmt: skip
        finally:
            queries.close()

    def bring_temporary_keys(self, batch_id: str, block: Path, letter: Path) -> None:
        """One custodian brings the factory's block, the other compares it with its letter."""
        queries = Patient(self._config.ledger)
        try:
            states = people.key_states(queries)
            if not any(k.startswith(f"temporary:{batch_id}:") for k in states):
                one, other = CUSTODIANS
                if self._act(queries, ActKind.KEY_ACCEPT_TEMPORARY, batch_id) is None:
                    self._run(one, "key", "stage", str(block))
                self._run(other, "key", "accept", batch_id, "--letter", str(letter))
                self._wait_until_done(queries, ActKind.KEY_ACCEPT_TEMPORARY, batch_id)
        finally:
            queries.close()

    def _terminal(self, name: str) -> Terminal:
        log = self._config.logs / "people.out"
        return Terminal(self._config.home, self._place / f"{name}.session", log)

    def _accounts(self, queries: Queries) -> None:
        for name in SUPERVISORS:
            if people.person(queries, name) is None:
                self._run(name, "people", "add", name, "--role", Role.SUPERVISOR,
                          typed=self._passwords[_FIRST + name])  # fmt: skip
            self._take_own_password(queries, name)
        for name in CUSTODIANS:
            if people.person(queries, name) is None:
                self._both(
                    queries, SUPERVISORS, ActKind.PEOPLE_ADD, name, "people", "add",
                    more=("--role", Role.KEY_CUSTODIAN), typed=self._passwords[_FIRST + name],
                )  # fmt: skip
            self._take_own_password(queries, name)

    def _take_own_password(self, queries: Queries, name: str) -> None:
        """At their own terminal; until then the account is good for nothing else."""
        person = people.person(queries, name)
        if person is not None and person.password_to_change:
            first, own = self._passwords[_FIRST + name], self._passwords[name]
            self._checked(self._terminals[name].run(("login", name), first))
            self._checked(self._terminals[name].run(("people", "passwd"), f"{first}\n{own}\n"))

    def _both(
        self,
        queries: Queries,
        two: Sequence[str],
        kind: ActKind,
        subject: str,
        *command: str,
        more: Sequence[str] = (),
        typed: str = "",
    ) -> None:
        """One proposes, the other confirms, and the act gets done."""
        one, other = two
        if self._act(queries, kind, subject) is None:
            self._run(one, *command, subject, *more, *self._component(kind, one), typed=typed)
        act = self._act(queries, kind, subject)
        assert act is not None
        if act.state == ActState.PROPOSED:
            self._run(other, "act", "confirm", act.act_id, *self._component(kind, other))
        self._wait_until_done(queries, kind, subject)
        for file in filter(Path.exists, map(self._component_file, two)):
            if self._envelopes is None:
                file.unlink()
            else:
                file.rename(self._envelopes / file.name)

    def _component(self, kind: ActKind, name: str) -> tuple[str, ...]:
        """Where the component is written: in a ceremony an envelope printer takes it from there."""
        if kind is not ActKind.KEY_GENERATE:
            return ()
        self._component_file(name).unlink(missing_ok=True)
        return ("--component-file", str(self._component_file(name)))

    def _component_file(self, name: str) -> Path:
        return self._place / f"{name}.component"

    def _act(self, queries: Queries, kind: ActKind, subject: str) -> Act | None:
        """The newest act about this that did not come to nothing."""
        found = people.acts(queries, ActState.PROPOSED, ActState.CONFIRMED, ActState.DONE)
        mine = [a for a in found if (a.kind, a.subject) == (kind, subject)]
        return mine[-1] if mine else None

    def _wait_until_done(self, queries: Queries, kind: ActKind, subject: str) -> None:
        """The provider may be away in between: the line finishes the act by itself."""
        deadline = time.monotonic() + AWAY_SECONDS
        while (act := self._act(queries, kind, subject)) and act.state != ActState.DONE:
            if time.monotonic() > deadline:
                raise DemoError(f"{act.act_id} is not done")
            time.sleep(0.1)  # another process's ledger: there is no event to wait for
        if act is None:
            raise DemoError(f"{kind} {subject} was refused: centre act list --all")

    def _run(self, name: str, *command: str, typed: str = "") -> None:
        """A command at the terminal of `name`, who logs in if their session has ended."""
        said = self._terminals[name].run(command, typed)
        if said.code and said.said.startswith(_LOGGED_OUT):
            self._checked(self._terminals[name].run(("login", name), self._passwords[name]))
            said = self._terminals[name].run(command, typed)
        self._checked(said)

    def _checked(self, said: Said) -> None:
        if said.code:
            raise DemoError(said.said.strip())
