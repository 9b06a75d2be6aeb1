"""`centre backup`, `centre restore`: copies of the ledger, their register, and the way back."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import click

from centre import running, show
from centre.config import Config, load
from centre.options import REFUSED, home_option, json_option, reading, reporting
from domain.lines import BackupMade
from ledger.keeping import LEDGER, TOKEN, Backup, backups

CALL_SECONDS = 60.0
COLUMNS = {
    "backup_id": "备份 backup", "at": "时间 made at", "holds": "内容 holds", "place": "位置 place",
    "expires_on": "保存至 kept until", "state": "状态 state",
    "readable": "已销毁批次 destroyed batches in it",
}  # fmt: skip


class OutOrCommand(click.Group):
    """`centre backup OUT` is `centre backup make OUT`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = {*self.commands, *ctx.help_option_names}
        if args and not named & {*args}:
            args = ["make", *args]
        return super().parse_args(ctx, args)


@click.group(cls=OutOrCommand)
def backup() -> None:
    """Copy the ledger while the floor runs, and keep the register of copies.

    Example: centre backup /mnt/safe/2026-11-24; centre backup list
    """


@backup.command()
@home_option
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--keys", is_flag=True, help="The token's folder too: it has the data keys.")
@reporting
def make(home: Path, out: Path, keys: bool) -> None:
    """Write a backup to the new folder OUT: ledger, signed heads, configuration, public keys.

    It is listed in the ledger before it is written. Keys stay out; with --keys, whoever has the
    copy, its ledger and the PIN reads what it seals, until all copies are destroyed.
    Example: centre backup /mnt/safe/2026-11-24
    """
    from centre.backup import BackupRefused, make_backup
    from centre.wiring import now

    config, out = load(home), out.absolute()
    at = now()
    holds = (LEDGER, TOKEN) if keys else (LEDGER,)
    made = _made(config, str(out), holds, at)
    if out.exists():
        _refuse(f"{out} 已存在 is there already")
    _record(config, made)
    try:
        manifest = make_backup(config, out, made, at, token=keys)
    except BackupRefused as e:
        _remove(config, made.backup_id)
        _refuse(str(e))
    except Exception:  # whatever it was: no copy stays (it is written whole or not at all)
        _remove(config, made.backup_id)
        raise
    commits = sum(int(link["number"]) for link in manifest.links)
    click.echo(
        f"备份 backup {made.backup_id}: {out}, {manifest.size} 字节 bytes, {commits} 提交 commits,"
        f" 保存至 kept until {made.expires_on}"
    )


@backup.command()
@home_option
@click.argument("place")
@click.option("--ledger", is_flag=True, help="A copy of the ledger.")
@click.option("--keys", is_flag=True, help="A copy of the token's folder.")
@reporting
def note(home: Path, place: str, ledger: bool, keys: bool) -> None:
    """List a copy that was made by other means, at PLACE, so that it is not forgotten.

    Example: centre backup note "tape 7, safe 2" --keys
    """
    from centre.wiring import now

    holds = tuple(what for what, is_in in ((LEDGER, ledger), (TOKEN, keys)) if is_in)
    if not holds:
        raise click.UsageError("--ledger, --keys, or both")
    config = load(home)
    made = _made(config, place, holds, now())
    _record(config, made)
    click.echo(f"已登记 listed: {made.backup_id}, 保存至 kept until {made.expires_on}")


@backup.command("list")
@home_option
@json_option
@reporting
def list_(home: Path, as_json: bool) -> None:
    """The copies that may exist, until when they are kept, and what can be read with them.

    Exit code 1 if one is to be destroyed. Example: centre backup list
    """
    with reading(load(home)) as queries:
        rows = backup_facts(backups(queries), date.today())
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        show.table(
            "备份 backups",
            [{**r, "holds": ", ".join(r["holds"]), "readable": _readable(r)} for r in rows],
            COLUMNS,
        )
    sys.exit(REFUSED if any(r["state"].endswith("overdue") for r in rows) else 0)


@backup.command()
@home_option
@click.argument("backup_id")
@reporting
def remove(home: Path, backup_id: str) -> None:
    """Destroy a backup (if its folder is here), and take it off the list.

    A copy on other media is destroyed by whoever keeps it: only then is it removed.
    Example: centre backup remove B20261124T180312Z-3f
    """
    from centre.backup import BackupRefused, read_manifest

    config = load(home)
    with reading(config) as queries:
        found = [b for b in backups(queries) if b.backup_id == backup_id]
    if found and Path(found[0].place).is_dir():
        folder = Path(found[0].place)
        try:
            if read_manifest(folder).backup_id == backup_id:
                shutil.rmtree(folder)
                click.echo(f"已删除 deleted {folder}")
        except BackupRefused as e:
            _refuse(f"{e}; 请人工销毁 destroy it by hand, then move what is left")
    click.echo(json.dumps(_remove(config, backup_id), ensure_ascii=False))


@click.command()
@click.argument("backup", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--home", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--ledger", metavar="URL", help="Another database than the backup's [ledger] url.")
@click.option(
    "--heads", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The newest head file that is left (heads.jsonl): says what the backup does not have.",
)  # fmt: skip
@click.option("--accept-loss", is_flag=True, help="Go on without what the heads name.")
@reporting
def restore(
    backup: Path, home: Path, ledger: str | None, heads: Path | None, accept_loss: bool
) -> None:
    """Bring a centre back out of BACKUP into the new folder --home, and verify it.

    The token is not in it: bring keys/ of the old home (or a copy), or make one with `centre init`
    and `centre key restore`. What was committed after the backup is told by the newest heads.
    Example: centre restore /mnt/safe/2026-11-24 --home /srv/centre --heads /old/heads.jsonl
    """
    from centre.backup import BackupRefused, restore
    from centre.wiring import now

    try:
        back = restore(
            backup, home.absolute(), now, ledger=ledger, newest=heads, accept_loss=accept_loss
        )
    except BackupRefused as e:
        _refuse(str(e))
    show.report(back.report)
    _tell_lost(back.lost)
    if back.lost and not back.accepted:
        click.echo(
            "须由人确认 a person decides (docs/retention.md):"
            f" centre up --accept-loss --home {home}"
        )
        sys.exit(REFUSED)
    click.echo(f"已恢复 restored {home}；下一步 next: keys/, centre doctor, centre up")


def accept_loss(config: Config) -> None:
    """Of `centre up --accept-loss`."""
    from centre.backup import BackupRefused, accept
    from centre.wiring import now

    try:
        _tell_lost(accept(config, now))
    except BackupRefused as e:
        _refuse(str(e))


def backup_facts(found: Sequence[Backup], today: date) -> list[dict[str, Any]]:
    """The fields of `Backup` and its `state`, of each."""
    return [{**vars(b), "state": _state(b, today)} for b in found]


def _state(b: Backup, today: date) -> str:
    if b.is_over(today):
        return "到期应销毁 overdue"
    return "保存中 kept"


def _readable(row: dict[str, Any]) -> str:
    if not row["destroyed"]:
        return ""
    if TOKEN in row["holds"]:
        return f"{row['destroyed']}: 含其数据密钥 has their data keys"
    by = ", ".join(row["readable_with"])
    how = f"可用以下副本解封 opens with {by}" if by else "不可读 unreadable"
    return f"{row['destroyed']}: {how}"


def _made(config: Config, place: str, holds: tuple[str, ...], at: str) -> BackupMade:
    day = datetime.fromisoformat(at).date() + timedelta(days=config.backup_days)
    stamp = re.sub(r"[-:]|\..*", "", at)
    # Two in one second have two names.
    return BackupMade(f"B{stamp}Z-{secrets.token_hex(2)}", place, holds, day.isoformat())


def _record(config: Config, made: BackupMade) -> None:
    from actors.keeping import decide_backup
    from stubs.operator_pb2 import BackupToRecord

    request = BackupToRecord(
        backup_id=made.backup_id, place=made.place, holds=made.holds, expires_on=made.expires_on
    )
    _say(config, "RecordBackup", request, decide_backup(made))


def _remove(config: Config, backup_id: str) -> dict[str, Any]:
    from actors.keeping import decide_removed
    from stubs.operator_pb2 import BackupToRemove

    with reading(config) as queries:
        if all(b.backup_id != backup_id for b in backups(queries)):
            _refuse(f"无此备份 no such backup: {backup_id}; centre backup list")
    _say(config, "RemoveBackup", BackupToRemove(backup_id=backup_id), decide_removed(backup_id))
    return {"backup_id": backup_id, "removed": True}


def _say(config: Config, method: str, request: Any, writing: Any) -> None:
    """Through the door of a centre that is up; of one that is down, straight into its ledger."""
    import grpc

    from centre.backup import commit_alone
    from centre.wiring import now
    from stubs.operator_pb2_grpc import OperatorStub

    lock = running.take_home(config.home)
    if lock is not None:
        try:
            commit_alone(config, writing, now)
        finally:
            os.close(lock)
        return
    with grpc.insecure_channel(running.door_of(config.home)) as channel:
        receipt = getattr(OperatorStub(channel), method)(
            request, timeout=CALL_SECONDS, wait_for_ready=True
        )
    if not receipt.accepted:
        _refuse(json.dumps(show.receipt(receipt), ensure_ascii=False))


def _tell_lost(lost: Sequence[Any]) -> None:
    for item in lost:
        click.echo(
            f"缺失 lost: {item.line} {item.first}–{item.last}, {item.commits} 提交 commits,"
            f" 末次 last at {item.at}"
        )


def _refuse(words: str) -> NoReturn:
    click.echo(words, err=True)
    sys.exit(REFUSED)
