"""Binds the functions of the services to grpc.aio: subjects, status codes, metrics. The only place that does."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import grpc

from raftlog.pb.log.v1 import log_pb2
from raftlog.pb.raftlog.v1 import cluster_pb2
from raftlog.runtime.logging import get_logger
from raftlog.runtime.metrics import MethodMetrics, Metrics
from raftlog.server.call import Call
from raftlog.server.cluster_service import ClusterService
from raftlog.server.gossip_keys import GossipKeysService
from raftlog.server.health import CLUSTER_SERVICE, LOG_SERVICE
from raftlog.server.membership_service import MembershipService
from raftlog.server.service import LogService
from raftlog.server.status import Status, status_of
from raftlog.wire.call_metadata import FORWARDED_KEY, NO_FORWARD_KEY, SUBJECT_KEY, unpack_subject

log = get_logger(__name__)

OK: Final = grpc.StatusCode.OK.name
CANCELLED: Final = grpc.StatusCode.CANCELLED.name  # until something else is known
COMMON_NAME: Final = "x509_common_name"

Context = grpc.aio.ServicerContext[Any, Any]
# By name: whether it has one request, and one response, or a stream of them; the function; the request's class.
Methods = dict[str, tuple[bool, bool, Callable[[Any, Call], Any], Any]]
ONE: Final = True
MANY: Final = False


class GrpcBinding:
    """Makes handlers for `grpc.aio.Server.add_generic_rpc_handlers`."""

    def __init__(self, metrics: Metrics, *, peer_names: frozenset[str]) -> None:
        """`peer_names` are the common names of the certificates of servers of the cluster."""
        self._metrics = metrics
        self._peer_names = peer_names

    def log_service(self, service: LogService) -> grpc.GenericRpcHandler[Any, Any]:
        pb = log_pb2
        methods: Methods = {
            "Produce": (ONE, ONE, service.produce, pb.ProduceRequest),
            "Consume": (ONE, ONE, service.consume, pb.ConsumeRequest),
            "ConsumeStream": (ONE, MANY, service.consume_stream, pb.ConsumeRequest),
            "ProduceStream": (MANY, MANY, service.produce_stream, pb.ProduceRequest),
            "GetServers": (ONE, ONE, service.get_servers, pb.GetServersRequest),
            "ProduceBatch": (ONE, ONE, service.produce_batch, pb.ProduceBatchRequest),
            "ProduceBatchStream": (MANY, MANY, service.produce_batch_stream, pb.ProduceBatchRequest),
            "ConsumeBatches": (ONE, MANY, service.consume_batches, pb.ConsumeBatchesRequest),
        }
        return self._handlers(LOG_SERVICE, methods)

    def cluster_service(self, service: ClusterService) -> grpc.GenericRpcHandler[Any, Any]:
        pb = cluster_pb2
        methods: Methods = {
            "Join": (ONE, ONE, service.join, pb.JoinRequest),
            "Leave": (ONE, ONE, service.leave, pb.LeaveRequest),
            "Promote": (ONE, ONE, service.promote, pb.PromoteRequest),
            "TransferLeadership": (ONE, ONE, service.transfer_leadership, pb.TransferLeadershipRequest),
            "GetStatus": (ONE, ONE, service.get_status, pb.GetStatusRequest),
            "TakeSnapshot": (ONE, ONE, service.take_snapshot, pb.TakeSnapshotRequest),
            "Truncate": (ONE, ONE, service.truncate, pb.TruncateRequest),
            "CommitCursor": (ONE, ONE, service.commit_cursor, pb.CommitCursorRequest),
            "ListCursors": (ONE, ONE, service.list_cursors, pb.ListCursorsRequest),
            "FetchEntries": (ONE, MANY, service.fetch_entries, pb.FetchEntriesRequest),
        }
        return self._handlers(CLUSTER_SERVICE, methods)

    def membership_service(
        self, service: MembershipService, keys: GossipKeysService
    ) -> grpc.GenericRpcHandler[Any, Any]:
        """The rest of the methods of the cluster service."""
        pb = cluster_pb2
        methods: Methods = {
            "ListMembers": (ONE, ONE, service.list_members, pb.ListMembersRequest),
            "GetAutopilot": (ONE, ONE, service.get_autopilot, pb.GetAutopilotRequest),
            "SetAutopilot": (ONE, ONE, service.set_autopilot, pb.SetAutopilotRequest),
            "ChangeGossipKeys": (ONE, ONE, keys.change_gossip_keys, pb.ChangeGossipKeysRequest),
            "Depart": (ONE, ONE, service.depart, pb.DepartRequest),
        }
        return self._handlers(CLUSTER_SERVICE, methods)

    def _handlers(self, name: str, methods: Methods) -> grpc.GenericRpcHandler[Any, Any]:
        bound = {method: self._handler(method, *described) for method, described in methods.items()}
        return grpc.method_handlers_generic_handler(name, bound)

    def _handler(
        self,
        method: str,
        one_request: bool,
        one_response: bool,
        function: Callable[[Any, Call], Any],
        request: Any,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        make = {
            (ONE, ONE): grpc.unary_unary_rpc_method_handler,
            (ONE, MANY): grpc.unary_stream_rpc_method_handler,
            (MANY, MANY): grpc.stream_stream_rpc_method_handler,
        }[one_request, one_response]
        bind = self._answering if one_response else self._streaming
        return make(
            bind(function, self._metrics.of_method(method), method),
            request_deserializer=request.FromString,
            response_serializer=_serialize,
        )

    def _answering(
        self, function: Callable[[Any, Call], Awaitable[Any]], counts: MethodMetrics, method: str
    ) -> Callable[[Any, Context], Awaitable[Any]]:
        async def answer(request: Any, context: Context) -> Any:
            counts.began()
            code, start = CANCELLED, time.perf_counter()
            try:
                response = await function(request, self._call_of(context))
                code = OK
                return response
            except Exception as error:  # noqa: BLE001  # every error becomes a status
                code = await _abort(context, method, error)
            finally:
                counts.ended(code, seconds=time.perf_counter() - start)

        return answer

    def _streaming(
        self, function: Callable[[Any, Call], AsyncIterator[Any]], counts: MethodMetrics, method: str
    ) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            counts.began()
            code = CANCELLED
            try:
                async for response in function(request, self._call_of(context)):
                    yield response
                code = OK
            except Exception as error:  # noqa: BLE001  # every error becomes a status
                code = await _abort(context, method, error)
            finally:
                counts.ended(code, seconds=None)

        return stream

    def _call_of(self, context: Context) -> Call:
        subject, may_forward = _common_name(context), True
        for key, value in context.invocation_metadata() or ():
            if key in (NO_FORWARD_KEY, FORWARDED_KEY):
                may_forward = may_forward and value != "1"
            elif key == SUBJECT_KEY and subject in self._peer_names:  # from anybody else it is only a claim
                subject = unpack_subject(str(value))
        return Call(subject, subject in self._peer_names, may_forward, context.time_remaining())


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _common_name(context: Context) -> str | None:
    """That of the verified client certificate."""
    if context.peer_identity_key() == COMMON_NAME:  # the usual case, at a tenth of the price of what follows
        names = context.peer_identities()
    else:
        names = context.auth_context().get(COMMON_NAME)
    return next((name.decode(errors="replace") for name in names or ()), None)


async def _abort(context: Context, method: str, error: Exception) -> str:
    """End the call with the status for `error`, and return its name. What only we should know stays in our log."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    status = status_of(error)
    if status is None:
        log.error("call failed", method=method, peer=context.peer(), exc_info=error)
        status = Status(grpc.StatusCode.INTERNAL, "internal error; the server's log says more")
    with suppress(grpc.aio.AbortError):  # that is how `abort` returns
        await context.abort(status.code, status.text, status.metadata)
    return status.code.name
