"""Whom routes answer."""

from __future__ import annotations

import pytest

from promptglass.guard import own_names, refusal

LOCAL = {"Host": "127.0.0.1:8188"}


@pytest.mark.parametrize(
    "headers",
    [
        LOCAL,
        {"Host": "127.0.0.1"},
        {"Host": "localhost:8188"},
        {"Host": "LOCALHOST."},
        {"Host": "[::1]:8188"},
        {"Host": "[::1]"},
        {"Host": "[fe80::1%eth0]:8188"},
        {"Host": "192.168.1.20:8188"},
        {"Host": "gpu-box:8188"},
        {**LOCAL, "Sec-Fetch-Site": "same-origin"},
        {**LOCAL, "Sec-Fetch-Site": "none"},
    ],
)
def test_own_pages_and_programs_are_answered(headers):
    assert refusal("GET", headers, {"gpu-box"}) is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": ""},
        {"Host": "evil.example:8188"},  # DNS rebinding: the browser takes it for the same origin
        {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost.evil.example"},
        {"Host": "gpu-box.evil.example"},
        {"Host": "evil.example@127.0.0.1"},
        {"Host": "127.0.0.1:8188/evil.example"},
        {"Host": "[::1].evil.example"},
        {"Host": "[evil.example]:8188"},
        {"Host": "::1"},
        {**LOCAL, "Sec-Fetch-Site": "cross-site"},
        {**LOCAL, "Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_are_refused(headers):
    status, line = refusal("GET", headers, {"gpu-box"})
    assert status == 403
    assert "\n" not in line


@pytest.mark.parametrize(
    ("content_type", "is_taken"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("text/plain", False),
        ("application/x-www-form-urlencoded", False),
        ("multipart/form-data; boundary=application/json", False),
        ("", False),
    ],
)
def test_only_json_is_posted(content_type, is_taken):
    refused = refusal("POST", {**LOCAL, "Content-Type": content_type}, ())
    assert (refused is None) == is_taken
    assert is_taken or refused[0] == 415


def test_names_are_the_machines_those_listened_on_and_those_vouched_for(monkeypatch):
    monkeypatch.setenv("PROMPTGLASS_HOSTS", "Glass.example, ,studio")
    assert own_names(["", "GPU-box"]) >= {"glass.example", "studio", "gpu-box"}
    assert "" not in own_names([""])
