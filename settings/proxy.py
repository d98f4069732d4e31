"""The proxy and the certificates with which the issuer's keys are fetched, as the environment sets them.

The variables are those of curl and of most programs, and not this service's own: container tools put all kinds of
values there. So what does not concern the issuer is passed over, and what does is checked at the start.
"""

import os
import ssl
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from settings.hosts import browser_host
from settings.values import InvalidSettings


def proxy_for(url: str) -> str | None:
    """Return the URL of the proxy that leads to another URL, None for none. Raises InvalidSettings."""
    target, proxies = urlsplit(url), getproxies()
    proxy = (proxies.get(target.scheme) or proxies.get("all") or "").strip()
    exempt = [entry.strip() for entry in proxies.get("no", "").split(",")]
    if not proxy or "*" in exempt or proxy_bypass(target.netloc) or _is_in(target.hostname or "", exempt):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    with suppress(ValueError):
        parts = urlsplit(proxy)
        if parts.scheme in ("http", "https") and browser_host(parts.hostname or "") and parts.port != 0:
            return proxy
    # The value may have a password, so it is not shown.
    raise InvalidSettings(
        f"{target.scheme.upper()}_PROXY or ALL_PROXY is no URL of an HTTP proxy, which leads to {target.hostname}. "
        "Write it like http://proxy.example.com:3128, or put that host into NO_PROXY."
    )


def _is_in(host: str, networks: list[str]) -> bool:
    """Tell whether a host is an address in one of the networks; whatever is no network is passed over."""
    with suppress(ValueError):
        address = ip_address(host)
        for network in networks:
            with suppress(ValueError):
                if address in ip_network(network.strip("[]"), strict=False):
                    return True
    return False


def check_certificates(url: str) -> None:
    """Raise InvalidSettings unless the certificates that verify the server at a URL can be read."""
    if not url.startswith("https:"):
        return
    file, directory = (os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
    if file:
        try:
            ssl.create_default_context(cafile=file)
        except OSError as error:  # ssl.SSLError too
            reason = error.strerror or error
            raise InvalidSettings(
                f"SSL_CERT_FILE is {file!r}, from which no certificate can be read ({reason}). Correct or remove it."
            ) from None
    elif directory and not Path(directory).is_dir():
        raise InvalidSettings(f"SSL_CERT_DIR is {directory!r}, which is no folder. Correct or remove it.")
