from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

import logstore
from raftlog.config import MIB, ServerConfig, default_data_dir
from raftlog.config_sources import load_config
from raftlog.errors import ConfigError
from raftlog.net.tls import TlsFiles
from tests.raftlog.configuring import Write, load, problems

pytestmark = pytest.mark.usefixtures("nowhere")


# ── the settings ────────────────────────────────────────────────────────────────────────────────────


def test_defaults_are_those_of_proglog_and_of_the_engine() -> None:
    config = load()

    assert (config.bind_addr, config.rpc_port, config.bootstrap) == ("127.0.0.1:8401", 8400, False)
    assert config.rpc_host == "127.0.0.1"
    assert config.log_config() == logstore.Config()


def test_the_limits_of_the_log_reach_the_engine() -> None:
    config = load(
        {"sync": "interval", "sync_interval_ms": "20ms", "segment_bytes_max": "1MiB", "queue_bytes_max": "2MiB",
         "retention_age_ms_max": "7d", "retention_bytes_max": "1GiB", "retention_records_max": "5",
         "compression": "zstd", "record_bytes_max": "1kB", "batch_bytes_max": "2kB"}
    )  # fmt: skip

    assert config.log_config() == logstore.Config(
        sync="interval",
        sync_interval_ms=20,
        segment_bytes_max=MIB,
        record_bytes_max=1000,
        batch_bytes_max=2000,
        pending_bytes_max=2 * MIB,
        compression="zstd",
        retention_bytes_max=1024 * MIB,
        retention_age_ms_max=7 * 24 * 3600 * 1000,
        retention_records_max=5,
    )


def test_a_batch_has_to_fit_into_a_message() -> None:
    assert (
        "leaves no room for a batch of batch-bytes-max, 67108864" in problems({"batch_bytes_max": "64MiB"})[0]
    )
    assert load({"batch_bytes_max": "64MiB", "message_bytes_max": "65MiB"}).batch_bytes_max == 64 * MIB


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "admin-port: off\nretention-bytes-max: off\n"),
        ("a.toml", 'admin-port = false\nretention-bytes-max = "off"\n'),
        ("a.json", '{"admin-port": false, "retention-bytes-max": "none"}'),
    ],
)
def test_off_is_understood_in_every_kind_of_file(write: Write, name: str, text: str) -> None:
    config = load({"config_file": str(write(name, text))})

    assert (config.admin_port, config.retention_bytes_max) == (None, None)


def test_what_the_engine_refuses_is_a_problem_of_the_configuration() -> None:
    assert "the format allows at most" in problems({"batch_bytes_max": "2GiB"})[0]


def test_data_lies_in_the_home_and_for_root_in_var_lib(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert default_data_dir() == str(nowhere / "home/.local/share/raftlog")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_data_dir() == "/data/raftlog"

    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_data_dir() == "/var/lib/raftlog"


def test_paths_may_begin_with_the_home(nowhere: Path) -> None:
    assert load({"data_dir": "~/log"}).data_dir == str(nowhere / "home/log")


def test_building_a_config_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTLOG_RPC_PORT", "1")

    assert ServerConfig(insecure=True).rpc_port == 8400


def test_a_config_does_not_change() -> None:
    config = load()

    with pytest.raises(ValidationError, match="frozen"):
        config.rpc_port = 1


def test_every_key_is_described_and_grouped() -> None:
    for name, field in ServerConfig.model_fields.items():
        assert field.description, name
        assert isinstance(field.json_schema_extra, dict), name
        assert field.json_schema_extra["group"], name


# ── security ────────────────────────────────────────────────────────────────────────────────────────

TLS = {f"server_tls_{part}_file": f"{part}.pem" for part in ("cert", "key", "ca")}


def test_without_certificate_only_insecure_starts() -> None:
    with pytest.raises(
        ConfigError, match=r"^no certificate: give server-tls-cert-file.* by name with insecure$"
    ):
        load_config({})


def test_insecure_and_a_certificate_exclude_each_other() -> None:
    assert problems(TLS) == ["insecure and server-tls-cert-file exclude each other; give one of them"]


def test_certificate_key_and_ca_go_together() -> None:
    with pytest.raises(
        ConfigError, match="^server-tls-key-file missing: certificate, key and CA go together$"
    ):
        load_config(TLS | {"server_tls_key_file": None})
    with pytest.raises(ConfigError, match="^peer-tls-key-file, peer-tls-ca-file missing"):
        load_config(TLS | {"peer_tls_cert_file": "a.pem"})


def test_tls_files_are_handed_on() -> None:
    config = load_config(TLS)

    assert config.server_tls() == TlsFiles(cert_file="cert.pem", key_file="key.pem", ca_file="ca.pem")
    assert config.peer_tls() is None
    assert load().server_tls() is None


# ── sources ─────────────────────────────────────────────────────────────────────────────────────────


def test_each_source_overrides_the_one_before_key_by_key(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("work/raftlog.toml", "rpc-port = 1\nhealth-port = 1\nadmin-port = 1\n")
    monkeypatch.setenv("RAFTLOG_HEALTH_PORT", "2")
    monkeypatch.setenv("RAFTLOG_ADMIN_PORT", "2")

    config = load({"admin_port": "3"})

    assert (config.rpc_port, config.health_port, config.admin_port) == (1, 2, 3)
    assert config.bind_addr == "127.0.0.1:8401"


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        ("toml", 'rpc-port = 9\nstart_join_addrs = ["a:1", "b:2"]\nbootstrap = true\nsegment-bytes-max = "1MiB"\n'),
        ("yaml", "rpc-port: 9\nstart_join_addrs: [a:1, b:2]\nbootstrap: yes\nsegment-bytes-max: 1MiB\n"),
        ("yml", "rpc_port: '9'\nstart-join-addrs: a:1,b:2\nbootstrap: true\nsegment_bytes_max: 1048576\n"),
        (
            "json",
            json.dumps(
                {"rpc-port": 9, "start-join-addrs": ["a:1", "b:2"], "bootstrap": True, "segment-bytes-max": 1048576}
            ),
        ),
    ],
)  # fmt: skip
def test_a_file_may_be_toml_yaml_or_json_with_dashes_or_underscores(
    write: Write, ending: str, text: str
) -> None:
    path = write(f"any.{ending}", text)

    config = load({"config_file": str(path)})

    assert (config.rpc_port, config.start_join_addrs) == (9, ("a:1", "b:2"))
    assert (config.bootstrap, config.segment_bytes_max) == (True, MIB)
    assert config.config_file == str(path)


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_a_file_may_be_empty(write: Write, text: str) -> None:
    assert load({"config_file": str(write("empty.yaml", text))}).rpc_port == 8400


def test_the_first_file_found_is_the_only_one_read(write: Write) -> None:
    places = [
        "work/raftlog.toml",
        "work/raftlog.yaml",
        "work/raftlog.yml",
        "work/raftlog.json",
        "home/.config/raftlog/raftlog.toml",
        "home/.raftlog.yaml",
        "etc/raftlog.json",
    ]
    for number, place in enumerate(places):
        text = f'{{"rpc-port": {number}}}' if not place.endswith("toml") else f"rpc-port = {number}"
        write(place, text)

    found = []
    for place in places:
        found.append(load().rpc_port)
        (Path.cwd().parent / place).unlink()

    assert found == list(range(len(places)))
    assert load().config_file is None


def test_the_configured_home_of_settings_is_used(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("settings/raftlog/raftlog.toml", "rpc-port = 5")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(path.parent.parent))

    assert load().rpc_port == 5


def test_a_named_file_ends_the_search(write: Write) -> None:
    write("work/raftlog.toml", "rpc-port = 1\nhealth-port = 1\n")
    path = write("named.toml", "rpc-port = 2\n")

    config = load({"config_file": str(path)})

    assert (config.rpc_port, config.health_port) == (2, 8402)


def test_a_variable_names_the_file_and_the_flag_overrides_it(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFTLOG_CONFIG_FILE", str(write("one.toml", "rpc-port = 1")))
    two = write("two.toml", "rpc-port = 2")

    assert load().rpc_port == 1
    assert load({"config_file": str(two)}).rpc_port == 2


@pytest.mark.parametrize("false", ["false", "False", "0", "no", "off"])
def test_an_explicit_false_overrides_a_true_from_every_source(
    write: Write, monkeypatch: pytest.MonkeyPatch, false: str
) -> None:
    write("work/raftlog.toml", "bootstrap = true\n")
    assert load().bootstrap is True

    assert load({"bootstrap": False}).bootstrap is False
    monkeypatch.setenv("RAFTLOG_BOOTSTRAP", false)
    assert load().bootstrap is False
    write("work/raftlog.toml", "bootstrap = false\n")
    monkeypatch.setenv("RAFTLOG_BOOTSTRAP", "true")
    assert load({"bootstrap": False}).bootstrap is False
    monkeypatch.delenv("RAFTLOG_BOOTSTRAP")
    assert load().bootstrap is False


def test_a_limit_of_a_file_can_be_taken_away(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("work/raftlog.toml", 'retention-bytes-max = "1GiB"\n')
    assert load().retention_bytes_max == 1024 * MIB

    monkeypatch.setenv("RAFTLOG_RETENTION_BYTES_MAX", "off")

    assert load().retention_bytes_max is None


def test_addresses_in_the_environment_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTLOG_START_JOIN_ADDRS", "a:1,[::1]:2")

    assert load().start_join_addrs == ("a:1", "[::1]:2")


def test_what_kubernetes_sets_for_a_service_named_raftlog_is_no_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in {
        "RAFTLOG_SERVICE_HOST": "10.0.0.1",
        "RAFTLOG_SERVICE_PORT": "8400",
        "RAFTLOG_SERVICE_PORT_RPC": "8400",
        "RAFTLOG_PORT": "tcp://10.0.0.1:8400",
        "RAFTLOG_PORT_8400_TCP": "tcp://10.0.0.1:8400",
        "RAFTLOG_PORT_8400_TCP_ADDR": "10.0.0.1",
        "RAFTLOG_0_SERVICE_HOST": "10.0.0.1",
        "RAFTLOG_RPC_PORT": "tcp://10.0.0.1:8400",
    }.items():
        monkeypatch.setenv(variable, value)

    assert load().rpc_port == 8400


def test_settings_of_client_commands_are_no_settings_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTLOG_CLIENT_ADDR", "elsewhere:8400")

    assert load().rpc_port == 8400


# ── what is said ────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_key_names_its_file_and_the_nearest_key(write: Write) -> None:
    path = write("a.toml", 'rpc-prot = 1\n"zzz" = 2\n[server]\nport = 1\n')

    assert problems({"config_file": str(path)}) == [
        f"{path}: unknown key rpc-prot; did you mean rpc-port?",
        f"{path}: unknown key zzz; `raftlog serve --help` lists all keys",
        f"{path}: unknown key server; `raftlog serve --help` lists all keys",
    ]


def test_an_unknown_variable_names_the_nearest_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTLOG_RPCPORT", "1")

    assert problems() == ["environment: unknown variable RAFTLOG_RPCPORT; did you mean RAFTLOG_RPC_PORT?"]


def test_a_key_written_both_ways_is_refused(write: Write) -> None:
    path = write("a.toml", "rpc-port = 1\nrpc_port = 2\n")

    assert problems({"config_file": str(path)}) == [
        f"{path}: rpc-port is set twice, by rpc-port and by rpc_port"
    ]


def test_a_file_cannot_name_another(write: Write) -> None:
    path = write("a.toml", 'config-file = "b.toml"\n')

    assert problems({"config_file": str(path)}) == [
        f"{path}: config-file cannot be in a file; use the flag or the variable"
    ]


def test_each_bad_value_is_one_line_with_source_key_and_value(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("a.yaml", "rpc-port: 70000\nbootstrap: 3\nnode_name: 5\n")
    monkeypatch.setenv("RAFTLOG_BIND_ADDR", "localhost")
    monkeypatch.setenv("RAFTLOG_LOG_LEVEL", "loud")
    flags: dict[str, object] = {"config_file": str(path), "calls_max": "many", "stop_grace_ms": "1.5"}

    assert problems(flags) == [
        f"{path}: node_name is 5: not a text",
        f"{path}: bootstrap is 3: neither true nor false",
        ("environment: RAFTLOG_BIND_ADDR is 'localhost': not host:port, as in localhost:8400"),
        f"{path}: rpc-port is 70000: should be less than or equal to 65535",
        "flag: --calls-max is 'many': not a whole number",
        (
            "flag: --stop-grace-ms is '1.5': not a duration;"
            " write 10s, 5m, 1h30m, 7d or a number of milliseconds"
        ),
        "environment: RAFTLOG_LOG_LEVEL is 'loud': should be 'debug', 'info', 'warning' or 'error'",
    ]


def test_a_default_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "a_")

    assert problems()[0].startswith("default of node-name: use up to 63 letters")


def test_a_named_file_that_is_missing_is_an_error(nowhere: Path) -> None:
    path = nowhere / "missing.toml"

    assert problems({"config_file": str(path)}) == [f"{path}: No such file or directory"]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.toml", "rpc-port = ", "not valid toml: Invalid value (at end of document)"),
        ("a.yaml", "a: [", "not valid yaml: while parsing"),
        ("a.json", "{", "not valid json: Expecting property name"),
        ("a.json", "[1]", "a list, where keys with values are needed"),
        ("a.yaml", "hello", "a str, where keys with values are needed"),
        ("a.ini", "", "the name ends in none of .toml, .yaml, .yml, .json"),
        ("a", "", "the name ends in none of .toml, .yaml, .yml, .json"),
    ],
)
def test_a_file_that_cannot_be_understood_is_named(write: Write, name: str, text: str, problem: str) -> None:
    path = write(name, text)

    (line,) = problems({"config_file": str(path)})

    assert line.startswith(f"{path}: {problem}")


def test_a_file_that_is_no_text_is_named(nowhere: Path) -> None:
    path = nowhere / "a.toml"
    path.write_bytes(b"\xff")

    assert problems({"config_file": str(path)})[0].startswith(f"{path}: not valid toml: 'utf-8' codec")
