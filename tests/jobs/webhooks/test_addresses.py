"""Private addresses are refused in every notation."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.webhooks.addresses import is_loopback, is_public, private_literal

PUBLIC = [
    "93.184.215.14",
    "8.8.8.8",
    "1.1.1.1",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
]
PRIVATE = [
    "0.0.0.0",  # noqa: S104 - nothing is bound to it
    "127.0.0.1", "127.255.255.254", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255",
    "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255", "192.88.99.1", "168.63.129.16",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1",
    "fe80::1%eth0", "fec0::1", "ff02::1", "100::1", "5f00::1", "4000::1", "", "no address", "1.2.3",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_called(address: str) -> None:
    assert is_public(address)
    assert private_literal(address) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_may_not_be_called(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "0", "0x7f.1", "2130706433", "0177.0.0.1", "0xa9fea9fe", "10.1", "[::1]",
        "[::ffff:127.0.0.1]", "[fe80::1]", "localhost", "a.localhost", "localhost.", "127.0.0.1.",
    ],
)  # fmt: skip
def test_address_literals_are_recognised_in_every_notation(host: str) -> None:
    assert private_literal(host) is not None


@pytest.mark.parametrize(
    "host", ["example.com", "93.184.215.14", "[2606:4700:4700::1111]", "10.example.com", "ü.de"]
)
def test_names_and_public_literals_are_not_refused_before_they_are_called(host: str) -> None:
    assert private_literal(host) is None


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_has_the_same_verdict_inside_ipv6(address: ipaddress.IPv4Address) -> None:
    public = is_public(str(address))
    assert is_public(f"::ffff:{address}") == public
    assert (
        is_public(str(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + int(address))))
        == public
    )
    assert public <= (address.is_global and not address.is_private and not address.is_multicast)


@pytest.mark.parametrize(
    ("address", "answer"),
    [
        *((address, True) for address in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "::1%lo")),
        *((address, False) for address in ("::", "10.9.9.9", "fe80::1%eth0", "localhost", "")),
        ("0.0.0.0", False),  # noqa: S104 - judged, not listened on
    ],
)
def test_only_an_address_of_this_machine_alone_is_loopback(address: str, answer: bool) -> None:
    assert is_loopback(address) is answer
