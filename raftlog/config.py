"""The settings of a server. `raftlog.config_sources` says where they come from; this file says what there is.

A field is a key: `rpc_port` is `--rpc-port`, `RAFTLOG_RPC_PORT`, and `rpc-port` or `rpc_port` in a file.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from raftlog.config_keys import read_keys
from raftlog.config_peers import Peers, check_different, find_peer
from raftlog.config_values import (
    Address,
    Addresses,
    Bytes,
    Count,
    DnsNames,
    DurationMs,
    Names,
    NodeName,
    OptionalAddress,
    OptionalBytes,
    OptionalCount,
    OptionalDurationMs,
    OptionalNodeName,
    OptionalPath,
    OptionalPort,
    Path,
    Port,
    level_of,
    lower,
    off_of_false,
)
from raftlog.engine import NodeId
from raftlog.net.addresses import split_address

if TYPE_CHECKING:
    import logstore
    from raftlog.autopilot.settings import AutopilotSettings
    from raftlog.net.tls import TlsFiles
    from raftlog.raft.config import RaftConfig

MIB: Final = 1024 * 1024
MESSAGE_OVERHEAD_BYTES: Final = 64 * 1024  # of a message, around the batch in it

Sync = Annotated[Literal["always", "interval", "never"], BeforeValidator(lower)]
Compression = Annotated[Literal["none", "zstd"], BeforeValidator(lower)]
EngineName = Annotated[Literal["raft", "pysyncobj"], BeforeValidator(lower)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(level_of)]
Discovery = Annotated[Literal["gossip", "dns", "static", "off"], BeforeValidator(off_of_false)]
GossipProfile = Annotated[Literal["lan", "wan", "local", "fast"], BeforeValidator(lower)]
AutopilotMode = Annotated[Literal["act", "advise", "off"], BeforeValidator(off_of_false)]
LogFormat = Annotated[Literal["auto", "console", "json"], BeforeValidator(lower)]


def default_data_dir() -> str:
    """Where a server of this user keeps its log: for root as a system service does, else in the home."""
    if os.geteuid() == 0:
        return "/var/lib/raftlog"
    return os.path.join(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "raftlog")


def default_node_name() -> str:
    return socket.gethostname()


def default_discovery(values: dict[str, Any]) -> str:
    """Of a server with these settings: those of fixed members do not look for others unless they are told where."""
    is_fixed = bool(values.get("peers")) and not values.get("start_join_addrs")
    return "off" if is_fixed or values.get("engine") == "pysyncobj" else "gossip"


def default_last_contact_ms(values: dict[str, Any]) -> int:
    return max(1000, 3 * int(values.get("heartbeat_interval_ms", 0)))


def _key(help: str, default: Any = None, *, group: str, **more: Any) -> Any:
    if "default_factory" not in more:
        more["default"] = default
    return Field(description=help, json_schema_extra={"group": group}, **more)


class ServerConfig(BaseSettings):
    """Settings of a server, checked. Building one reads nothing but its arguments; `load_config` reads the rest.

    None means off, or without that limit. Ports may be 0: any that is free.
    """

    model_config = SettingsConfigDict(
        env_prefix="RAFTLOG_", extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True
    )

    # ── node
    config_file: OptionalPath = _key(
        "File with settings: .toml, .yaml, .yml or .json. Not set: the first found. Once loaded: the one read.",
        group="Node",
    )
    data_dir: Path = _key("Folder of the log.", group="Node", default_factory=default_data_dir)
    node_name: NodeName = _key(
        "Name of this server, unique in the cluster.", group="Node", default_factory=default_node_name
    )
    bootstrap: bool = _key(
        "Begin a new cluster with this server alone. Does nothing where there is one already.",
        default=False, group="Node",
    )  # fmt: skip
    join_addrs: Addresses = _key(
        "Addresses (--rpc-port) of members that are to let this server into their cluster. Without these, --bootstrap "
        "and peers a new server waits until it is found (Discovery, below) or somebody joins it (`raftlog join`).", (),
        group="Node",
    )  # fmt: skip
    peers: Peers = _key(
        "All members of a new cluster, in a file only: a list of pid, name, ip_address, domain, port.", (),
        group="Node",
    )  # fmt: skip
    leave_on_terminate: bool = _key(
        "Leave the cluster for good when asked to stop. Without it a server that stops is expected back.",
        default=False, group="Node",
    )  # fmt: skip

    # ── addresses
    bind_addr: Address = _key(
        "Host and port (UDP and TCP) of the gossip; its host is also that of --rpc-port.", "127.0.0.1:8401",
        group="Addresses",
    )  # fmt: skip
    rpc_port: Port = _key("Port for clients and other servers.", 8400, group="Addresses")
    rpc_advertise_addr: OptionalAddress = _key(
        "Host and port that clients and other servers are told to use. Not set: those that are listened on, with the "
        "host's name where that is every interface.", group="Addresses",
    )  # fmt: skip
    health_host: str = _key("Interface of --health-port.", "127.0.0.1", group="Addresses", min_length=1)
    health_port: OptionalPort = _key(
        "Port for gRPC health checks without a certificate; off to close it.", 8402, group="Addresses"
    )
    admin_host: str = _key("Interface of --admin-port.", "127.0.0.1", group="Addresses", min_length=1)
    admin_port: OptionalPort = _key(
        "HTTP port with /metrics, /healthz and /readyz; off to close it.", 8403, group="Addresses"
    )

    # ── security
    insecure: bool = _key(
        "Run without TLS and let everybody do everything. Only this, never a missing file, turns TLS off.",
        default=False, group="Security",
    )  # fmt: skip
    server_tls_cert_file: OptionalPath = _key("Certificate of this server.", group="Security")
    server_tls_key_file: OptionalPath = _key("Its private key.", group="Security")
    server_tls_ca_file: OptionalPath = _key("Authorities that sign clients' certificates.", group="Security")
    peer_tls_cert_file: OptionalPath = _key("Certificate for connections to other servers.", group="Security")
    peer_tls_key_file: OptionalPath = _key("Its private key.", group="Security")
    peer_tls_ca_file: OptionalPath = _key(
        "Authorities that sign other servers' certificates.", group="Security"
    )
    peer_names: Names = _key(
        "Common names in the certificates of servers: no other may speak for one.",
        ("peer",),
        group="Security",
    )
    acl_model_file: OptionalPath = _key("casbin model; not set: the one of the package.", group="Security")
    acl_policy_file: OptionalPath = _key(
        "Who may do what; not set: the client root may do everything.", group="Security"
    )

    # ── the log
    sync: Sync = _key(
        "When a server counts a record as stored: on disk (always), with the operating system and on disk after "
        "--sync-interval-ms (interval), or with the operating system (never). interval and never are for trying "
        "things: what was acknowledged can be lost.",
        "always", group="Log",
    )  # fmt: skip
    sync_interval_ms: DurationMs = _key("See --sync.", 100, group="Log")
    segment_bytes_max: Bytes = _key("Size of one file of the log.", 64 * MIB, group="Log")
    record_bytes_max: Bytes = _key("Size of one record with key and headers.", 16 * MIB, group="Log")
    batch_bytes_max: Bytes = _key("Size of one batch, uncompressed.", 32 * MIB, group="Log")
    compression: Compression = _key("Of values, where it helps.", "none", group="Log")
    retention_bytes_max: OptionalBytes = _key("Forget the oldest segments beyond this size.", group="Log")
    retention_age_ms_max: OptionalDurationMs = _key("Forget segments older than this.", group="Log")
    retention_records_max: OptionalCount = _key("Forget the oldest beyond this many records.", group="Log")

    retention_wait_ms: DurationMs = _key(
        "How long retention waits for a server that still has to be sent what would go.", 600_000, group="Log"
    )
    snapshot_entries: Count = _key(
        "Batches and commands stored between two snapshots of the cluster's state.", 50_000, group="Log"
    )
    snapshot_bytes: Bytes = _key("The same in bytes: what a restart reads, about.", 256 * MIB, group="Log")
    disk_reserve_bytes: Bytes = _key(
        "With less room on the disk the leader refuses records, and goes on when there is more.", 64 * MIB,
        group="Log",
    )  # fmt: skip

    # ── the cluster
    engine: EngineName = _key(
        "What replicates: raft, or pysyncobj, which is there to compare and gives no guarantees.", "raft",
        group="Cluster",
    )  # fmt: skip
    first_leader: OptionalNodeName = _key(
        "Name of the server that tries to lead a new cluster at once, without waiting.", group="Cluster"
    )
    heartbeat_interval_ms: DurationMs = _key(
        "How often a leader tells that it is there.", 100, group="Cluster"
    )
    election_timeout_ms_min: DurationMs = _key(
        "A server that hears of no leader tries to lead after a time drawn anew, from this one",
        1000, group="Cluster",
    )  # fmt: skip
    election_timeout_ms_max: DurationMs = _key("to this one.", 2000, group="Cluster")
    persist_timeout_ms: DurationMs = _key(
        "A leader whose disk takes longer for one write hands over.", 5000, group="Cluster"
    )
    dial_timeout_ms: DurationMs = _key("For a connection to another server.", 5000, group="Cluster")
    catch_up_bytes_per_s: OptionalBytes = _key(
        "How fast a server that is far behind is sent what it lacks, per second; off: as fast as it goes.",
        group="Cluster",
    )

    # ── discovery
    start_join_addrs: Addresses = _key(
        "Addresses (--bind-addr) of some servers to find the others by; one that is there is enough. May be given with "
        "--bootstrap: if there is a cluster already, this server joins it.", (), group="Discovery",
    )  # fmt: skip
    discovery: Discovery = _key(
        "How servers find each other: gossip; dns; static, by the list of peers: who is added there is let in; or off. Not "
        "set: gossip, but off where there are peers and no --start-join-addrs, and with --engine pysyncobj.",
        group="Discovery", default_factory=default_discovery,
    )  # fmt: skip
    advertise_addr: OptionalAddress = _key(
        "Host and port that others are told to gossip to. Not set: --bind-addr, or where that is every interface the "
        "address of this machine towards others.", group="Discovery",
    )  # fmt: skip
    gossip_profile: GossipProfile = _key(
        "How quick the gossip is: lan, wan, local (one machine), fast (for tests). The same on all servers.", "lan",
        group="Discovery",
    )  # fmt: skip
    gossip_key_file: OptionalPath = _key(
        "File with the keys that gossip is encrypted with, the first for sending: base64, one a line (`raftlog keys "
        "generate`), for its owner only. Read at the first start: later ones go by the keys that `raftlog keys` "
        "arranged. Not set: gossip is not encrypted.", group="Discovery",
    )  # fmt: skip
    discovery_dns_names: DnsNames = _key(
        "With --discovery dns: names that stand for all servers: host:port, where each address of the host is a "
        "server, or the name of SRV records, _raftlog._tcp.example.org.", (), group="Discovery",
    )  # fmt: skip

    # ── the autopilot
    autopilot_mode: AutopilotMode = _key(
        "What a new cluster begins with: act on who comes, leaves or fails, only advise, or off. Later: `raftlog "
        "autopilot`.", "act", group="Autopilot",
    )  # fmt: skip
    autopilot_last_contact_ms_max: DurationMs = _key(
        "A server that the leader has not heard of for so long is not healthy. Not set: 1s, or three times "
        "--heartbeat-interval-ms.", group="Autopilot", default_factory=default_last_contact_ms,
    )  # fmt: skip
    autopilot_trailing_entries_max: Count = _key(
        "A server that lacks more entries of the leader's log than this is not healthy either.",
        250,
        group="Autopilot",
    )
    autopilot_stabilisation_ms: DurationMs = _key(
        "How long a server is healthy before it may vote.", 10_000, group="Autopilot"
    )
    autopilot_voters_max: OptionalCount = _key(
        "How many servers vote; the rest stay learners. Not set: all.", group="Autopilot"
    )
    autopilot_voters_min: Count = _key(
        "With no more voters than this a failed one is never removed.", 3, group="Autopilot"
    )
    autopilot_remove_failed_ms: OptionalDurationMs = _key(
        "A member that has failed for so long is removed, if enough healthy voters remain; off: never.", 86_400_000,
        group="Autopilot",
    )  # fmt: skip

    # ── limits
    message_bytes_max: Bytes = _key(
        "Size of a request; a larger one is refused. Leave room for a batch.", 33 * MIB, group="Limits"
    )
    connections_max: Count = _key("Connections; further ones are closed at once.", 1024, group="Limits")
    connections_per_address_max: Count = _key(
        "Connections from one address, servers not counted; further ones are closed at once.", 512,
        group="Limits",
    )  # fmt: skip
    peer_connections_max: Count = _key(
        "Connections that begin as another server does and have not proved to be one yet.", 64, group="Limits"
    )
    calls_max: Count = _key(
        "Calls in progress, streams included; further ones are refused.", 1024, group="Limits"
    )
    calls_per_connection_max: Count = _key(
        "Calls in progress on one connection; further ones wait.", 256, group="Limits"
    )
    queue_bytes_max: Bytes = _key(
        "Records received and not yet stored; beyond it, calls are refused.", 64 * MIB, group="Limits"
    )
    unsent_bytes_max: Bytes = _key(
        "Records read and not yet taken by clients; beyond it, streams wait, and are refused after 10 s.",
        256 * MIB,
        group="Limits",
    )
    stop_grace_ms: DurationMs = _key(
        "How long calls may go on when the server is asked to stop.", 10_000, group="Limits"
    )

    # ── logging
    log_level: LogLevel = _key("Least important messages that are shown.", "info", group="Logging")
    log_format: LogFormat = _key(
        "console, json, or auto: console on a terminal, else json.", "auto", group="Logging"
    )

    _unused: tuple[str, ...] = PrivateAttr(default=())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the arguments: a test or a demo that builds a config must not depend on the environment."""
        return (init_settings,)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        for side in ("server", "peer"):
            _require_all_or_none(self, [f"{side}_tls_{part}_file" for part in ("cert", "key", "ca")])
        if self.insecure and self.server_tls_cert_file:
            raise ValueError("insecure and server-tls-cert-file exclude each other; give one of them")
        if not self.insecure and not self.server_tls_cert_file:
            raise ValueError(
                "no certificate: give server-tls-cert-file, server-tls-key-file and server-tls-ca-file "
                "(`raftlog certs init` makes them), or ask for no security by name with insecure"
            )
        self._check_cluster()
        self.log_config()
        if self.message_bytes_max < self.batch_bytes_max + MESSAGE_OVERHEAD_BYTES:
            raise ValueError(
                f"message-bytes-max, {self.message_bytes_max} bytes, leaves no room for a batch of batch-bytes-max, "
                f"{self.batch_bytes_max} bytes, and {MESSAGE_OVERHEAD_BYTES} around it"
            )
        return self

    def _check_cluster(self) -> None:
        check_different(self.peers)
        if self.peers:
            find_peer(self.peers, self.node_name)
        if self.first_leader is not None and self.peers:
            find_peer(self.peers, self.first_leader)
        if self.bootstrap and (self.peers or self.join_addrs):
            other = "peers" if self.peers else "join-addrs"
            raise ValueError(f"bootstrap begins a cluster of one, and {other} names others; give one of them")
        self._check_discovery()
        has_others = len(self.peers) > 1 or bool(
            self.join_addrs or self.start_join_addrs or self.discovery_dns_names
        )
        if has_others and self.server_tls_cert_file and not self.peer_tls_cert_file:
            raise ValueError(
                "no certificate for connections to other servers: give peer-tls-cert-file, peer-tls-key-file and "
                "peer-tls-ca-file, whose certificate has one of peer-names as its common name (`raftlog certs init` "
                "makes peer.pem; one certificate for both usages may be given for server-tls and peer-tls)"
            )
        self.raft_config()
        self._check_autopilot()

    def _check_discovery(self) -> None:
        for kind, fields in (
            ("gossip", ("start_join_addrs", "advertise_addr", "gossip_key_file")),
            ("dns", ("discovery_dns_names",)),
        ):
            given = [field.replace("_", "-") for field in fields if getattr(self, field)]
            if given and self.discovery != kind:
                raise ValueError(
                    f"{', '.join(given)}: of no use, because discovery is {self.discovery}; set discovery to {kind}, or "
                    "leave that out"
                )
        if self.discovery == "dns" and not self.discovery_dns_names:
            raise ValueError("discovery is dns, and no names are given: give discovery-dns-names")
        if self.discovery == "static" and not self.peers:
            raise ValueError(
                "discovery is static, and there is no list to find servers in: give peers, in a file"
            )
        if self.discovery != "off" and self.engine == "pysyncobj":
            raise ValueError(
                f"discovery {self.discovery} goes with the engine raft, not with pysyncobj; set it to off"
            )

    def _check_autopilot(self) -> None:
        last_contact_ms, heartbeat_ms = self.autopilot_last_contact_ms_max, self.heartbeat_interval_ms
        if last_contact_ms < 2 * heartbeat_ms:
            raise ValueError(
                f"autopilot-last-contact-ms-max {last_contact_ms} is less than twice heartbeat-interval-ms "
                f"{heartbeat_ms}: every server would seem to be lost now and then"
            )
        voters_max, voters_min = self.autopilot_voters_max, self.autopilot_voters_min
        if voters_max is not None and voters_max < voters_min:
            raise ValueError(
                f"autopilot-voters-min {voters_min} <= autopilot-voters-max {voters_max} must hold"
            )

    def note_unused(self, sources: Sequence[str]) -> None:
        """Where settings stand that have no meaning here."""
        self._unused = tuple(sources)

    @property
    def unused(self) -> tuple[str, ...]:
        """Settings that were given and have no meaning here: worth a warning, once."""
        return self._unused

    @property
    def looks_first(self) -> bool:
        """Whether a new server that may begin a cluster looks for one before."""
        return self.bootstrap and bool(self.start_join_addrs or self.discovery_dns_names)

    @property
    def rpc_host(self) -> str:
        return split_address(self.bind_addr)[0]

    def server_tls(self) -> TlsFiles | None:
        """Files of the server side; None only if `insecure`."""
        return self._tls("server")

    def peer_tls(self) -> TlsFiles | None:
        """Files for connections to other servers, if given."""
        return self._tls("peer")

    def _tls(self, side: str) -> TlsFiles | None:
        from raftlog.net.tls import TlsFiles  # late: a config can be read without grpc

        cert_file, key_file, ca_file = (
            getattr(self, f"{side}_tls_{part}_file") for part in ("cert", "key", "ca")
        )
        return TlsFiles(cert_file=cert_file, key_file=key_file, ca_file=ca_file) if cert_file else None

    def gossip_keys(self) -> tuple[bytes, ...]:
        """Those of the key file, the one to encrypt with first; none if there is no file. ConfigError if it is no use."""
        return () if self.gossip_key_file is None else read_keys(self.gossip_key_file)

    def raft_config(self) -> RaftConfig:
        """The part of these settings that the core takes; ValueError if its times do not fit each other."""
        from raftlog.raft.config import RaftConfig  # late, as the others

        times = [self.heartbeat_interval_ms, self.election_timeout_ms_min, self.election_timeout_ms_max]
        if not times[0] < times[1] <= times[2]:
            raise ValueError(
                f"heartbeat-interval-ms {times[0]} < election-timeout-ms-min {times[1]} <= election-timeout-ms-max "
                f"{times[2]} must hold"
            )
        return RaftConfig(
            heartbeat_interval_s=times[0] / 1000,
            election_timeout_s_min=times[1] / 1000,
            election_timeout_s_max=times[2] / 1000,
            persist_timeout_s=self.persist_timeout_ms / 1000,
            first_leader=None if self.first_leader is None else NodeId(self.first_leader),
        )

    def autopilot_settings(self) -> AutopilotSettings:
        """The part of these settings that the autopilot takes."""
        from raftlog.autopilot.settings import AutopilotSettings  # late, as the others

        removed_after_ms = self.autopilot_remove_failed_ms
        return AutopilotSettings(
            mode=self.autopilot_mode,
            last_contact_s_max=self.autopilot_last_contact_ms_max / 1000,
            trailing_entries_max=self.autopilot_trailing_entries_max,
            stabilisation_s=self.autopilot_stabilisation_ms / 1000,
            voters_max=self.autopilot_voters_max,
            voters_min=self.autopilot_voters_min,
            remove_failed_after_s=math.inf if removed_after_ms is None else removed_after_ms / 1000,
        )

    def log_config(self) -> logstore.Config:
        """The part of these settings that the log engine takes.

        No keys are those of compaction, which the server does not run, and the counts of spare and unsealed
        segments, which trade nothing that a user could weigh.
        """
        from logstore import Config  # late: it brings numpy

        return Config(
            sync=self.sync,
            sync_interval_ms=self.sync_interval_ms,
            segment_bytes_max=self.segment_bytes_max,
            record_bytes_max=self.record_bytes_max,
            batch_bytes_max=self.batch_bytes_max,
            pending_bytes_max=self.queue_bytes_max,
            compression=self.compression,
            retention_bytes_max=self.retention_bytes_max,
            retention_age_ms_max=self.retention_age_ms_max,
            retention_records_max=self.retention_records_max,
        )


def _require_all_or_none(config: ServerConfig, fields: list[str]) -> None:
    missing = [field for field in fields if not getattr(config, field)]
    if missing and len(missing) < len(fields):
        names = ", ".join(field.replace("_", "-") for field in missing)
        raise ValueError(f"{names} missing: certificate, key and CA go together")
