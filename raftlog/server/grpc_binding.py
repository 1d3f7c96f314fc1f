"""Binds the functions of the log service to grpc.aio: subjects, status codes, metrics. The only place that does."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import grpc

import logstore
from raftlog.errors import InvalidRecord, Overloaded, PermissionDenied, ServerStopping, Unauthenticated
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.runtime.logging import get_logger
from raftlog.runtime.metrics import MethodMetrics, Metrics
from raftlog.server.call import Call
from raftlog.server.service import LogService
from raftlog.wire.status_details import RETRY_PUSHBACK_KEY, STATUS_DETAILS_KEY, pack_status

log = get_logger(__name__)

SERVICE_NAME: Final = "log.v1.Log"
OK: Final = grpc.StatusCode.OK.name
CANCELLED: Final = grpc.StatusCode.CANCELLED.name  # until something else is known
COMMON_NAME: Final = "x509_common_name"

# What a client is told to wait before it tries again.
PUSHBACK_MS: Final[dict[type[Exception], int]] = {
    Overloaded: 100,
    logstore.QueueFull: 100,
    logstore.DiskFull: 5_000,  # somebody has to make room
    logstore.LogPoisoned: 5_000,  # somebody has to restart the server
    logstore.LogClosed: 1_000,  # it is about to restart
    ServerStopping: 1_000,
}

Context = grpc.aio.ServicerContext[Any, Any]

# The first class that an error is an instance of decides. What is not listed is a bug: INTERNAL, and logged.
STATUS_CODES: Final[tuple[tuple[type[Exception], grpc.StatusCode], ...]] = (
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (logstore.OffsetOutOfRange, grpc.StatusCode.OUT_OF_RANGE),
    (logstore.RecordCompacted, grpc.StatusCode.NOT_FOUND),
    (logstore.RecordTooLarge, grpc.StatusCode.INVALID_ARGUMENT),
    (logstore.BatchTooLarge, grpc.StatusCode.INVALID_ARGUMENT),
    (logstore.EmptyBatch, grpc.StatusCode.INVALID_ARGUMENT),
    (InvalidRecord, grpc.StatusCode.INVALID_ARGUMENT),
    (logstore.CorruptBatch, grpc.StatusCode.INVALID_ARGUMENT),
    (logstore.UnsupportedFormat, grpc.StatusCode.INVALID_ARGUMENT),
    (logstore.QueueFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (logstore.DiskFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (logstore.CorruptLog, grpc.StatusCode.DATA_LOSS),
    (logstore.LogPoisoned, grpc.StatusCode.UNAVAILABLE),
    (logstore.LogClosed, grpc.StatusCode.UNAVAILABLE),
    (ServerStopping, grpc.StatusCode.UNAVAILABLE),
)


def handlers(service: LogService, metrics: Metrics) -> grpc.GenericRpcHandler[Any, Any]:
    """The service for `grpc.aio.Server.add_generic_rpc_handlers`."""
    one, many = True, False
    methods: dict[str, tuple[bool, bool, Callable[[Any, Call], Any], Any]] = {
        "Produce": (one, one, service.produce, pb.ProduceRequest),
        "Consume": (one, one, service.consume, pb.ConsumeRequest),
        "ConsumeStream": (one, many, service.consume_stream, pb.ConsumeRequest),
        "ProduceStream": (many, many, service.produce_stream, pb.ProduceRequest),
        "GetServers": (one, one, service.get_servers, pb.GetServersRequest),
        "ProduceBatch": (one, one, service.produce_batch, pb.ProduceBatchRequest),
        "ProduceBatchStream": (many, many, service.produce_batch_stream, pb.ProduceBatchRequest),
        "ConsumeBatches": (one, many, service.consume_batches, pb.ConsumeBatchesRequest),
    }
    bound = {
        name: _handler(function, request, metrics.of_method(name), name, one_request, one_response)
        for name, (one_request, one_response, function, request) in methods.items()
    }
    return grpc.method_handlers_generic_handler(SERVICE_NAME, bound)


def _handler(
    function: Callable[[Any, Call], Any],
    request: Any,
    counts: MethodMetrics,
    method: str,
    one_request: bool,
    one_response: bool,
) -> grpc.RpcMethodHandler[Any, Any]:
    make = {
        (True, True): grpc.unary_unary_rpc_method_handler,
        (True, False): grpc.unary_stream_rpc_method_handler,
        (False, False): grpc.stream_stream_rpc_method_handler,
    }[one_request, one_response]
    bind = _answering if one_response else _streaming
    return make(
        bind(function, counts, method),
        request_deserializer=request.FromString,
        response_serializer=_serialize,
    )


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _answering(
    function: Callable[[Any, Call], Awaitable[Any]], counts: MethodMetrics, method: str
) -> Callable[[Any, Context], Awaitable[Any]]:
    async def answer(request: Any, context: Context) -> Any:
        counts.began()
        code, start = CANCELLED, time.perf_counter()
        try:
            response = await function(request, Call(_subject(context)))
            code = OK
            return response
        except Exception as error:  # noqa: BLE001  # every error becomes a status
            code = await _abort(context, method, error)
        finally:
            counts.ended(code, seconds=time.perf_counter() - start)

    return answer


def _streaming(
    function: Callable[[Any, Call], AsyncIterator[Any]], counts: MethodMetrics, method: str
) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        counts.began()
        code = CANCELLED
        try:
            async for response in function(request, Call(_subject(context))):
                yield response
            code = OK
        except Exception as error:  # noqa: BLE001  # every error becomes a status
            code = await _abort(context, method, error)
        finally:
            counts.ended(code, seconds=None)

    return stream


def _subject(context: Context) -> str | None:
    """The common name of the verified client certificate."""
    if context.peer_identity_key() == COMMON_NAME:  # the usual case, at a tenth of the price of what follows
        names = context.peer_identities()
    else:
        names = context.auth_context().get(COMMON_NAME)
    return next((name.decode(errors="replace") for name in names or ()), None)


async def _abort(context: Context, method: str, error: Exception) -> str:
    """End the call with the status for `error`, and return its name. What only we should know stays in our log."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    code = next((code for kind, code in STATUS_CODES if isinstance(error, kind)), None)
    text = str(error)
    if code is None:
        log.error("call failed", method=method, peer=context.peer(), exc_info=error)
        code, text = grpc.StatusCode.INTERNAL, "internal error; the server's log says more"
    number: int = code.value[0]
    metadata: list[tuple[str, str | bytes]] = []
    if isinstance(error, logstore.OffsetOutOfRange):
        detail = pb.OffsetRange(offset=error.offset, start=error.start, end=error.end)
        metadata.append((STATUS_DETAILS_KEY, pack_status(number, text, detail)))
    if type(error) in PUSHBACK_MS:
        metadata.append((RETRY_PUSHBACK_KEY, str(PUSHBACK_MS[type(error)])))
    with suppress(grpc.aio.AbortError):  # that is how `abort` returns
        await context.abort(code, text, tuple(metadata))
    return code.name
