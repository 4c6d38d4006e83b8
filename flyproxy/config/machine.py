"""What resolving asks of the machine it runs on: CPUs, identity, names, addresses. Tests hand over another one."""

from __future__ import annotations

import hashlib
import importlib.util
import ipaddress
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

_MACHINE_ID_FILES = ("/etc/machine-id", "/var/lib/dbus/machine-id")


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts about one machine that a configuration leaves open."""

    cpus: int
    host: str
    """4 hex digits, the same at every start."""
    terminal: bool
    """Does a person read standard output?"""
    uvloop: bool
    """Is uvloop installed?"""
    look_up: Callable[[str], str]
    """The IP address of a name, IPv4 first; OSError when there is none."""
    is_own: Callable[[str], bool]
    """Is this IP address one of the machine's own?"""


def this_machine() -> Machine:
    """The machine this process runs on."""
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        host=four_digits(_identity()),
        terminal=sys.stdout is not None and sys.stdout.isatty(),
        uvloop=importlib.util.find_spec("uvloop") is not None,
        look_up=look_up,
        is_own=is_own,
    )


def four_digits(text: str) -> str:
    """4 hex digits for a text. A digest: machine ids are not to be shown."""
    return hashlib.sha256(b"flyproxy host\0" + text.encode()).hexdigest()[:4]


def look_up(name: str) -> str:
    """The address of a name by the system's resolver, IPv4 first. Raises OSError."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    return next((address for address in addresses if ":" not in address), addresses[0])


def is_own(address: str) -> bool:
    """Is it a loopback address, or one a socket of this machine can bind?"""
    ip = ipaddress.ip_address(address)
    if ip.is_loopback or ip.is_unspecified:
        return True
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _identity() -> str:
    for path in _MACHINE_ID_FILES:
        try:
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text:
            return text
    return socket.gethostname()
