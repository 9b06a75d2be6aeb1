"""The commands of people with accounts: logging in, who there is, acts of two."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import click

from centre import show
from centre.config import load
from centre.desk import Desk, ask_hidden, session_option, terminal
from centre.options import home_option, json_option, reading, reporting
from domain.custody import ROLE_WORDS, ActKind, Role
from ledger.people import has_founders
from stubs import custody_pb2 as pb

ACT_COLUMNS = {
    "act_id": "事项 act", "kind": "种类 kind", "subject": "对象 subject", "state": "状态 state",
    "proposed_by": "提出 proposed by", "confirmed_by": "确认 confirmed by",
}  # fmt: skip


@click.command()
@home_option
@session_option
@click.argument("name")
@reporting
def login(home: Path, session: Path | None, name: str) -> None:
    """Log in on this terminal; the password is typed hidden, or one line of a pipe.

    The session ends by `centre logout`, or when it is not used for a while ([people]).
    Example: centre login wang
    """
    desk = Desk(home, session)
    password = ask_hidden("密码 password")
    request = pb.LoginRequest(name=name, password=password, terminal=terminal())
    reply = desk.ask("LogIn", request)
    desk.keep(reply.session_token)
    click.echo(f"已登录 logged in: {name}, {reply.sessions[0].session}")
    if desk.ask("WhoAmI", pb.Nothing()).people[0].password_to_change:
        click.echo("密码须先由本人更改 change your password first: centre people passwd")


@click.command()
@home_option
@session_option
@reporting
def logout(home: Path, session: Path | None) -> None:
    """End the login session of this terminal. Example: centre logout"""
    desk = Desk(home, session)
    desk.ask("LogOut", pb.Nothing())
    desk.forget()
    click.echo("已退出 logged out")


@click.command()
@home_option
@session_option
@reporting
def whoami(home: Path, session: Path | None) -> None:
    """Who is logged in on this terminal, with which roles. Example: centre whoami"""
    reply = Desk(home, session).ask("WhoAmI", pb.Nothing())
    (person,), (mine,) = reply.people, reply.sessions
    click.echo(f"{person.name}: {_roles(person.roles)}; {mine.session} since {mine.since}")


def _roles(roles: Any) -> str:
    return ", ".join(f"{ROLE_WORDS[r]} {r}" for r in roles)


@click.group()
def people() -> None:
    """People: accounts and roles. Adding and changing one takes two supervisors."""


role_option = click.option(
    "--role", "roles", multiple=True, required=True, type=click.Choice([str(r) for r in Role])
)


@people.command("add")
@home_option
@session_option
@click.argument("name")
@role_option
@reporting
def people_add(home: Path, session: Path | None, name: str, roles: tuple[str, ...]) -> None:
    """Add a person, who types a first password here, hidden, and changes it at their own terminal
    (`centre people passwd`) before anything else.

    The owner of the home adds the first two supervisors alone; from then on two supervisors add
    everybody: one runs this, the other `centre act confirm`.
    Example: centre people add wang --role key_custodian
    """
    config, desk = load(home), Desk(home, session)
    with reading(config) as queries:
        founding = not has_founders(queries)
    password = ask_hidden(f"{name} 的密码 password of {name}", twice=True)
    if founding:
        if roles != (Role.SUPERVISOR,):
            raise click.UsageError("两名主管在先 the first two people are supervisors")
        try:
            proof = config.owner_file.read_text(encoding="ascii")
        except OSError:
            proof = ""
        desk.ask("Found", pb.Founding(name=name, password=password, proof=proof))
        click.echo(f"已增加主管 added supervisor {name}")
        return
    propose(desk, ActKind.PEOPLE_ADD, name, roles=roles, password=password)


@people.command("roles")
@home_option
@session_option
@click.argument("name")
@role_option
@reporting
def people_roles(home: Path, session: Path | None, name: str, roles: tuple[str, ...]) -> None:
    """Give a person these roles and no others. Example: centre people roles wang --role operator"""
    propose(Desk(home, session), ActKind.PEOPLE_ROLES, name, roles=roles)


@people.command("reset")
@home_option
@session_option
@click.argument("name")
@reporting
def people_reset(home: Path, session: Path | None, name: str) -> None:
    """A forgotten password: its owner types another one here, and changes it at their own terminal.
    Example: centre people reset wang"""
    password = ask_hidden(f"{name} 的密码 password of {name}", twice=True)
    propose(Desk(home, session), ActKind.PEOPLE_PASSWORD, name, password=password)


@people.command("close")
@home_option
@session_option
@click.argument("name")
@reporting
def people_close(home: Path, session: Path | None, name: str) -> None:
    """Close an account; its sessions end with it. Example: centre people close wang"""
    propose(Desk(home, session), ActKind.PEOPLE_CLOSE, name)


@people.command("passwd")
@home_option
@session_option
@reporting
def people_passwd(home: Path, session: Path | None) -> None:
    """Change your own password; your other sessions end. Example: centre people passwd"""
    old = ask_hidden("现密码 present password")
    change = pb.PasswordChange(old=old, new=ask_hidden("新密码 new password", twice=True))
    Desk(home, session).ask("ChangePassword", change)
    click.echo("密码已更改 password changed")


@people.command("list")
@home_option
@session_option
@json_option
@reporting
def people_list(home: Path, session: Path | None, as_json: bool) -> None:
    """Everybody: roles, wrong passwords in a row, open sessions. Example: centre people list"""
    reply = Desk(home, session).ask("ListPeople", pb.Nothing())
    sessions = {p.name: [s.session for s in reply.sessions if s.name == p.name]
                for p in reply.people}  # fmt: skip
    rows = [
        {"name": p.name, "roles": list(p.roles), "state": p.state, "failures": p.failures,
         "password_to_change": p.password_to_change, "sessions": sessions[p.name]}
        for p in reply.people
    ]  # fmt: skip
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    show.table(
        "人员 people",
        [{**r, "roles": _roles(r["roles"]), "sessions": ", ".join(sessions[str(r["name"])])}
         for r in rows],
        {"name": "姓名 name", "roles": "角色 roles", "state": "状态 state",
         "failures": "密码错误 wrong passwords", "sessions": "登录 sessions"},
    )  # fmt: skip


@click.group()
def act() -> None:
    """Acts of two people: one proposes (`centre key …`, `centre people …`), another confirms."""


@act.command("list")
@home_option
@session_option
@click.option("--all", "everything", is_flag=True, help="Also those that are over.")
@json_option
@reporting
def act_list(home: Path, session: Path | None, everything: bool, as_json: bool) -> None:
    """Acts that wait for a second person. Example: centre act list --all"""
    reply = Desk(home, session).ask("ListActs", pb.ActsRequest(everything=everything))
    if as_json:
        click.echo(json.dumps([as_dict(a) for a in reply.acts], ensure_ascii=False))
    else:
        show.table("事项 acts", [as_dict(a) for a in reply.acts], ACT_COLUMNS)


@act.command("show")
@home_option
@session_option
@click.argument("act_id", metavar="ACT")
@json_option
@reporting
def act_show(home: Path, session: Path | None, act_id: str, as_json: bool) -> None:
    """What an act is about, and what came of it. Example: centre act show A000003"""
    (found,) = Desk(home, session).ask("ListActs", pb.ActsRequest(act_id=act_id)).acts
    click.echo(json.dumps(as_dict(found), ensure_ascii=False, indent=None if as_json else 1))


@act.command("withdraw")
@home_option
@session_option
@click.argument("act_id", metavar="ACT")
@reporting
def act_withdraw(home: Path, session: Path | None, act_id: str) -> None:
    """Take back an act that nobody has confirmed. Example: centre act withdraw A000003"""
    tell(Desk(home, session).ask("Withdraw", pb.ActId(act_id=act_id)))


def propose(desk: Desk, kind: str, subject: str, **more: Any) -> None:
    """Propose an act and say who is needed next."""
    proposal = pb.Proposal(command_id=secrets.token_hex(8), kind=str(kind), subject=subject, **more)
    tell(desk.ask("Propose", proposal))


def tell(reply: pb.CustodyReply) -> None:
    """How the act stands, what came of it, and what is next."""
    (found,) = reply.acts
    click.echo(f"{found.act_id} {found.kind} {found.subject}: {found.state}")
    for usage, value in json.loads(found.content).get("check_values", {}).items():
        click.echo(f"  {usage} {value}")
    for label, value in json.loads(found.result).get("check_values", {}).items():
        click.echo(f"  {label} {value}")
    if found.state == "proposed":
        click.echo(f"下一步由另一人 next, another person: centre act confirm {found.act_id}")
    elif found.state == "confirmed":
        click.echo("尚未完成，稍后自动完成 not done yet: it is finished by itself, see log/")


def as_dict(found: pb.Act) -> dict[str, Any]:
    columns = ("act_id", "kind", "subject", "state", "proposed_by", "proposed_in",
               "confirmed_by", "confirmed_in")  # fmt: skip
    texts = {c: json.loads(getattr(found, c)) for c in ("content", "result")}
    return {**{c: getattr(found, c) for c in columns}, **texts}
