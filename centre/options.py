"""What the commands share: the home they speak of, exit codes, and how faults are told.

Exit codes: 0 done; 1 refused, or something does not fit; 2 wrong use or configuration;
3 the centre is not up or does not answer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
import grpc

from centre.config import LEDGER, Config, ConfigError
from centre.running import NotUp
from domain.changes import Away
from domain.provider import ProviderError
from ledger.connection import LedgerUnusable
from ledger.database import Held
from ledger.queries import Queries

REFUSED, WRONG_USE, AWAY = 1, 2, 3

F = TypeVar("F", bound=Callable[..., Any])


def _home(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path:
    from centre.running import last_home

    home = value or last_home()
    if home is None:
        raise click.UsageError("no --home given, and no demo was run before")
    return home


home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    callback=_home,
    help="The centre's home (default: the last demo's).",
)


ledger_option = click.option(
    "--ledger", metavar="URL", default=LEDGER, show_default=True,
    help="Where the ledger of a new home lives, as in [ledger] url; a database must be empty.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="For machines.")


def reporting(command: F) -> F:
    """Turn what can go wrong into one line and an exit code."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (ConfigError, LedgerUnusable) as e:
            click.echo(str(e), err=True)
            sys.exit(WRONG_USE)
        except Held as e:
            click.echo(f"台账已有总机 the ledger has a head: {e}", err=True)
            sys.exit(REFUSED)
        except ProviderError as e:
            click.echo(f"加密机无法打开 the token does not open: {e}; `centre doctor`", err=True)
            sys.exit(AWAY)
        except Away as e:
            click.echo(f"暂不可用 away: {e}; `centre doctor`", err=True)
            sys.exit(AWAY)
        except NotUp as e:
            click.echo(str(e), err=True)
            sys.exit(AWAY)
        except grpc.RpcError as e:
            # What grpc raises is both an RpcError and a Call, which its type stubs do not know.
            code = e.code().name if hasattr(e, "code") else "UNKNOWN"
            click.echo(f"中心无应答 the centre does not answer ({code}); try again", err=True)
            sys.exit(AWAY)

    return wrapped  # type: ignore[return-value]  # the same signature


class reading:
    """Queries that are closed at the end."""

    def __init__(self, config: Config) -> None:
        self._queries = Queries(config.ledger)

    def __enter__(self) -> Queries:
        return self._queries

    def __exit__(self, *_: object) -> None:
        self._queries.close()
