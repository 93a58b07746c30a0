"""Ports of this machine."""

import argparse
import socket
from typing import Final

HOST: Final = "127.0.0.1"


def parse_port(text: str) -> int:
    """Return the port that a command line names; 0 is any that is free.

    Raises:
        argparse.ArgumentTypeError: when it names none.
    """
    if not text.isascii() or not text.isdigit() or int(text[:9]) > 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port
