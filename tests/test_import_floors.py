"""Who may import whom: imports point down only, and packages from outside are used where they belong.

The floors are in pyproject.toml. Think before changing them or RULES: a new arrow is a decision about the design, not a
way to make a test pass.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FLOORS: dict[str, list[list[str]]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"][
    "import-floors"
]


class Rule(NamedTuple):
    """What a package (or module) may import beside the standard library and itself."""

    ours: tuple[str, ...]  # prefixes of modules of this project
    theirs: tuple[str, ...]  # installed packages
    lazily: tuple[str, ...] = ()  # installed packages, within functions only


BASE = ("raftlog.errors", "raftlog.file_stamp")
PB = ("raftlog.pb",)
EMBED = ("logstore",)

# The longest prefix of a module's name counts. From the ground up.
RULES = {
    # ── the engine: usable without anything of raftlog ──
    "logstore": Rule(EMBED, ("numpy",), ("zstandard", "pyarrow")),
    "logstore.__main__": Rule(("logstore.cli",), ()),
    "logstore.config": Rule((), ()),
    "logstore.errors": Rule((), ()),
    "logstore.filesystem": Rule(("logstore.errors",), ()),
    "logstore.checksum": Rule((), ("numpy", "google_crc32c")),
    "logstore.frame": Rule(("logstore.checksum", "logstore.errors", "logstore.filesystem"), ()),
    "logstore.retention": Rule(("logstore.config",), ()),
    "logstore.group_commit": Rule(("logstore.errors",), ()),
    "logstore.testing": Rule(("logstore.errors", "logstore.filesystem"), ()),
    "logstore.benchmark": Rule(EMBED, ("numpy",), ("lmdb", "rocksdict")),
    "logstore.cli": Rule(EMBED, ("typer", "rich")),
    # ── protocols as values, and the world that tries to break them ──
    "raftlog.engine": Rule((), ()),
    "raftlog.raft": Rule(("raftlog.engine",), ()),
    "raftlog.serf": Rule(("raftlog.engine",), ()),
    "raftlog.serf.codec": Rule(("raftlog.engine", "raftlog.serf.config", "raftlog.serf.messages"), ("msgpack", "cryptography")),
    "raftlog.serf.swim": Rule(
        ("raftlog.engine", "raftlog.serf.codec", "raftlog.serf.config", "raftlog.serf.messages"), ()
    ),
    "raftlog.sim": Rule(("raftlog.engine", "raftlog.raft", "raftlog.serf"), ()),
    "raftlog.sim.pysyncobj": Rule(("raftlog.engine", "raftlog.sim"), ("pysyncobj",)),  # loaded by its name only
    "raftlog.sim.cli": Rule(("raftlog.sim",), ("typer",)),
    "raftlog.sim.__main__": Rule(("raftlog.sim.cli",), ()),
    # ── the server, its clients and its tools ──
    "raftlog.errors": Rule((), ()),
    "raftlog.file_stamp": Rule((), ()),
    "raftlog.wire": Rule(("raftlog.engine", "raftlog.raft", *PB, *EMBED), ("google.protobuf",)),
    "raftlog.net": Rule((*BASE, "raftlog.engine", "raftlog.raft", "raftlog.wire"), ("cryptography", "grpc")),
    "raftlog.storage": Rule((*BASE, *EMBED, "raftlog.engine", "raftlog.raft", "raftlog.wire.configurations"), ()),
    "raftlog.machines": Rule(
        (*BASE, "raftlog.engine", "raftlog.pb.raftlog.v1", "raftlog.raft", "raftlog.wire.configurations"), ("google.protobuf",)
    ),
    "raftlog.runtime": Rule(
        (*BASE, "raftlog.engine", "raftlog.machines", "raftlog.raft"), ("structlog", "prometheus_client")
    ),
    "raftlog.runtime.actor": Rule(("raftlog.engine",), ()),  # of any protocol
    "raftlog.net.gossip": Rule((*BASE, "raftlog.engine", "raftlog.net", "raftlog.runtime", "raftlog.serf"), ()),
    "raftlog.discovery": Rule((*BASE, "raftlog.engine", "raftlog.net", "raftlog.runtime", "raftlog.serf"), ("dns",)),
    "raftlog.autopilot": Rule(
        (
            *BASE, "raftlog.discovery", "raftlog.distributed", "raftlog.engine", "raftlog.machines", "raftlog.net",
            "raftlog.raft", "raftlog.runtime",
        ),
        (),
    ),
    "raftlog.distributed": Rule(
        (
            *BASE, *EMBED, "raftlog.pb.raftlog.v1", "raftlog.engine", "raftlog.machines", "raftlog.net.addresses",
            "raftlog.raft", "raftlog.runtime", "raftlog.storage",
        ),
        (),
    ),
    "raftlog.server": Rule(
        (*BASE, *PB, *EMBED, "raftlog.wire", "raftlog.net", "raftlog.runtime"),
        ("grpc", "grpc_health", "grpc_reflection", "casbin", "prometheus_client"),
    ),
    "raftlog.server.service": Rule(
        (
            *BASE, *PB, *EMBED, "raftlog.wire", "raftlog.server.budget", "raftlog.server.call",
            "raftlog.server.merging", "raftlog.server.produce_streams",
        ),
        (),
    ),  # no grpc: another front can be bound to the same functions
    "raftlog.server.cluster_service": Rule(
        (*BASE, *PB, *EMBED, "raftlog.net.addresses", "raftlog.server.call", "raftlog.server.service"), ()
    ),
    "raftlog.server.membership_service": Rule(
        (*BASE, *PB, "raftlog.server.call", "raftlog.server.cluster_service"), ()
    ),
    "raftlog.server.gossip_keys": Rule((*BASE, *PB, "raftlog.server.call"), ()),
    "raftlog.server.produce_streams": Rule((*BASE, *EMBED), ()),
    "raftlog.server.budget": Rule(BASE, ()),
    "raftlog.server.merging": Rule((*BASE, *EMBED), ()),
    "raftlog.server.call": Rule(BASE, ()),
    "raftlog.client": Rule((*BASE, *PB, *EMBED, "raftlog.config_keys", "raftlog.wire", "raftlog.net"), ("grpc",)),
    "raftlog.client.seeds": Rule((*BASE, "raftlog.discovery", "raftlog.net"), ()),
    "raftlog.pysyncobj": Rule(
        (
            *BASE, *EMBED, "raftlog.distributed.frames", "raftlog.distributed.status", "raftlog.engine",
            "raftlog.machines.producers", "raftlog.net", "raftlog.raft", "raftlog.runtime", "raftlog.storage",
            "raftlog.wire.raft_messages",
        ),
        ("pysyncobj",),
    ),  # loaded by its name only
    "raftlog.config": Rule(
        (*BASE, *EMBED, "raftlog.autopilot.settings", "raftlog.engine", "raftlog.raft.config", "raftlog.net", "raftlog.config_keys", "raftlog.config_peers",
         "raftlog.config_values"),
        ("pydantic", "pydantic_settings"),
    ),
    "raftlog.config_values": Rule(("raftlog.net.addresses",), ("pydantic", "pydantic_settings")),
    "raftlog.config_peers": Rule(
        ("raftlog.net.addresses", "raftlog.config_values"), ("pydantic", "pydantic_settings")
    ),
    "raftlog.config_files": Rule(BASE, ("yaml",)),
    "raftlog.config_keys": Rule(BASE, ()),
    "raftlog.config_seed": Rule(("raftlog.config_files", "raftlog.config_values"), ()),
    "raftlog.config_sources": Rule(
        (*BASE, "raftlog.config", "raftlog.config_files", "raftlog.config_peers", "raftlog.config_seed", "raftlog.config_values"),
        ("pydantic", "pydantic_core", "pydantic_settings"),
    ),
    "raftlog.front": Rule(
        (*BASE, "raftlog.config", "raftlog.net", "raftlog.runtime", "raftlog.server"), ("grpc",)
    ),
    "raftlog.finding": Rule(
        (
            *BASE, "raftlog.config", "raftlog.discovery", "raftlog.net", "raftlog.runtime.logging", "raftlog.serf.config",
            "raftlog.serf.events",
        ),
        (),
    ),
    "raftlog.joining": Rule(
        (
            *BASE, *PB, "raftlog.client", "raftlog.config", "raftlog.discovery.source", "raftlog.distributed.log",
            "raftlog.distributed.replica", "raftlog.engine", "raftlog.finding", "raftlog.machines", "raftlog.net.tls", "raftlog.raft.configuration", "raftlog.runtime.logging",
            "raftlog.storage.data_directory",
        ),
        ("grpc",),
    ),
    "raftlog.peer_entries": Rule(
        (*BASE, *EMBED, *PB, "raftlog.client", "raftlog.engine", "raftlog.net.tls"), ("grpc",)
    ),
    "raftlog.pysyncobj_home": Rule((*BASE, *EMBED, "raftlog.engine", "raftlog.storage"), ()),
    "raftlog.raft_engine": Rule(
        (
            *BASE, *EMBED, "raftlog.autopilot", "raftlog.config", "raftlog.discovery", "raftlog.distributed", "raftlog.engine",
            "raftlog.finding", "raftlog.joining", "raftlog.net", "raftlog.peer_entries", "raftlog.pysyncobj_home", "raftlog.raft", "raftlog.runtime.logging", "raftlog.storage",
        ),
        (),
    ),
    "raftlog.pysyncobj_engine": Rule(
        (
            *BASE, *EMBED, "raftlog.config", "raftlog.engine", "raftlog.joining", "raftlog.net", "raftlog.pysyncobj",
            "raftlog.pysyncobj_home", "raftlog.raft.log", "raftlog.runtime.logging", "raftlog.storage.hard_state",
        ),
        (),
    ),
    "raftlog.agent": Rule(
        (
            *BASE, *EMBED, "raftlog.config", "raftlog.discovery.source", "raftlog.engine", "raftlog.finding",
            "raftlog.front", "raftlog.net", "raftlog.pysyncobj_engine",
            "raftlog.raft_engine", "raftlog.runtime", "raftlog.server",
        ),
        (),
    ),
    "raftlog.server_main": Rule(("raftlog.agent", "raftlog.config", "raftlog.runtime"), (), ("uvloop",)),
    "raftlog.testing": Rule(
        (
            *BASE, *EMBED, "raftlog.agent", "raftlog.client", "raftlog.config", "raftlog.config_peers",
            "raftlog.distributed", "raftlog.engine", "raftlog.machines", "raftlog.net", "raftlog.raft", "raftlog.raft_engine",
            "raftlog.server", "raftlog.storage",
        ),
        (),
        ("uvloop",),
    ),
    "raftlog.testing.plugin": Rule(("raftlog.testing",), ("pytest",)),
    "raftlog.server_process": Rule((*BASE, *EMBED), ()),
    "raftlog.local_cluster": Rule(
        (*BASE, *EMBED, "raftlog.server_process", "raftlog.client", "raftlog.net", "raftlog.server.acl"), ()
    ),
    "raftlog.backup": Rule((*BASE, *EMBED, "raftlog.client"), ()),
    "raftlog.load": Rule((*EMBED, "raftlog.client"), ()),
    "raftlog.recovery": Rule(
        (*BASE, *EMBED, "raftlog.engine", "raftlog.machines", "raftlog.raft", "raftlog.storage"), ()
    ),
    "raftlog.demo": Rule((*BASE, "raftlog.local_cluster", "raftlog.server_process", "raftlog.client", "raftlog.net", "raftlog.server.acl"), ()),
    "raftlog.cli": Rule(("raftlog", *EMBED), ("typer", "rich", "pydantic")),
    "raftlog": Rule(("raftlog.client", "raftlog.net.tls", "raftlog.cli"), ()),
}  # fmt: skip

# What stands on top of the engine, and who may know of it.
TOOLS = ("logstore.cli", "logstore.benchmark", "logstore.testing", "logstore.__main__")
MAY_USE_TOOLS = (*TOOLS, "raftlog.cli")

# What only `logstore.filesystem` may do, because tests hand the engine a file system that crashes.
FILE_MODULES = ("mmap", "fcntl", "pathlib", "shutil", "tempfile", "glob")
HARMLESS_OF_OS = {
    "os.PathLike", "os.fspath", "os.getpid", "os.strerror", "os.path", "os.path.dirname", "os.path.basename",
    "os.path.join", "os.path.normpath",
}  # fmt: skip
# Of these, proglog reads files that are not ours.
TOUCH_FILES = ("logstore.filesystem", "logstore.proglog", "logstore.cli", "logstore.benchmark")


class Import(NamedTuple):
    module: str
    is_lazy: bool  # within a function
    line: int


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_name(path): path
    for package in ("logstore", "raftlog")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "raftlog/pb/" not in path.as_posix()  # generated
}


def imports_of(tree: ast.AST, *, is_lazy: bool = False) -> Iterator[Import]:
    """Every import that runs; those under `if TYPE_CHECKING` do not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (Import(name.name, is_lazy, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, "imports are absolute"
            inner = (f"{node.module}.{name.name}" for name in node.names)
            yield from (Import(one if one in MODULES else node.module, is_lazy, node.lineno) for one in inner)
        else:
            is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from imports_of(node, is_lazy=is_lazy or is_function)


def is_within(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def rule_of(module: str) -> tuple[str, Rule]:
    name = max((name for name in RULES if is_within(module, (name,))), key=len)
    return name, RULES[name]


def floor_of(module: str) -> tuple[int, str]:
    """(number of its floor, the entry there that it belongs to)."""
    package, _, rest = module.partition(".")
    entry = rest.split(".")[0]
    return next((number, entry) for number, floor in enumerate(FLOORS[package]) if entry in floor)


@pytest.mark.parametrize("package", FLOORS)
def test_every_module_has_one_floor(package: str) -> None:
    entries = [entry for floor in FLOORS[package] for entry in floor]
    there = {name.split(".")[1] for name in MODULES if name.startswith(f"{package}.")}

    assert sorted(entries) == sorted({*there, *(["pb"] if package == "raftlog" else [])})


@pytest.mark.parametrize("module", [name for name in MODULES if "." in name])
def test_imports_point_to_lower_floors(module: str) -> None:
    number, entry = floor_of(module)
    package = module.split(".")[0]

    upwards = [
        f"line {one.line}: {one.module}"
        for one in imports_of(ast.parse(MODULES[module].read_text()))
        if one.module.startswith(f"{package}.")
        and not (floor_of(one.module)[0] < number or floor_of(one.module)[1] == entry)
    ]

    assert upwards == []


def is_allowed(importer: str, one: Import) -> bool:
    name, rule = rule_of(importer)
    package = one.module.split(".")[0]
    if package in ("logstore", "raftlog"):
        is_inside = name not in ("logstore", "raftlog") and is_within(one.module, (name,))
        is_tool = is_within(one.module, TOOLS) and not is_within(importer, MAY_USE_TOOLS)
        return (is_inside or is_within(one.module, rule.ours)) and not is_tool
    if package in sys.stdlib_module_names:
        return True
    return is_within(one.module, rule.theirs) or (one.is_lazy and is_within(one.module, rule.lazily))


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_its_floor_allows(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())

    wrong = [f"line {one.line}: {one.module}" for one in imports_of(tree) if not is_allowed(module, one)]

    assert wrong == [], f"{module} may not import these; see RULES"


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_of_something_that_exists_and_is_used(name: str) -> None:
    modules = [module for module in MODULES if rule_of(module)[0] == name]
    used = {one.module for module in modules for one in imports_of(ast.parse(MODULES[module].read_text()))}
    _, _, lazily = RULES[name]

    assert modules, "no module has this rule"
    assert not [
        one for one in (*RULES[name].theirs, *lazily) if not any(is_within(each, (one,)) for each in used)
    ]


@pytest.mark.parametrize(
    "module", [one for one in MODULES if is_within(one, EMBED) and not is_within(one, TOUCH_FILES)]
)
def test_engine_touches_files_through_the_seam_alone(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())

    wrong = [
        f"line {one.line}: {one.module}" for one in imports_of(tree) if is_within(one.module, FILE_MODULES)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.fullmatch(r"os(\.\w+)+", name := ast.unparse(node)):
            wrong += [f"line {node.lineno}: {name}"] * (name not in HARMLESS_OF_OS)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("open", "io.open"):
            wrong.append(f"line {node.lineno}: open()")
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "os.path"):
            wrong.append(f"line {node.lineno}: from os import ...")

    assert wrong == []


EMBEDDED = """
import sys

REFUSED = {refused!r}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if any(name == one or name.startswith(one + ".") for one in REFUSED):
            raise ModuleNotFoundError(f"no module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())

import logstore

with logstore.Log({path!r}, logstore.Config(segment_bytes_max=500)) as log:
    for number in range(10):
        log.append(b"value %d" % number)
    log.append_batch([logstore.Record(b"a", key=b"k"), b"b"])
    log.compact()
    assert [record.value for record in log.scan()][-1] == b"b" and len(log.read_many([0, 5])) == 2

loaded = {{name.split(".")[0] for name in sys.modules}} & {{"mmap", "zstandard", "pyarrow", "raftlog"}}
print(sorted(loaded - {{"mmap"}}))
"""


def test_engine_works_where_nothing_of_raftlog_is_installed(tmp_path: Path) -> None:
    refused = (
        "raftlog", "grpc", "grpc_health", "grpc_reflection", "google.protobuf", "cryptography", "casbin", "pydantic",
        "pydantic_core", "pydantic_settings", "yaml", "structlog", "prometheus_client", "uvloop", "typer", "rich",
        "pyarrow", "zstandard", "hypothesis", "typing_extensions",
    )  # fmt: skip
    program = EMBEDDED.format(refused=refused, path=str(tmp_path / "log"))

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
