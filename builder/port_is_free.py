"""Say in one sentence what is wrong with a port: MkDocs would build the whole site first and then end in a traceback."""

import errno
import socket
import sys


def main(arguments: list[str]) -> int:
    """The exit status: 0 where the port that is named can be served on; a sentence on stderr where not."""
    if told := fault((arguments or [""])[0]):
        print(told, file=sys.stderr)
        return 1
    return 0


def fault(written: str) -> str | None:
    """Why a site cannot be served on the port that `written` names, or None."""
    port = int(written) if written.isdecimal() else 0
    if not 0 < port < 65536:
        return f"PORT is {written!r}, and should be a number from 1 to 65535: PORT=8000 make serve"
    with socket.socket() as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            what = "forbidden to you" if error.errno == errno.EACCES else "taken by another program"
            other = port + 1 if 1024 <= port < 65535 else 8000
            return f"Port {port} is {what}. Take another one: PORT={other} make serve"
    return None
