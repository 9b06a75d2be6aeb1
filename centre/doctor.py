"""`centre doctor`: every part of a centre, whether it is there, set up and reachable, and the
command that mends it. Looks only; works while the centre is up and while it is not."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pyodbc

from actors.hsm import labels
from actors.hsm.formal_sets import FormalSets
from actors.hsm.key_places import KeyPlaces
from actors.hsm.pkcs11_provider import known_answers, operations
from actors.hsm.self_test import run_self_test
from actors.hsm.token import KeyToken
from centre import machine
from centre.config import Config, ConfigError, load
from centre.doctor_keeping import copies, retention
from centre.doctor_machines import exposed, machines, ray_token
from centre.doctor_people import apart, keys, pin, standing
from centre.findings import Finding, State
from centre.running import state_of
from centre.watch import ask_floor
from centre.wiring import make_masters, now, token_config
from domain.card.profile import load_profile
from domain.changes import Away
from domain.provider import ProviderError, Where
from ledger.connection import LedgerUnusable, connect
from ledger.progress import open_outbox
from ledger.queries import Queries
from ledger.schema import VERSION
from ledger.sqlite import driver
from ledger.summary import seconds_between
from stubs.operator_pb2 import FloorState

ASK_SECONDS = 3.0
LEAST_FREE_BYTES = 2 * 2**30
OUTBOX_SECONDS = 300.0
CLOCK_SECONDS = 5.0
SEEN_SECONDS = 60.0


@dataclass(frozen=True)
class Diagnosis:
    findings: Sequence[Finding]
    ports: Sequence[machine.Port]

    @property
    def well(self) -> bool:
        return all(f.state is not State.MEND for f in self.findings)

    def as_json(self) -> dict[str, Any]:
        """`well`, `parts` (the fields of Finding) and `ports` (process, address, port, close)."""
        return {
            "well": self.well,
            "parts": [asdict(f) for f in self.findings],
            "ports": [{**asdict(p), "close": p.exposed} for p in self.ports],
        }


# Part, words, file by which it is there, Debian's package, whether a centre can do without it.
SYSTEM_FILES = (
    ("pcscd", "读卡服务 PC/SC service", "/usr/sbin/pcscd", "pcscd", False),
    ("vpcd", "虚拟读卡器驱动 virtual readers",
     "/usr/lib/pcsc/drivers/serial/libifdvpcd.so", "vsmartcard-vpcd", False),
    ("font_cjk", "中文字体 CJK font",
     "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc", "fonts-noto-cjk", False),
    ("font_rare", "生僻字字体 font of rare characters",
     "/usr/share/fonts/truetype/hanazono/HanaMinB.ttf", "fonts-hanazono", False),
    ("prometheus", "监控 Prometheus", "/usr/bin/prometheus", "prometheus", True),
)  # fmt: skip


def examine(home: Path | None) -> Diagnosis:
    """Look at the machine, and at the centre of `home` if one is given."""
    findings = list(_machine())
    ports: list[machine.Port] = machine.ports(machine.named("pcscd"))
    others: list[str] = []
    if home is None:
        findings.append(_no_home())
    else:
        config = _config(home, findings)
        if config is not None:
            findings += _home(config)
            state = state_of(config.home)
            if state is None:
                findings.append(_down(config))
            else:
                ports += machine.ports(machine.descendants(state["pid"]))
                if len(state["machines"]) > 1:
                    others = sorted(set(state["machines"].values()))
                findings += _running(config, state, ports)
    findings.append(exposed(ports, others))
    return Diagnosis(findings, ports)


def _machine() -> Iterator[Finding]:
    yield _packages()
    for part, words, path, package, optional in SYSTEM_FILES:
        there = Path(path).exists()
        absent = State.ABSENT if optional else State.MEND
        mend = "" if there else f"apt-get install {package}"
        yield Finding(part, words, State.OK if there else absent, path, mend, present=there)
    try:
        yield Finding("odbc", "ODBC 驱动 SQLite driver", State.OK, driver(), present=True)
    except LedgerUnusable as e:
        mend = "apt-get install libsqliteodbc"
        yield Finding("odbc", "ODBC 驱动 SQLite driver", State.MEND, str(e), mend, present=False)
    yield _clock()


def _packages() -> Finding:
    words = "程序库 Python packages"
    try:
        wanted = metadata.requires("card-centre") or []
    except metadata.PackageNotFoundError:
        return Finding("packages", words, State.MEND, "not installed", "make setup", present=False)
    names = [w.partition(";")[0].strip() for w in wanted if "extra ==" not in w]
    missing = [n for n in names if not _is_installed(n)]
    note = f"缺少 missing: {', '.join(missing)}" if missing else f"{len(names)}"
    state, mend = (State.MEND, "make setup") if missing else (State.OK, "")
    return Finding("packages", words, state, note, mend, present=not missing)


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _clock() -> Finding:
    kept = machine.clock_is_set()
    note = "未与时间源同步 nothing keeps it" if kept is False else now()
    state, mend = (State.NOTICE, "apt-get install chrony") if kept is False else (State.OK, "")
    return Finding("clock", "时钟 clock", state, note, mend, configured=kept)


def _no_home() -> Finding:
    return Finding(
        "configuration",
        "配置 configuration",
        State.DOWN,
        "no --home given",
        "centre init --home DIR",
    )


def _config(home: Path, findings: list[Finding]) -> Config | None:
    words = "配置 configuration"
    try:
        config = load(home)
        load_profile(config.profile)
    except (ConfigError, ValueError, OSError) as e:
        file = home / "centre.toml"
        mend = f"编辑 edit {file}" if file.exists() else f"centre init --home {home}"
        findings.append(Finding("configuration", words, State.MEND, str(e), mend, configured=False))
        return None
    note = str(config.home / "centre.toml")
    findings.append(Finding("configuration", words, State.OK, note, configured=True))
    return config


def _home(config: Config) -> Iterator[Finding]:
    yield _guarded("ledger", "台账 ledger", f"centre init --home {config.home}", _ledger, config)
    yield _guarded("token", "加密机 token", _token_mend(config), _token, config)
    yield _guarded("keys", "密钥与台账 keys and ledger", _token_mend(config), keys, config)
    yield _operations(config)
    yield pin(config)
    yield _guarded("people", "人员 people", "centre people list", standing, config)
    yield _guarded("keys", "密钥与台账 keys and ledger", _token_mend(config), keys, config)
    yield _guarded("retention", "个人信息期限 retention", "centre up", retention, config)
    yield _guarded("backups", "备份 backups", "centre backup list", copies, config)
    yield _guarded("custodians", "保管员账户 custodians", "centre people list", apart, config)
    free = shutil.disk_usage(config.home).free
    low = free < LEAST_FREE_BYTES
    yield Finding(
        "disk", "磁盘 disk", State.MEND if low else State.OK, f"{free / 2**30:.1f} GiB free",
        "腾出空间 free some: return/, log/" if low else "",
    )  # fmt: skip


def _token_mend(config: Config) -> str:
    """What opens a token again: a PIN that others may read is not used, a missing one is made."""
    if config.pin_file.exists() and config.pin_file.stat().st_mode & 0o177:
        return f"chmod 600 {config.pin_file}"
    return f"centre init --home {config.home}"


def _guarded(
    part: str, words: str, mend: str, look: Callable[[Config], Finding], config: Config
) -> Finding:
    """What `look` finds, or the fault that it met."""
    try:
        return look(config)
    except (LedgerUnusable, ProviderError) as e:
        return Finding(part, words, State.MEND, str(e), mend, reachable=False)
    except Away as e:
        mend = "systemctl start postgresql"
        return Finding(part, words, State.MEND, str(e), mend, reachable=False)
    except (pyodbc.Error, OSError) as e:
        return Finding(part, words, State.MEND, type(e).__name__, mend, reachable=False)


def _ledger(config: Config) -> Finding:
    """Opens it as the committing process does, which asserts durability; writes nothing."""
    connect(config.ledger, write=False).close()  # makes no file where there is none
    connection = connect(config.ledger, write=True)
    try:
        if not connection.value(connection.database.present):
            raise LedgerUnusable("there is no ledger in the database")
        version = connection.value("select version from ledger_version")
        last = connection.value("select max(at) from commit_link")
        standing = connection.database.standing(connection)
    finally:
        connection.close()
    if version != VERSION:
        raise LedgerUnusable(f"the ledger has schema {version}, this program knows {VERSION}")
    if last and seconds_between(now(), last) > CLOCK_SECONDS:
        return Finding(
            "ledger", "台账 ledger", State.MEND,
            f"末次记账在未来 last commit in the future: {last}",
            "核对时钟 set the clock right", present=True, configured=True, reachable=True,
        )  # fmt: skip
    note = f"{standing}, schema {version}"
    return Finding(
        "ledger", "台账 ledger", State.OK, note, present=True, configured=True, reachable=True
    )


def _token(config: Config) -> Finding:
    """Opens a session of its own, runs the known answers, and counts keys by their labels."""
    profile = load_profile(config.profile)
    with KeyToken(token_config(config)) as token:
        masters = make_masters(config, token)
        held = [entry.label for entry in KeyPlaces(token, masters, profile).inventory()]
        version = FormalSets(masters, (slot.usage for slot in profile.keys)).active
        answers = known_answers(masters)
        tested = len(list(run_self_test(token.session, answers)))
        masters.forget()
    missing = sorted(set(labels.OWN) - set(held))
    kinds = Counter(label.partition(":")[0] for label in held)
    keys = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
    note = (
        f"会话 sessions {config.sessions}; 自检 self test {tested}/{len(answers)};"
        f" 密钥 keys: {keys}"
    )
    note += (
        f"; 正式密钥 formal keys: v{version}" if version
        else "; 无启用的正式密钥 no formal keys are active"
    )  # fmt: skip
    if missing:
        note += f"; 缺少 missing: {', '.join(missing)}"
    return Finding(
        "token", "加密机 token", State.MEND if missing else State.OK, note,
        f"centre init --home {config.home}" if missing else "",
        present=True, configured=not missing, reachable=True, software_assisted=True,
    )  # fmt: skip


def _operations(config: Config) -> Finding:
    """Where the configured provider does what it does; nothing is opened for it."""
    done = operations(make_masters(config, KeyToken(token_config(config))))
    software = [o.name for o in done if o.where is Where.SOFTWARE]
    if config.software_assisted:
        note = f"机内 in the token {len(done) - len(software)}；软件辅助 in memory {len(software)}"
    else:
        note = f"禁止软件辅助，停用 forbidden in memory, these stop: {', '.join(software)}"
    return Finding(
        "operations", "密钥操作 key operations",
        State.OK if config.software_assisted or not software else State.NOTICE, note,
        configured=True, software_assisted=config.software_assisted and bool(software),
        operations=done,
    )  # fmt: skip


def _down(config: Config) -> Finding:
    left = (config.run / "state.json").exists()
    note = "上次未正常停止，续跑即可 it was killed; it goes on where it was" if left else ""
    return Finding(
        "centre", "制卡中心 centre", State.DOWN, note, f"centre up --home {config.home}",
        reachable=False,
    )  # fmt: skip


def _running(
    config: Config, state: dict[str, Any], ports: Sequence[machine.Port]
) -> Iterator[Finding]:
    yield Finding("centre", "制卡中心 centre", State.OK, f"pid {state['pid']}", reachable=True)
    yield machines(state)
    for name, health in state["actors"].items():
        ready = health["state"] == "ready"
        host, _, home = (health["machine"] or f":{config.home}").partition(":")
        log = f"less {home}/log/{name}.log" + (f" (on {host})" if host else "")
        yield Finding(
            f"actor_{name}", f"部件 {name}", State.OK if ready else State.MEND,
            f"{health['state']} {health.get('note', '')}; {health['machine']}".strip(" ;"),
            "" if ready else log, reachable=ready,
        )  # fmt: skip
    yield ray_token(ports)
    floor = ask_floor(state["listen"])
    yield Finding(
        "doors", "接口 gateway doors", State.MEND if floor is None else State.OK, state["listen"],
        f"less {config.logs / 'gateway.log'}" if floor is None else "", reachable=floor is not None,
    )  # fmt: skip
    if floor is not None:
        yield _stations(floor)
    yield _outbox(config)


def _stations(floor: FloorState) -> Finding:
    here = [s for s in floor.stations if not s.seconds_away]
    lately = sum(any(r.seconds_since_turn < SEEN_SECONDS for r in s.readers) for s in here)
    note = (
        f"连接 connected {len(here)}, 断开 away {len(floor.stations) - len(here)},"
        f" 一分钟内有卡 at work within a minute {lately}"
    )
    mend = "" if here else "python -m station_agents --help"
    state = State.OK if len(here) == len(floor.stations) and here else State.NOTICE
    return Finding("stations", "工位 stations", state, note, mend, reachable=bool(here))


def _outbox(config: Config) -> Finding:
    queries = Queries(config.ledger)
    try:
        rows = open_outbox(queries)
    finally:
        queries.close()
    ages = [seconds_between(r["at"], now()) for r in rows if r["at"]]
    oldest = max(ages, default=0.0)
    note = f"待发 waiting {len(rows)}, 最久 oldest {oldest:.0f} s"
    late = oldest > OUTBOX_SECONDS
    return Finding(
        "outbox", "发件箱 outbox", State.MEND if late else State.OK, note,
        "centre watch --once" if late else "",
    )  # fmt: skip
