"""Allowed origins, proxies, a path prefix, and TLS."""

import asyncio
import datetime
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lorarec.errors import LorarecError
from lorarec.serving import tls
from lorarec.serving.app import create_app
from lorarec.serving.connections import ConnectionLimits, ServerConfig
from lorarec.serving.http_config import HttpConfig, require_key
from lorarec.serving.page import FILES
from lorarec.serving.service import Service
from lorarec.serving.tls import check_certificate

SHOP = "https://shop.example"
KEY = {"authorization": "Bearer secret"}
PREFLIGHT = {"origin": SHOP, "access-control-request-method": "POST"}


@pytest.fixture
def play_with(service: Service, play: Any) -> Callable[..., Any]:
    """Run a scenario against a service with options of the HTTP server."""

    def run(scenario: Any, key: str | None, **options: Any) -> Any:
        return play(service, scenario, key, HttpConfig(**options))

    return run


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"cors_origins": ["*"]}, "option cors_origins must be exact origins .* got '\\*'"),
        ({"cors_origins": ["null"]}, "got 'null'"),
        ({"cors_origins": ["https://shop.example/"]}, "without a path"),
        ({"cors_origins": ["https://*.shop.example"]}, "exact origins"),
        ({"cors_origins": ["https://Shop.example"]}, "in lower case"),
        ({"cors_origins": ["shop.example"]}, "exact origins"),
        ({"cors_origins": [SHOP, f"{SHOP}:443"]}, "leave out the port"),
        ({"cors_origins": SHOP}, "must be list or null"),
        ({"root_path": "shop"}, "option root_path must be a path"),
        ({"root_path": "/shop/"}, "without a slash at its end"),
        ({"root_path": "/a/../b"}, "option root_path"),
        ({"root_path": "//evil.example"}, "option root_path"),
        ({"root_path": "/a\nb"}, "option root_path"),
        ({"forwarded_allow_ips": "proxy"}, "option forwarded_allow_ips must be addresses .* got 'proxy'"),
        ({"forwarded_allow_ips": "10.0.0.0/8,"}, "option forwarded_allow_ips"),
        ({"ssl_keyfile": "key.pem"}, "give option ssl_certfile too"),
        ({"keys": 3}, "option keys must be str or null, got 3"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(LorarecError, match=reason):
        HttpConfig(**options)


def test_usable_options_are_taken() -> None:
    HttpConfig(cors_origins=[SHOP, "http://localhost:3000", "http://[::1]:3000"], root_path="/shop/v2.1")
    for addresses in ("*", "10.0.0.0/8, 127.0.0.1", "::1,fd00::/8"):
        HttpConfig(forwarded_allow_ips=addresses)


def test_pages_of_allowed_origins_may_use_the_api(play_with: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        asked = await client.options(
            "/v1/rank", headers=PREFLIGHT | {"access-control-request-headers": "authorization,content-type"}
        )
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == SHOP
        assert "POST" in asked.headers["access-control-allow-methods"]
        assert "authorization" in asked.headers["access-control-allow-headers"].lower()
        assert "access-control-allow-credentials" not in asked.headers
        answered = await client.get("/v1/items", headers=KEY | {"origin": SHOP})
        assert (answered.status_code, answered.headers["access-control-allow-origin"]) == (200, SHOP)
        exposed = set(answered.headers["access-control-expose-headers"].split(", "))
        assert {"X-Request-ID", "Retry-After", "Link", "X-Adapter-Versions", "X-Variant"} <= exposed
        assert "origin" in answered.headers["vary"].lower()
        refused = await client.get("/v1/items", headers={"origin": SHOP})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, SHOP)
        for origin in ("https://evil.example", f"{SHOP}.evil.example", "http://shop.example", f"{SHOP}:8443", "null"):
            denied = await client.options("/v1/rank", headers=PREFLIGHT | {"origin": origin})
            assert (denied.status_code, denied.headers["content-type"]) == (400, "application/problem+json")
            assert "origin" in denied.json()["detail"]
            assert "access-control-allow-origin" not in denied.headers
            other = await client.get("/v1/items", headers=KEY | {"origin": origin})
            assert "access-control-allow-origin" not in other.headers

    play_with(scenario, "secret", cors_origins=[SHOP])


def test_without_allowed_origins_no_page_of_another_is_answered(play_with: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        assert (await client.options("/v1/rank", headers=PREFLIGHT)).status_code in (401, 405)
        answer = await client.get("/v1/items", headers=KEY | {"origin": SHOP})
        assert "access-control-allow-origin" not in answer.headers

    play_with(scenario, "secret")


def test_a_service_without_keys_allows_no_origins(service: Service) -> None:
    """Otherwise any program of the allowed page could use what is meant for this machine alone."""
    config = HttpConfig(cors_origins=["http://localhost:3000"])
    for check in (lambda: require_key("127.0.0.1", None, config), lambda: create_app(service, None, config)):
        with pytest.raises(LorarecError, match="option cors_origins lets other web pages in: set LORAREC_API_KEY"):
            check()
    require_key("0.0.0.0", None, HttpConfig(keys="keys.yaml", cors_origins=[SHOP]))


def test_a_path_prefix_is_known_whether_or_not_the_proxy_removes_it(play_with: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        for prefix in ("", "/shop/rec"):
            assert (await client.get(f"{prefix}/healthz")).status_code == 200
            assert (await client.get(f"{prefix}/v1/items")).status_code == 401
            assert (await client.get(f"{prefix}/v1/items", headers=KEY)).status_code == 200
            description = (await client.get(f"{prefix}/openapi.json", headers=KEY)).json()
            assert description["servers"] == [{"url": "/shop/rec"}]
            assert "/v1/rank" in description["paths"]
            for path in FILES:
                assert (await client.get(f"{prefix}{path}")).status_code == 200
            assert (await client.post(f"{prefix}/healthz", headers=KEY)).status_code == 405
        for path in ("/shop/recommend/healthz", "/shop/healthz", "/shop/rec/shop/rec/healthz", "/shop/rec"):
            assert (await client.get(path)).status_code == 401
            assert (await client.get(path, headers=KEY)).status_code == 404
        metrics = (await client.get("/metrics", headers=KEY)).text
        assert 'path="/healthz",status="200"} 2.0' in metrics

    play_with(scenario, "secret", root_path="/shop/rec")


@pytest.mark.parametrize(
    ("addresses", "client", "scheme"),
    [
        ("127.0.0.1,::1", "127.0.0.1", "https"),
        ("127.0.0.1,::1", "10.1.2.3", "http"),
        ("10.0.0.0/8", "10.1.2.3", "https"),
        ("10.0.0.0/8", "127.0.0.1", "http"),
        ("*", "192.0.2.1", "https"),
    ],
)
def test_headers_of_trusted_proxies_count(addresses: str, client: str, scheme: str) -> None:
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["scheme"], scope["client"][0]))

    config = ServerConfig(application, ConnectionLimits(), 1, HttpConfig(forwarded_allow_ips=addresses))  # type: ignore[arg-type]
    config.load()
    headers = [(b"x-forwarded-proto", b"https"), (b"x-forwarded-for", b"198.51.100.7")]
    scope = {"type": "http", "scheme": "http", "client": (client, 1234), "headers": headers}
    asyncio.run(config.loaded_app(scope, None, None))  # type: ignore[arg-type]
    assert seen == [(scheme, "198.51.100.7" if scheme == "https" else client)]


def write_certificate(folder: Path, password: str | None = None) -> HttpConfig:
    """Write a self-signed certificate for this machine and its key; return options with their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    folder.mkdir(exist_ok=True)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    (folder / "key.pem").write_bytes(private)
    return HttpConfig(
        ssl_certfile=str(folder / "cert.pem"), ssl_keyfile=str(folder / "key.pem"), ssl_keyfile_password=password
    )


@pytest.mark.parametrize("password", [None, "long password"])
def test_requests_are_answered_over_tls(service: Service, served: Any, tmp_path: Path, password: str | None) -> None:
    config = write_certificate(tmp_path / "tls", password)
    check_certificate(config)
    with served(service, "secret", config) as url:
        secure = url.replace("http://127.0.0.1", "https://localhost")
        trust = ssl.create_default_context(cafile=config.ssl_certfile)
        with httpx2.Client(base_url=secure, headers=KEY, verify=trust, timeout=60) as client:
            body = {"user_id": "u01", "candidates": ["x02", "x03"], "adapter": "general"}
            for _ in range(2):
                assert client.post("/v1/rank", json=body).status_code == 200
            large = {"history": [{"title": "a" * 200}] * 1000, "candidates": ["x02"], "adapter": "nothing"}
            assert client.post("/v1/rank", json=large).status_code in (404, 422)
            assert client.post("/v1/rank", content=b" " * 3_000_000).status_code == 413
        with pytest.raises(httpx2.TransportError):
            httpx2.get(f"{secure}/livez", timeout=60)  # the certificate is not trusted
        with pytest.raises(httpx2.TransportError):
            httpx2.get(f"{url}/livez", timeout=60)  # not TLS


def test_a_new_certificate_is_served_without_a_restart_and_a_broken_one_is_not(
    service: Service, served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tls, "RELOAD_SECONDS", 0.02)
    config = write_certificate(tmp_path / "tls", "a password")
    write_certificate(tmp_path / "new", "a password")
    folder = tmp_path / "tls"

    def wait_for(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)

    with served(service, "secret", config) as url:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        first, second = ((each / "cert.pem").read_text() for each in (folder, tmp_path / "new"))
        assert ssl.get_server_certificate(address) == first
        (tmp_path / "new" / "cert.pem").replace(folder / "cert.pem")
        wait_for(lambda: "the key belongs to another certificate" in caplog.text)
        assert ssl.get_server_certificate(address) == first
        (tmp_path / "new" / "key.pem").replace(folder / "key.pem")
        wait_for(lambda: ssl.get_server_certificate(address) == second)
        (folder / "key.pem").unlink()
        wait_for(lambda: "does not exist" in caplog.text)
        assert ssl.get_server_certificate(address) == second
        assert caplog.text.count("stays in use") == 2
        trust = ssl.create_default_context(cafile=config.ssl_certfile)
        secure = url.replace("http://127.0.0.1", "https://localhost")
        assert httpx2.get(f"{secure}/livez", verify=trust, timeout=60).status_code == 200


def test_unusable_certificates_are_refused(tmp_path: Path) -> None:
    own, other = write_certificate(tmp_path / "own"), write_certificate(tmp_path / "other")
    locked = write_certificate(tmp_path / "locked", "long password")
    (tmp_path / "text").write_text("no certificate")
    cases = [
        (HttpConfig(ssl_certfile=own.ssl_certfile, ssl_keyfile=other.ssl_keyfile), "belongs to another certificate"),
        (HttpConfig(ssl_certfile=own.ssl_certfile), "no PEM files of a certificate and its key"),
        (HttpConfig(ssl_certfile=str(tmp_path / "text")), "option ssl_certfile"),
        (HttpConfig(ssl_certfile=str(tmp_path / "none")), "option ssl_certfile: .*none does not exist"),
        (
            HttpConfig(ssl_certfile=own.ssl_certfile, ssl_keyfile=str(tmp_path / "none")),
            "option ssl_keyfile: .*none does not exist",
        ),
        (HttpConfig(ssl_certfile=locked.ssl_certfile, ssl_keyfile=locked.ssl_keyfile), "password of the key is"),
        (
            HttpConfig(
                ssl_certfile=locked.ssl_certfile, ssl_keyfile=locked.ssl_keyfile, ssl_keyfile_password="wrong one"
            ),
            "password of the key is missing or wrong",
        ),
    ]
    for config, reason in cases:
        with pytest.raises(LorarecError, match=reason) as refused:
            check_certificate(config)
        assert "\n" not in str(refused.value)
        assert "wrong one" not in str(refused.value)
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(Path(str(path)).read_bytes() for path in (own.ssl_certfile, own.ssl_keyfile)))
    check_certificate(HttpConfig(ssl_certfile=str(both)))
