"""Say in one sentence that a port is taken: MkDocs would build the whole site first and then end in a traceback."""

import socket
import sys

port = int(sys.argv[1])
with socket.socket() as probe:
    if sys.platform != "win32":
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        sys.exit(f"Port {port} is taken by another program. Take another one: PORT={port + 1} make serve")
