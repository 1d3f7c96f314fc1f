"""Whether the server in this container is well: `health.py /healthz` (it runs) or `health.py /readyz` (it serves).

Asks the admin port where RAFTLOG_ADMIN_HOST and RAFTLOG_ADMIN_PORT say, else port 8403 of this container. Exit code 0 or
1, as Docker wants it; prints what the server says.
"""

from __future__ import annotations

import http.client
import os
import sys

ANSWER_S_MAX = 4.0
EVERYWHERE = "0.0.0.0"  # as raftlog.toml has it


def main(path: str) -> int:
    host = os.environ.get("RAFTLOG_ADMIN_HOST", EVERYWHERE)
    port = int(os.environ.get("RAFTLOG_ADMIN_PORT", "8403"))
    connection = http.client.HTTPConnection(
        "127.0.0.1" if host == EVERYWHERE else host, port, timeout=ANSWER_S_MAX
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        print(answer.read().decode().strip())
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer on port {port}: {error}")
        return 1
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
