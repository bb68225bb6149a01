"""A service manager is told how we are, in systemd's own protocol, where there is one."""

from __future__ import annotations

import socket
import sys

import pytest

from livestem.runtime.supervisor import SOCKET, Supervisor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="systemd's, so Linux's")


def test_assignments_arrive_as_one_datagram(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        Supervisor({SOCKET: str(tmp_path / "notify")}).tell("READY=1", "STATUS=well")
        assert manager.recv(1000) == b"READY=1\nSTATUS=well"


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
def test_an_abstract_socket_has_no_file(tmp_path):
    name = f"livestem-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(10)
        Supervisor({SOCKET: f"@{name}"}).tell("WATCHDOG=1")
        assert manager.recv(1000) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", [None, "", "/nowhere/notify"])
def test_nobody_to_tell_is_no_fault(address):
    Supervisor({} if address is None else {SOCKET: address}).tell("READY=1")
