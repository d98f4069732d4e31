"""Hosts as browsers write them (https://url.spec.whatwg.org/#host-parsing and #host-serializing)."""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import idna

NAME: Final = re.compile(r"(?!.{255})[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
NUMBER: Final = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)\.?")  # what browsers take for an IPv4 address


def browser_host(host: str) -> str:
    """Return a host name or an address without brackets as browsers write it. Raises ValueError if it is neither.

    International names become ASCII (UTS 46, as in browsers not transitional).
    """
    if ":" in host:
        return f"[{_ipv6(host)}]"
    name = host.lower() if host.isascii() else idna.encode(host, uts46=True).decode()
    if NUMBER.fullmatch(name):
        return str(IPv4Address(name))
    if not NAME.fullmatch(name):
        raise ValueError(f"{host!r} is no host")
    return name


def _ipv6(host: str) -> str:
    address = IPv6Address(host)
    if address.scope_id:
        raise ValueError(f"{host!r} names a network interface")
    # Python writes the IPv4 address in it with dots, or not, by version.
    mapped = address.ipv4_mapped
    return f"::ffff:{int(mapped) >> 16:x}:{int(mapped) & 0xFFFF:x}" if mapped else str(address)
