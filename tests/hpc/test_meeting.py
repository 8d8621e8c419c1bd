"""Ranks find rank 0's port without having agreed on one: taken doors and strangers do not confuse them."""

from __future__ import annotations

import socket
import threading

import pytest

from hpc import meeting
from hpc.meeting import MeetingError, answering, ask_port, doors, interface_of, misleading_name


def test_the_port_is_told_to_everyone_who_asks():
    with answering("7.0.0", 4242) as reception:
        assert reception.own_address(0.05) is None
        assert [ask_port("127.0.0.1", "7.0.0", 5) for _ in range(3)] == [(4242, "127.0.0.1")] * 3
        assert reception.own_address(5) == "127.0.0.1"


def test_a_stranger_at_the_agreed_door_is_passed_over():
    with socket.create_server(("", doors("8.0.0")[0])) as stranger:
        stop = threading.Event()

        def babble() -> None:
            stranger.settimeout(0.1)
            while not stop.is_set():
                try:
                    visitor, _ = stranger.accept()
                except TimeoutError:
                    continue
                visitor.sendall(b"220 mail ready\n")
                visitor.close()

        thread = threading.Thread(target=babble)
        thread.start()
        try:
            with answering("8.0.0", 99):
                assert ask_port("127.0.0.1", "8.0.0", 5)[0] == 99
        finally:
            stop.set()
            thread.join()


def test_a_rank_0_of_another_attempt_is_a_stranger_too(monkeypatch):
    monkeypatch.setattr(meeting, "doors", lambda identity: doors("9.0.0"))
    with answering("9.0.0", 1), pytest.raises(MeetingError, match="did not answer"):
        ask_port("127.0.0.1", "9.0.1", 0.5)


def test_nobody_at_home_is_an_error_that_names_both_ends():
    with pytest.raises(MeetingError, match=r"rank 0 did not answer on 127\.0\.0\.1 within 0 s.*firewall"):
        ask_port("127.0.0.1", "10.0.0", 0.3)


def test_every_attempt_has_doors_of_its_own_below_the_ephemeral_ports():
    assert doors("1.0.0") != doors("1.0.1")
    assert all(20_000 <= door < 32_000 for door in doors("1.0.0"))
    assert len(set(doors("1.0.0"))) == meeting.DOORS


def test_the_interface_of_an_address():
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.9") is None


def test_a_name_that_points_to_loopback_misleads_only_where_others_reach_the_node_elsewhere(monkeypatch):
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.1.1")
    assert misleading_name("10.0.0.5")
    assert not misleading_name("127.0.0.1")
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "10.0.0.5")
    assert not misleading_name("10.0.0.5")
