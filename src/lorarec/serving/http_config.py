"""Options of the HTTP server."""

import ipaddress
import re
from dataclasses import dataclass

from lorarec.errors import LorarecError
from lorarec.options import convert_options, document_options, option

ACCESS, NETWORK = "Access", "Network"
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
#: Origin of a web page, as browsers send it: scheme and host in lower case, and a port other than that of the scheme.
_ORIGIN = r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::\d{1,5})?"
_ROOT_PATH = r"(?:/[A-Za-z0-9._~-]+)*"


@document_options
@dataclass(frozen=True)
class HttpConfig:
    """Options of the HTTP server of a `Service`.

    Raises:
        LorarecError: If a value is of the wrong type or cannot be used.
    """

    keys: str | None = option(None, "YAML file of API keys with roles, which is read again when it changes.", ACCESS)
    cors_origins: list[str] | None = option(
        None,
        "Origin whose web pages may use the API, such as https://shop.example; may be repeated; needs keys.",
        ACCESS,
    )
    root_path: str = option("", "Path prefix under which a proxy has the service, such as /recommend.", NETWORK)
    forwarded_allow_ips: str = option(
        "127.0.0.1,::1",
        "Addresses and networks of proxies whose X-Forwarded-For and X-Forwarded-Proto count, with commas; or *.",
        NETWORK,
    )
    ssl_certfile: str | None = option(None, "PEM file of the certificate and its chain, for HTTPS.", NETWORK)
    ssl_keyfile: str | None = option(
        None, "PEM file of the certificate's key; that of `ssl_certfile` if None.", NETWORK
    )
    ssl_keyfile_password: str | None = option(None, "Password of the key; give it as an environment variable.", NETWORK)

    def __post_init__(self) -> None:
        convert_options(self)
        for origin in self.cors_origins or ():
            _check_origin(origin)
        if not re.fullmatch(_ROOT_PATH, self.root_path) or {".", ".."} & set(self.root_path.split("/")):
            raise LorarecError(
                f"option root_path must be a path such as /shop without a slash at its end, got {self.root_path!r}"
            )
        for address in self.forwarded_allow_ips.split(","):
            _check_address(address.strip())
        if self.ssl_certfile is None and (self.ssl_keyfile or self.ssl_keyfile_password):
            raise LorarecError("option ssl_keyfile is for a certificate: give option ssl_certfile too")


def require_key(host: str, key: str | None, config: HttpConfig | None = None) -> None:
    """Refuse to listen to other machines or to answer other web pages without an API key.

    Args:
        host: Address to listen on.
        key: API key, or None.
        config: Options of the HTTP server; the default ones if None.

    Raises:
        LorarecError: If `host` is not local or there are allowed origins, and there are no keys, or the key is empty.
    """
    config = config or HttpConfig()
    if key is not None and not key.strip():
        raise LorarecError("LORAREC_API_KEY is empty: set a long random text, or unset it")
    if key is not None or config.keys is not None:
        return
    if host not in (*LOCAL_HOSTS, "::1"):
        raise LorarecError(
            f"host={host} lets other machines in: set LORAREC_API_KEY to a long random text first, or give option keys"
        )
    if config.cors_origins:
        raise LorarecError(
            "option cors_origins lets other web pages in: set LORAREC_API_KEY to a long random text first, or give "
            "option keys"
        )


def _check_origin(origin: str) -> None:
    if not isinstance(origin, str) or not re.fullmatch(_ORIGIN, origin):
        raise LorarecError(
            "option cors_origins must be exact origins such as https://shop.example, in lower case and without a path, "
            f"got {origin!r}"
        )
    if re.fullmatch(r"http://.*:80|https://.*:443", origin):
        raise LorarecError(f"option cors_origins has {origin!r}: browsers leave out the port of the scheme, do so too")


def _check_address(address: str) -> None:
    if address == "*":
        return
    try:
        ipaddress.ip_network(address, strict=False)
    except ValueError:
        raise LorarecError(
            f"option forwarded_allow_ips must be addresses or networks such as 10.0.0.0/8, or *, got {address!r}"
        ) from None
