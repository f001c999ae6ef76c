"""What a stranger may have a server fetch: pictures of the public internet, and nothing else whatever it is
called. Every connection that is tried is noted, and none may lead elsewhere.
"""

from __future__ import annotations

import datetime
import gzip
import io
import ipaddress
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.public_internet import PUBLIC, PublicInternet, by_path, content, raw, redirect
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from promptglass import download as downloads
from promptglass import public_web
from promptglass.download import download
from promptglass.errors import ImageError
from promptglass.public_web import MOST_REDIRECTS, is_public

MOST = 1024 * 1024
HERE = "http://pictures.example/a.png"


def png(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 10), colour).save(file, "PNG")
    return file.getvalue()


PNG = png()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[PublicInternet]:
    with PublicInternet(monkeypatch) as web:
        web.names["pictures.example"] = [[PUBLIC]]
        yield web


def fetch(url: str) -> bytes:
    return download(url, public_only=True, most_bytes=MOST)


def refusal(url: str) -> str:
    with pytest.raises(ImageError) as caught:
        fetch(url)
    assert "\n" not in str(caught.value)
    return caught.value.reason


# -- where -------------------------------------------------------------------------------------------------

# Each is loopback, a network of its own, or a machine's host, in one disguise or another.
PLACES = [
    *("127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "2130706433", "0x7f000001", "0x7f.0.0.1"),
    *(
        "0177.0.0.1",
        "017700000001",
        "00000177.1",
        "0X7F.1",
        "127.0.0.1.",
        "127.0.0.1..",
        "0",
        "0.0.0.0",
        "00",
    ),
    *("localhost", "LOCALHOST", "localhost.", "some.localhost", "ip6-localhost", "loopback.example"),
    *("10.0.0.1", "10.1", "167772161", "172.16.0.1", "172.31.255.254", "192.168.1.1", "0xc0a80101"),
    *(
        "169.254.169.254",
        "2852039166",
        "0xA9FEA9FE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "0xa9.254.0xa9fe",
    ),
    *(
        "100.64.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "192.0.2.1",
        "198.18.0.1",
        "203.0.113.7",
        "192.88.99.1",
    ),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:10.0.0.1]"),
    *(
        "[::ffff:93.184.216.34]",
        "[::127.0.0.1]",
        "[::7f00:1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::169.254.169.254]",
    ),
    *("[64:ff9b:1::1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[2001:0:7f00:1::1]", "[2001:db8::1]"),
    *(
        "[fe80::1]",
        "[fe80::1%25lo]",
        "[fe80::1%lo]",
        "[fec0::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
    ),
    *("[100::1]", "[3fff::1]", "[2001:20::1]", "[5f00::1]"),
    *("１２７.０.０.１", "①②⑦.⓪.⓪.①", "127。0。0。1", "127．0．0．1", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "１２７｡１"),
    *(
        "127.0.0.1.nip.example",
        "inside.example",
        "half-inside.example",
        "mapped.example",
        "metadata.internal",
    ),
    # In a notation that not all read alike, and so in none at all.
    *("1572395042", "0x5db8d822", "0135.0270.0330.042", "93.184.55330", "93.184.216.034", "93.184.216.34."),
]
NAMES = {
    "some.localhost": ["127.0.0.1"],
    "ip6-localhost": ["::1"],
    "loopback.example": ["127.0.0.1"],
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "inside.example": ["10.0.0.7"],
    "half-inside.example": [PUBLIC, "10.0.0.7"],
    "mapped.example": ["::ffff:10.0.0.7"],
    "metadata.internal": ["169.254.169.254"],
}


@pytest.fixture
def inside(web: PublicInternet) -> PublicInternet:
    web.names.update({name: [ips] for name, ips in NAMES.items()})
    return web


@pytest.mark.parametrize("host", PLACES)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nothing_but_the_public_internet_is_asked(inside: PublicInternet, scheme: str, host: str):
    refusal(f"{scheme}://{host}/a.png")
    assert inside.connected == []


@pytest.mark.parametrize("host", PLACES)
def test_no_redirect_leads_inside(inside: PublicInternet, host: str):
    inside.serve(redirect(f"http://{host}/a.png"))
    refusal(HERE)
    assert inside.connected == [(PUBLIC, 80)]


ADDRESSES = [
    # whom is a parser to believe?
    *(
        "http://pictures.example@127.0.0.1/",
        "http://127.0.0.1@pictures.example/",
        "http://u:p@pictures.example/",
    ),
    *("http://@pictures.example/", "http://:@pictures.example/", "http://a%40b@pictures.example/"),
    *("http://127.0.0.1#@pictures.example/", "http://127.0.0.1?@pictures.example/"),
    *("http://127.0.0.1\\@pictures.example/", "http://127.0.0.1%2f@pictures.example/"),
    *("http://127.0.0.1:80\\@pictures.example/", "http://127.0.0.1:80:80@pictures.example/"),
    *("http://127.0.0.1%00.pictures.example/", "http://127.0.0.1\0.pictures.example/"),
    *(
        "http://127.0.0.1\t/",
        "http://\t127.0.0.1/",
        "http://127.0.0.1\n.pictures.example/",
        "\nhttp://127.0.0.1/",
    ),
    *("http://[::1]pictures.example/", "http://[::1", "http://::1/", "http://pictures.example[::1]/"),
    *("http:///127.0.0.1/", "http:127.0.0.1", "http:/127.0.0.1/", "http:\\\\127.0.0.1", "//127.0.0.1/"),
    # not the web
    *("file:///etc/passwd", "FILE:/etc/passwd", "ftp://pictures.example/a.png", "gopher://127.0.0.1:6379/_x"),
    *(
        "dict://127.0.0.1:11211/",
        "data:image/png;base64,iVBO",
        "jar:http://pictures.example!/",
        "httpx://127.0.0.1",
    ),
    *(
        "http+unix://%2ftmp%2fx/",
        "http",
        "",
        "/etc/passwd",
        "127.0.0.1",
        "http://",
        "https://",
        "http://?",
        "http://.",
    ),
    # other ports are other services
    *("http://pictures.example:22/", "http://pictures.example:7860/", "http://pictures.example:443/"),
    *("https://pictures.example:80/", "http://pictures.example:0/", "http://pictures.example:99999/"),
    *(
        "http://pictures.example:-1/",
        "http://pictures.example:８０/",
        f"http://pictures.example/{'a' * 5000}",
    ),
    *("http://a..b/", f"http://{'a' * 64}.example/", "http://\ud800/", "http://xn--/"),
]


@pytest.mark.parametrize("address", ADDRESSES, ids=lambda address: ascii(address)[:40])
def test_no_spelling_of_an_address_leads_inside(inside: PublicInternet, address: str):
    text = refusal(address)
    assert inside.connected == []
    assert "passwd" not in text


@pytest.mark.parametrize("address", ADDRESSES, ids=lambda address: ascii(address)[:40])
def test_no_spelling_of_a_redirect_leads_inside(inside: PublicInternet, address: str):
    location = address.encode("utf-8", "surrogatepass").decode("latin-1").translate({10: None, 13: None})
    inside.serve(by_path({"/a.png": redirect(location)}))
    refusal(HERE)
    assert {*inside.connected} == {(PUBLIC, 80)}
    assert all(headers["host"] == "pictures.example" for _, headers in inside.asked)


def test_a_name_is_resolved_once(web: PublicInternet):
    """Rebinding: the second answer of the resolver would be loopback."""
    web.names["pictures.example"] = [[PUBLIC], ["127.0.0.1"]]
    web.serve(content(PNG))
    assert fetch(HERE) == PNG
    assert web.resolved == ["pictures.example"]
    assert web.connected == [(PUBLIC, 80)]
    refusal(HERE)
    assert web.connected == [(PUBLIC, 80)]


def test_a_redirect_is_resolved_and_judged_again(web: PublicInternet):
    web.names["pictures.example"] = [[PUBLIC], ["127.0.0.1"]]
    web.serve(redirect("/b.png"))
    refusal(HERE)
    assert web.resolved == ["pictures.example"] * 2
    assert web.connected == [(PUBLIC, 80)]


def test_what_is_inside_and_what_is_nowhere_are_told_alike(inside: PublicInternet):
    assert refusal("http://inside.example/") == refusal("http://nowhere.example/")


NOT_GLOBAL = st.one_of(
    *(
        st.ip_addresses(network=block)
        for block in (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3", "::/8", "64:ff9b::/96", "::ffff:0:0/96"),
            *("2001::/32", "2001:db8::/32", "2002::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
        )
    )
)


@given(address=NOT_GLOBAL)
def test_no_address_of_a_special_block_is_public(address: ipaddress.IPv4Address):
    assert not is_public(str(address))


@given(address=st.ip_addresses())
def test_what_python_calls_private_is_not_public(address: ipaddress.IPv4Address):
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert not is_public(str(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "2a00::1"]
)
def test_the_public_internet_is_public(address: str):
    assert is_public(address)


# -- what --------------------------------------------------------------------------------------------------


def kinds() -> dict[str, bytes]:
    found = {}
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        file = io.BytesIO()
        Image.new("RGB", (20, 10), "red").save(file, kind)
        found[kind] = file.getvalue()
    return found


@pytest.mark.parametrize("kind", kinds())
def test_a_picture_is_fetched_whatever_the_server_calls_it(web: PublicInternet, kind: str):
    web.serve(content(kinds()[kind], Content_Type="text/html"))
    assert fetch(HERE) == kinds()[kind]
    (_, headers), *_ = web.asked
    assert headers["host"] == "pictures.example"
    assert headers["accept-encoding"] == "identity"
    assert not {"authorization", "cookie", "referer"} & {*headers}


def test_redirects_are_followed_so_far_and_no_further(web: PublicInternet):
    steps = {f"/{n}": redirect(f"/{n + 1}", (301, 302, 303, 307, 308)[n % 5]) for n in range(20)}
    web.names["elsewhere.example"] = [["2606:2800:220:1:248:1893:25c8:1946"]]
    web.serve(
        by_path({**steps, f"/{MOST_REDIRECTS}": content(PNG), "/away": redirect("//elsewhere.example/b")})
    )
    web.serve(content(PNG), "2606:2800:220:1:248:1893:25c8:1946")
    assert fetch("http://pictures.example/0") == PNG
    assert fetch("http://pictures.example/away") == PNG
    web.asked.clear()
    assert "more than 5 times" in refusal("http://pictures.example/9")
    assert len(web.asked) == MOST_REDIRECTS + 1


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no PNG"),
        (b"<!doctype html><h1>Log in</h1>", "no PNG"),
        (b"root:x:0:0:root:/root:/bin/bash", "no PNG"),
        (b'{"AccessKeyId": "secret"}', "no PNG"),
        (b"%PDF-1.7", "no PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no PNG"),
        (b"RIFF\0\0\0\0WAVEfmt ", "no PNG"),
        (b"GIF", "no PNG"),
        (b"\0\0\0\x20ftypheic", "no PNG"),
    ],
)
def test_what_is_no_picture_is_not_kept(web: PublicInternet, body: bytes, why: str):
    web.serve(content(body, Content_Type="image/png"))
    text = refusal(HERE)
    assert why in text
    assert "secret" not in text


@pytest.mark.parametrize("status", [201, 206, 204, 304, 401, 404, 500, 503])
def test_other_answers_are_told_by_number(web: PublicInternet, status: int):
    web.serve(raw(f"HTTP/1.1 {status} secret\r\nContent-Length: 0\r\n\r\n".encode()))
    assert refusal(HERE) == f"the server answered {status}. Check the address."


HEAD = b"HTTP/1.1 200 OK\r\n"


def packed(body: bytes) -> bytes:
    return gzip.compress(body, 9)


def unfinished(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(body) + packer.flush(zlib.Z_SYNC_FLUSH)


NOTHINGS = b"\0\0\0\xff\xff" * 9999  # blocks that unpack to no byte
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"10000\r\n" + PNG.ljust(65536) + b"\r\n"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (raw(HEAD + b"Content-Length: 9999999999999999999999\r\n\r\n", PNG), "more than 1 MB"),
        (raw(HEAD + b"\r\n", PNG, bytes(65536), times=10_000), "more than 1 MB"),
        (raw(CHUNKED, CHUNK, times=999), "more than 1 MB"),
        (content(packed(PNG + bytes(300 * 2**20)), Content_Encoding="gzip"), "more than 1 MB"),
        (content(zlib.compress(PNG + bytes(300 * 2**20)), Content_Encoding="deflate"), "more than 1 MB"),
        (
            raw(HEAD + b"Content-Encoding: gzip\r\n\r\n" + unfinished(PNG), NOTHINGS, times=999),
            "more than 1 MB",
        ),
        (content(PNG, Content_Encoding="br"), "no connection"),
        (content(PNG, Content_Encoding="zstd"), "no connection"),
        (content(PNG, Content_Encoding="gzip, gzip"), "no connection"),
        (content(b"\x1f\x8bnot so", Content_Encoding="gzip"), "no connection"),
        (raw(HEAD + b"X: " + b"y" * 70_000 + b"\r\n\r\n" + PNG), "no connection"),
        (raw(HEAD, b"X: y\r\n", times=1000), "no connection"),
        (raw(CHUNKED, b"0" * 70_000, times=10), "no connection"),
        (raw(b"SSH-2.0-secret\r\n"), "no connection"),
        (raw(b"\r\n"), "no connection"),
        (raw(b""), "no connection"),
        (raw(HEAD + b"Content-Length: 500\r\n\r\n" + PNG), "no connection"),
    ],
)
def test_no_answer_fills_the_memory(web: PublicInternet, answer, why: str):
    web.serve(answer)
    text = refusal(HERE)
    assert why in text
    assert "secret" not in text


def test_a_body_that_is_packed_all_the_same_is_unpacked(web: PublicInternet):
    web.serve(content(packed(PNG), Content_Encoding="gzip"))
    assert fetch(HERE) == PNG


def test_the_body_of_a_redirect_is_not_read(web: PublicInternet):
    endless = raw(b"HTTP/1.1 302 Found\r\nLocation: /b.png\r\n\r\n", bytes(65536), times=10**6)
    web.serve(by_path({"/a.png": endless, "/b.png": content(PNG)}))
    assert fetch(HERE) == PNG


def test_an_endless_text_is_left_at_its_first_bytes(web: PublicInternet):
    web.serve(raw(HEAD + b"\r\n", b"root:x:0:0:root\n", pause_s=0.05, times=10_000))
    assert "no PNG" in refusal(HERE)  # and not that it took too long


@pytest.mark.parametrize(
    "answer",
    [
        raw(HEAD + b"\r\n" + PNG, b"\0", pause_s=0.1, times=999),
        raw(HEAD + b"X: ", b"y", pause_s=0.1, times=999),
        raw(b"HTTP/1.1 100 Continue\r\n\r\n", pause_s=0.1, times=999),
        raw(b"", b"H", pause_s=5),
        raw(CHUNKED, b"0", pause_s=0.1, times=999),
    ],
)
def test_a_dripping_server_is_left_at_the_deadline(
    web: PublicInternet, monkeypatch: pytest.MonkeyPatch, answer
):
    monkeypatch.setattr(downloads, "PUBLIC_TIMEOUT_S", 0.7)
    web.serve(answer)
    started = time.monotonic()
    text = refusal(HERE)
    assert "not finished" in text or "too slow" in text
    assert time.monotonic() - started < 4
    assert ended_soon("promptglass download")


def test_a_resolver_that_does_not_answer_is_left(monkeypatch: pytest.MonkeyPatch):
    over = threading.Event()
    monkeypatch.setattr(downloads, "PUBLIC_TIMEOUT_S", 0.3)
    monkeypatch.setattr(public_web.socket, "getaddrinfo", lambda *_, **__: over.wait(20))
    assert "not finished" in refusal(HERE)
    over.set()


def ended_soon(name: str) -> bool:
    """Whether no thread of this name is left: who drips to many would fill the server with them."""
    for _ in range(100):
        if not any(thread.name == name for thread in threading.enumerate()):
            return True
        time.sleep(0.05)
    return False


def test_proxies_and_passwords_of_the_environment_are_not_used(
    web: PublicInternet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine pictures.example login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    web.serve(content(PNG))
    assert fetch(HERE) == PNG
    assert "authorization" not in web.asked[0][1]


def test_a_line_cannot_be_broken_into_the_request(web: PublicInternet):
    web.serve(content(PNG))
    for path in ("/a%0d%0aX-Evil:%201", "/a\r\nX-Evil: 1", "/a b.png", "/ä.png?q=ü#part"):
        fetch(f"http://pictures.example{path}")
    assert all("x-evil" not in headers for _, headers in web.asked)
    assert all(path.isascii() and " " not in path and "#" not in path for path, _ in web.asked)


# -- TLS ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For pictures.example, by itself."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pictures.example")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pictures.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def secure(web: PublicInternet, certificate: Path) -> PublicInternet:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    web.names["other.example"] = [[PUBLIC]]
    web.serve(content(PNG), tls=tls)
    return web


def test_the_name_is_verified_although_the_address_is_pinned(
    secure: PublicInternet, monkeypatch: pytest.MonkeyPatch, certificate: Path
):
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(public_web, "_tls", lambda: trusting)
    assert fetch("https://pictures.example/a.png") == PNG
    assert "certificate is not valid" in refusal("https://other.example/a.png")
    assert {*secure.connected} == {(PUBLIC, 443)}


def test_a_certificate_that_nobody_vouches_for_is_not_believed(secure: PublicInternet):
    assert "certificate is not valid" in refusal("https://pictures.example/a.png")


def test_a_person_at_the_command_line_may_mean_their_own_network(web: PublicInternet):
    """The same address that is refused above: nobody else asks there."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content(PNG)(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        assert download(f"http://127.0.0.1:{server.server_port}/a.png") == PNG
        refusal(f"http://127.0.0.1:{server.server_port}/a.png")
    finally:
        server.shutdown()
        server.server_close()
