"""The commands of key custodians. Each proposes an act that another custodian confirms."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from centre import components, show
from centre.card_commands import scanned
from centre.components import Component, Wanted
from centre.config import load
from centre.desk import Desk, session_option
from centre.options import REFUSED, home_option, json_option, reporting
from centre.people_commands import act, propose, tell
from domain.custody import COMPONENTS, ActKind
from stubs import custody_pb2 as pb

KEY_COLUMNS = {
    "label": "密钥 key", "suite": "算法 suite", "state": "状态 state",
    "check_value": "校验值 check value", "dependents": "依赖数 cards or files on it",
}  # fmt: skip

file_option = click.option(
    "--component-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Made components are written to it (0600, new); components to import are read from it.",
)
suite_option = click.option("--suite", default="", help="Of a bank's keys: 3des or aes.")
version_option = click.option("--version", type=int, required=True)
kek_option = click.option("--kek", type=int, default=0, help="Version of the KEK (the active one).")


@click.group()
def key() -> None:
    """Keys: ceremonies of two custodians, and the inventory.

    A SET is formal (all masters of the card profile), kek, bank:CODE:kmc or bank:CODE:transport.
    """


lost_option = click.option(
    "--version", type=int, default=0,
    help="One that the token has lost: it comes back as the ledger knows it.",
)  # fmt: skip


Command = Callable[..., None]


def _components_command(
    name: str, kind: ActKind, words: str, more: Callable[[Command], Command] = lambda same: same
) -> None:
    @key.command(name, help=words)
    @home_option
    @session_option
    @click.argument("key_set", metavar="SET")
    @suite_option
    @more
    @file_option
    @reporting
    def command(
        home: Path, session: Path | None, key_set: str, suite: str, component_file: Path | None,
        version: int = 0,
    ) -> None:  # fmt: skip
        wanted = pb.Proposal(
            command_id=secrets.token_hex(8), kind=str(kind), subject=key_set, suite=suite,
            version=version,
        )  # fmt: skip
        _propose_components(Desk(home, session), home, wanted, component_file)


_components_command(
    "generate", ActKind.KEY_GENERATE,
    "Make the first version of a set of keys: this process makes your component of each key, shows"
    " it to you once with its check value, and seals it. The second custodian's process does the"
    " same (`centre act confirm`). Example: centre key generate formal",
)  # fmt: skip
_components_command(
    "rotate", ActKind.KEY_ROTATE,
    "Make the version after the active one, as `generate` does. It is staged; `centre key activate`"
    " puts it in the place of the active one, which is retired: chips that carry it are served"
    " still. Example: centre key rotate formal",
)  # fmt: skip
_components_command(
    "import", ActKind.KEY_IMPORT,
    "Bring keys whose components came on paper: yours are typed hidden, the second custodian's with"
    " `centre act confirm`. (A factory's keys: `centre key stage`.) With --version those keys of a"
    " version that the token has lost, out of the components on paper: a new token's KEK, before"
    " `centre key restore`. Example: centre key import kek --version 1",
    lost_option,
)  # fmt: skip


def _propose_components(desk: Desk, home: Path, proposal: pb.Proposal, file: Path | None) -> None:
    kind = proposal.kind
    wanted = [Wanted(k.label, k.usage, k.suite, 1) for k in desk.ask("NextKeys", proposal).keys]
    brought = _bring(kind, wanted, file)
    pem = load(home).transport_public_key.read_bytes()
    proposal.parts.extend(components.sealed(brought, pem))
    reply = _send(desk, "Propose", proposal, kind, file)
    if wrong := components.differing(brought, json.loads(reply.acts[0].content)["parts"]):
        click.echo(f"校验值不符 the provider read another component: {', '.join(wrong)}", err=True)
        raise SystemExit(REFUSED)
    tell(reply)


def _bring(kind: str, wanted: list[Wanted], file: Path | None) -> list[Component]:
    if kind == ActKind.KEY_IMPORT:
        return components.read(wanted, file)
    made = components.make(wanted)
    components.hand_over(made, file)
    return made


def _send(desk: Desk, method: str, request: Any, kind: str, file: Path | None) -> pb.CustodyReply:
    """Components that were made for an act that is refused are of no use: their file goes."""
    try:
        return desk.ask(method, request)
    except SystemExit:
        if file is not None and kind in (ActKind.KEY_GENERATE, ActKind.KEY_ROTATE):
            file.unlink(missing_ok=True)
        raise


def _step_command(name: str, kind: ActKind, words: str) -> None:
    @key.command(name, help=words)
    @home_option
    @session_option
    @click.argument("key_set", metavar="SET")
    @version_option
    @reporting
    def command(home: Path, session: Path | None, key_set: str, version: int) -> None:
        propose(Desk(home, session), kind, key_set, version=version)


_step_command(
    "activate", ActKind.KEY_ACTIVATE,
    "Put a staged version to use; the one that was active until then is retired."
    " Example: centre key activate formal --version 2",
)  # fmt: skip
_step_command(
    "retire",
    ActKind.KEY_RETIRE,
    "No new chip gets this version any more. Example: centre key retire kek --version 1",
)
_step_command(
    "destroy", ActKind.KEY_DESTROY,
    "Destroy a staged or retired version for good; refused while open work depends on it. A batch's"
    " temporary keys: SET is temporary:BATCH, version 0."
    " Example: centre key destroy formal --version 1",
)  # fmt: skip


@key.command("stage")
@home_option
@session_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@reporting
def key_stage(home: Path, session: Path | None, file: Path) -> None:
    """Bring a factory's sealed block of temporary keys.

    It opens inside the provider only, once another custodian has compared its check values with
    the factory's letter: `centre key accept BATCH`. Example: centre key stage temporary_keys.json
    """
    block = file.read_bytes()
    try:
        batch_id = str(json.loads(block)["batch_id"])
    except (ValueError, KeyError, TypeError):
        raise click.UsageError(f"{file}: 不是密钥块 not a key block (docs/files.md)") from None
    propose(Desk(home, session), ActKind.KEY_ACCEPT_TEMPORARY, batch_id, block=block)


@key.command("accept")
@home_option
@session_option
@click.argument("batch")
@click.option("--letter", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The letter as a file: lines of USAGE CHECK-VALUE.")  # fmt: skip
@reporting
def key_accept(home: Path, session: Path | None, batch: str, letter: Path | None) -> None:
    """Accept a factory's keys: what its letter says of each is typed here and compared.

    Example: centre key accept B20261124
    """
    desk = Desk(home, session)
    staged = [
        a
        for a in desk.ask("ListActs", pb.ActsRequest(everything=True)).acts
        if (a.kind, a.subject) == (ActKind.KEY_ACCEPT_TEMPORARY, batch)
    ]
    if not staged:
        click.echo(f"没有待接收的密钥 no keys of {batch} wait: centre key stage FILE", err=True)
        raise SystemExit(REFUSED)
    _confirm(home, desk, staged[-1], letter, None)


@act.command("confirm")
@home_option
@session_option
@click.argument("act_id", metavar="ACT")
@file_option
@reporting
def act_confirm(home: Path, session: Path | None, act_id: str, component_file: Path | None) -> None:
    """Confirm what another person proposed; it is done then.

    For an act on components yours are made, or asked for, here. Example: centre act confirm A000003
    """
    desk = Desk(home, session)
    (found,) = desk.ask("ListActs", pb.ActsRequest(act_id=act_id)).acts
    _confirm(home, desk, found, None, component_file)


def _confirm(
    home: Path, desk: Desk, found: pb.Act, letter: Path | None, component_file: Path | None
) -> None:
    content = json.loads(found.content)
    request = pb.Confirmation(act_id=found.act_id)
    if found.state == "proposed" and found.kind in COMPONENTS:
        wanted = [Wanted(k, u, content["suite"], 2) for u, k in content["labels"].items()]
        brought = _bring(found.kind, wanted, component_file)
        pem = load(home).transport_public_key.read_bytes()
        request.parts.extend(components.sealed(brought, pem))
    if found.state == "proposed" and found.kind == ActKind.KEY_ACCEPT_TEMPORARY:
        request.check_values.update(_letter(list(content["labels"]), letter))
    if found.state == "proposed" and found.kind == ActKind.CARD_SCRAP:
        request.scanned = scanned(found.subject)
    tell(_send(desk, "Confirm", request, found.kind, component_file))


def _letter(usages: list[str], file: Path | None) -> dict[str, str]:
    """What the factory's letter says of each key."""
    if file is not None:
        rows = [line.split() for line in file.read_text("utf-8").splitlines() if line.strip()]
        return {row[0]: row[-1].upper() for row in rows}
    return {
        usage: click.prompt(
            f"密钥函上 {usage} 的校验值 check value in the letter", err=True
        ).strip()
        for usage in usages
    }


@key.command("export")
@home_option
@session_option
@click.argument("key_set", metavar="SET")
@version_option
@kek_option
@reporting
def key_export(home: Path, session: Path | None, key_set: str, version: int, kek: int) -> None:
    """Export a version under a KEK into the centre's exchange/.

    Example: centre key export bank:102:transport --version 1
    """
    propose(Desk(home, session), ActKind.KEY_EXPORT, key_set, version=version, kek_version=kek)


@key.command("backup")
@home_option
@session_option
@kek_option
@reporting
def key_backup(home: Path, session: Path | None, kek: int) -> None:
    """Back up the token under a KEK into exchange/; data and temporary keys stay out.

    Example: centre key backup
    """
    propose(Desk(home, session), ActKind.KEY_BACKUP, "token", kek_version=kek)


@key.command("restore")
@home_option
@session_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@reporting
def key_restore(home: Path, session: Path | None, file: Path) -> None:
    """Bring the keys of a backup or an export back; every check value is compared.

    The KEK comes first, in components (`centre key import kek`).
    Example: centre key restore backup-A000012.json
    """
    propose(Desk(home, session), ActKind.KEY_RESTORE, "token", block=file.read_bytes())


@key.command("inventory")
@home_option
@session_option
@json_option
@reporting
def key_inventory(home: Path, session: Path | None, as_json: bool) -> None:
    """Every key in the token: state, check value, cards that need it.

    Example: centre key inventory
    """
    reply = Desk(home, session).ask("ListKeys", pb.Nothing())
    rows: list[dict[str, Any]] = [
        {c: getattr(k, c) for c in (*KEY_COLUMNS, "usage", "version")} for k in reply.keys
    ]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        show.table("密钥清单 keys", rows, KEY_COLUMNS)
