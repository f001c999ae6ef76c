"""Whom routes answer: the host's own pages, and programs that ask on purpose; no other site in a browser.

The host's check lets through any name that somebody has pointed at this machine (DNS rebinding), and what
another site asks for without an Origin.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_address

from .errors import visible

HOSTS_VARIABLE = "PROMPTGLASS_HOSTS"


def refusal(
    method: str, headers: Mapping[str, str], own_names: Collection[str] | None, any_site: bool = False
) -> tuple[int, str] | None:
    """Status and one line where a request is not answered.

    own_names: the names, in lower case, under which this server is known beside its addresses and localhost.
    None: any name will do, as whoever asks shows a password besides. any_site: another site may ask this.
    """
    name = _host_name(headers.get("Host", ""))
    if own_names is not None and not (_is_address(name) or name == "localhost" or name in own_names):
        return 403, (
            f"not answered under the name {visible(name)[:100]!r}, which another site may have pointed here. "
            f"Use the server's address, or put the name into {HOSTS_VARIABLE}."
        )
    if not any_site and headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        return 403, "not answered to another site. Open the server's own page."
    content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    # No form of another site can send that without being asked first whether it may.
    if method == "POST" and content_type != "application/json":
        return 415, "the question must be JSON. Send it with Content-Type: application/json."
    return None


def own_names(listens: Iterable[str]) -> set[str]:
    """The names of a server: its machine's, those it listens on, and those the user vouches for."""
    machine = socket.gethostname()
    vouched = os.environ.get(HOSTS_VARIABLE, "").split(",")
    return {name.strip().lower() for name in (*listens, *vouched, machine, f"{machine}.local")} - {""}


def _host_name(header: str) -> str:
    """Of "name:8188" and "[::1]:8188"; empty where it is no such thing."""
    found = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:/?#@\s]+))(?::\d*)?", header)
    return (found[1] or found[2]).rstrip(".").lower() if found else ""


def _is_address(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return False
