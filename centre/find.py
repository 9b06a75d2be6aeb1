"""From a number to its orders. The number is typed or piped in, looked up by its HMAC under a
token key, and stands nowhere: on no command line, in no log, in no answer."""

from __future__ import annotations

import sys
import unicodedata
from dataclasses import dataclass

import click
import grpc

from actors.hsm.token import write_softhsm_conf
from centre.config import Config
from centre.running import state_of
from centre.wiring import make_provider
from domain.codes import Code
from domain.factory_return import index_text
from domain.numbers import kinds_of_number
from ledger.queries import Queries
from stubs.operator_pb2 import FindByNumberRequest
from stubs.operator_pb2_grpc import OperatorStub

ANSWER_SECONDS = 20.0


@dataclass(frozen=True)
class Found:
    """`fault`: the check digit that is wrong, in words; `usable`: it may be another number."""

    order_ids: list[str]
    fault: str = ""
    usable: bool = True


def ask_number(*, visible: bool) -> str:
    """One number: asked on a terminal (hidden unless `visible`), else one line of stdin."""
    if sys.stdin.isatty():
        text = click.prompt(
            "身份证号、社保卡号或银行卡号 number", hide_input=not visible, err=True, type=str
        )
    else:
        text = sys.stdin.readline(1_000)
    return as_written(text)


def as_written(text: str) -> str:
    """A typed or scanned number as the ledger has it: full-width digits may come from an input
    method, blanks stand on a bank card's face."""
    plain = unicodedata.normalize("NFKC", text)
    return "".join(plain.split()).replace("-", "").upper()


def orders_of(config: Config, queries: Queries, number: str) -> Found:
    """The orders behind `number`. A centre that is up is asked, since its provider holds the
    token; else the token is opened here. Raises grpc.RpcError, ProviderError."""
    kinds, fault = kinds_of_number(number)
    if not kinds:
        return Found([], fault, usable=False)
    state = state_of(config.home)
    if state is not None:
        with grpc.insecure_channel(state["listen"]) as channel:
            answer = OperatorStub(channel).FindByNumber(
                FindByNumberRequest(number=number), timeout=ANSWER_SECONDS, wait_for_ready=True
            )
        return Found(list(answer.order_ids), answer.reason, usable=answer.code == Code.OK)
    write_softhsm_conf(config.conf.parent)
    values = make_provider(config).index([index_text(kind, number) for kind in sorted(kinds)])
    return Found(queries.orders_of_numbers(values), fault)
