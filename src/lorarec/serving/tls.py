"""The certificate of the HTTP server."""

import ssl
from pathlib import Path

from lorarec.errors import LorarecError
from lorarec.serving.http_config import HttpConfig


def check_certificate(config: HttpConfig) -> None:
    """Check that the certificate and its key can be used, before anything that takes long.

    Raises:
        LorarecError: If a file does not exist or is no PEM file, the key belongs to another certificate, or its
            password is missing or wrong.
    """
    if config.ssl_certfile is None:
        return
    for name in ("ssl_certfile", "ssl_keyfile"):
        path = getattr(config, name)
        if path is not None and not Path(path).is_file():
            raise LorarecError(f"option {name}: {path} does not exist")
    asked: list[bool] = []

    def password() -> str:
        """Return the password, for which OpenSSL would ask at the terminal otherwise."""
        asked.append(True)
        return config.ssl_keyfile_password or ""

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile, password)
    except (OSError, ValueError) as error:
        reason = f"{getattr(error, 'strerror', None) or error}"
        if asked:
            reason = "the password of the key is missing or wrong: give option ssl_keyfile_password"
        elif "KEY_VALUES_MISMATCH" in str(error):
            reason = "the key belongs to another certificate"
        elif "PEM" in str(error):
            reason = "they are no PEM files of a certificate and its key"
        key = config.ssl_keyfile or config.ssl_certfile
        raise LorarecError(
            f"option ssl_certfile: {config.ssl_certfile} with the key of {key} cannot be used: {reason}"
        ) from None
