"""Which addresses the service may be sent to by a client, so that nobody reaches its insides through it.

A web hook makes the service send a request to wherever a client says. What is not open to everybody
anyway (this machine, its network, the metadata of its cloud) is refused, in every notation.
"""

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

# What Python's table calls global, or leaves open, and is no receiver of anybody's.
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
    """Tell whether an address is open to everybody; what is no address is not.

    An IPv4 address inside of an IPv6 one (`::ffff:10.0.0.1`, NAT64) is judged as what it is.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        inner = _inside(parsed)
        if inner is None:
            refused = any(parsed in network for network in _REFUSED_V6)
            return parsed in _UNICAST_V6 and parsed.is_global and not refused
        parsed = inner
    special = parsed.is_multicast or parsed.is_reserved or parsed.is_unspecified
    return parsed.is_global and not special and not any(parsed in network for network in _REFUSED_V4)


def is_loopback(address: str) -> bool:
    """Tell whether only this machine reaches a socket that is bound to `address`; no name is one."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def private_literal(host: str) -> str | None:
    """Read a host as an address, in any notation a resolver takes; gives it where it is not public.

    A name gives None: what it leads to is seen when it is asked, and may be another thing each time.
    """
    name = host.strip("[]").rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return name
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    addresses = [str(entry[4][0]) for entry in found]
    return next((address for address in addresses if not is_public(address)), None)


def _inside(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFF_FFFF) if address in _NAT64 else None
