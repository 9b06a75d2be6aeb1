"""What the doctor says of personal data whose time is over, and of copies that are still about."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import date, datetime
from pathlib import Path

from centre.config import Config
from centre.findings import Finding, State
from ledger.keeping import TOKEN, backups, overdue
from ledger.queries import Queries
from scheduler.clocks import CHINA

DAY_SECONDS = 86_400.0


def retention(config: Config) -> Finding:
    """Nothing is kept longer than it may be; what waits in the inbox counts."""
    words = "个人信息期限 retention"
    today = datetime.now(CHINA).date()
    with closing(Queries(config.ledger)) as queries:
        over = overdue(queries, today)
    waiting = [k.batch_id for k in over if k.open is not None]
    old = _old_files(config.inbox, config.personal_data_days)
    due = len(over) - len(waiting)
    said = [
        f"{len(waiting)} 批到期未结 open and over: {', '.join(waiting[:3])}" if waiting else "",
        f"{due} 批待销毁 to be destroyed" if due else "",
        f"inbox/: {old} 个过期文件 files that could not be taken" if old else "",
    ]
    note = "; ".join(filter(None, said)) or "无到期 nothing is over"
    mend = "办结批次 centre batch BATCH; centre up" if over else "处理 settle inbox/" if old else ""
    return Finding("retention", words, State.NOTICE if over or old else State.OK, note, mend)


def _old_files(inbox: Path, days: int) -> int:
    oldest = time.time() - days * DAY_SECONDS
    files = [p for p in inbox.iterdir() if p.is_file()] if inbox.exists() else []
    return sum(p.stat().st_mtime < oldest for p in files)


def copies(config: Config) -> Finding:
    """Copies that are past their day, and copies of the token that outlive keys."""
    with closing(Queries(config.ledger)) as queries:
        listed = backups(queries)
    late = [b.backup_id for b in listed if b.is_over(date.today())]
    with_keys = [b for b in listed if TOKEN in b.holds and b.destroyed]
    said = [
        f"{len(listed)} 份 listed",
        f"到期应销毁 to be destroyed: {', '.join(late[:3])}" if late else "",
        *(f"{b.backup_id}: 含已销毁批次的密钥至 keys until {b.expires_on}" for b in with_keys[:3]),
    ]
    bad = late or with_keys
    mend = "销毁后 then: centre backup remove BACKUP" if bad else ""
    state = State.NOTICE if bad else State.OK
    return Finding("backups", "备份 backups", state, "; ".join(filter(None, said)), mend)
