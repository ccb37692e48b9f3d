"""Decides which addresses a web hook may call, so that no client can reach the service's own network.

A web hook makes the service send a request to an address of the client's choice. Addresses that are
not public (this machine, its network, the metadata of its cloud) are refused, in every notation.
"""

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

# Addresses without a possible receiver that Python's table calls global, or does not decide on.
_REFUSED_V4 = (
    IPv4Network("192.0.0.0/24"),  # protocols; at Oracle, the metadata of a machine
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
    IPv4Network("168.63.129.16/32"),  # the host of a machine at Azure
)
_UNICAST_V6 = IPv6Network("2000::/3")  # all that is routed in the internet
_REFUSED_V6 = (
    IPv6Network("2001::/23"),  # protocols, with Teredo, which leads on to any IPv4 address
    IPv6Network("2002::/16"),  # 6to4, likewise
    IPv6Network("3fff::/20"),  # documentation
)
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an address is public; False for a string that is not an address.

    An IPv4 address inside an IPv6 one (`::ffff:10.0.0.1`, NAT64) is checked as an IPv4 address.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        inner = _inside(ip)
        if inner is None:
            is_refused = any(ip in network for network in _REFUSED_V6)
            return ip in _UNICAST_V6 and ip.is_global and not is_refused
        ip = inner
    is_special = ip.is_multicast or ip.is_reserved or ip.is_unspecified
    return ip.is_global and not is_special and not any(ip in network for network in _REFUSED_V4)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a socket that is bound to `address`; False for a name."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def private_literal(host: str) -> str | None:
    """Read a host as an address, in any notation that a resolver accepts; return it if it is not public.

    A name returns None: its addresses are checked when it is resolved, and may differ each time.
    """
    name = host.strip("[]").rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return name
    try:
        entries = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    addresses = [str(entry[4][0]) for entry in entries]
    return next((address for address in addresses if not is_public(address)), None)


def _inside(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFF_FFFF) if address in _NAT64 else None
