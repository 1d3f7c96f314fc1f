"""Certificates are replaced while servers run and clients go on."""

from __future__ import annotations

import ssl

from raftlog.net.certificates import LOOPBACK_NAMES, CertificatePlan, Role, issue_into_folder
from tests.raftlog.cluster.servers import Servers

PLAN = CertificatePlan()


def shown(address: str) -> str:
    """The certificate that a server presents to a new client."""
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port))).strip()


def test_new_certificates_are_used_without_a_restart(three: Servers) -> None:
    with three.load() as load:
        load.wait_for_progress()
        before = {shown(address) for address in three.addresses.values()}
        issue_into_folder(three.certs, PLAN.server_name, Role.SERVER, host_names=LOOPBACK_NAMES, force=True)
        issue_into_folder(three.certs, PLAN.peer_name, Role.PEER, host_names=LOOPBACK_NAMES, force=True)
        expected = (three.certs / "server.pem").read_text().strip()
        three.wait_until(
            lambda: {shown(address) for address in three.addresses.values()} == {expected}, "old certificates"
        )
        assert expected not in before
        follower = three.follower()
        three.servers[follower].kill()  # whose connections with the others are new when it is back
        three.restart(follower)
        leader = three.leader()
        [third] = set(three.servers) - {leader, follower}
        three.servers[third].kill()
        load.wait_for_progress()  # which needs the one that was restarted
        three.restart(third)

        three.require_sound(load)
