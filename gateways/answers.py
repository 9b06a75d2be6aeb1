"""How a door answers: receipts on the wire, and what a sender is told when the centre can't."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, NoReturn, TypeVar

import grpc
import structlog

from domain.changes import Away, Refused
from domain.codes import Code
from domain.lines import Receipt, RefusedRecord
from domain.provider import ProviderError
from domain.words import WORDS, next_step
from stubs import common_pb2 as pb

log = structlog.get_logger()

ReplyT = TypeVar("ReplyT")
Handler = Callable[[Any, Any, Any], Awaitable[ReplyT]]

RETRY_MILLISECONDS = 500


def receipt_to_wire(receipt: Receipt) -> pb.Receipt:
    return pb.Receipt(
        accepted=receipt.accepted,
        code=receipt.code,
        reason=receipt.reason,
        next_step=receipt.next_step,
        records=receipt.records,
        taken=receipt.taken,
        refused=[_refused_to_wire(r) for r in receipt.refused],
        repeated=receipt.repeated,
    )


def _refused_to_wire(refused: RefusedRecord) -> pb.RefusedRecord:
    return pb.RefusedRecord(
        record_number=refused.record_number,
        order_id=refused.order_id,
        field=refused.field,
        code=refused.code,
        reason=refused.reason,
    )


def refusal(code: Code, detail: str = "") -> Receipt:
    """The whole is refused; `detail` says where, without the value."""
    words = WORDS[code].english
    return Receipt(False, code, f"{detail}: {words}" if detail else words)


async def abort(context: grpc.aio.ServicerContext[Any, Any], code: Code) -> NoReturn:
    """End the call: the same may be sent again after the pause that goes with it."""
    busy = code is Code.BUSY
    await context.abort(
        grpc.StatusCode.RESOURCE_EXHAUSTED if busy else grpc.StatusCode.UNAVAILABLE,
        f"{code}: {WORDS[code].english}; {next_step(code)}",
        # gRPC retry design (A6): when to come again.
        trailing_metadata=(("grpc-retry-pushback-ms", str(RETRY_MILLISECONDS)),),
    )


def answering(handler: Handler[ReplyT]) -> Handler[ReplyT]:
    """A handler of one call. When a part behind the door is away the sender is told UNAVAILABLE;
    the text of an unforeseen error stays inside, since it may quote what was sent."""

    @wraps(handler)
    async def answered(servicer: Any, request: Any, context: Any) -> ReplyT:
        try:
            return await handler(servicer, request, context)
        except grpc.aio.AbortError:
            raise
        except (Away, ProviderError) as e:
            log.warning("door.away", door=handler.__qualname__, error=type(e).__name__)
            await abort(context, e.code if isinstance(e, Away) else Code.UNAVAILABLE)
        except Refused as e:
            log.warning("door.refused", door=handler.__qualname__, code=e.code)
            if e.code == Code.COMMAND_DIFFERS:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(Code.COMMAND_DIFFERS))
            # Another instance took the line over, or its picture was stale: decided again then.
            await abort(context, Code.UNAVAILABLE)
        except Exception as e:  # noqa: BLE001  # the door stays open whatever happens behind it
            log.error("door.failed", door=handler.__qualname__, error=type(e).__name__)
            await context.abort(grpc.StatusCode.INTERNAL, "see the centre's log")
            raise AssertionError("abort raises") from None

    return answered
