"""The certificate of the HTTP server, which is read again when its files change."""

import asyncio
import logging
import ssl
from pathlib import Path

from lorarec.errors import LorarecError
from lorarec.serving.http_config import HttpConfig

#: Seconds between two looks at the files of the certificate.
RELOAD_SECONDS = 1.0

logger = logging.getLogger(__name__)


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
    load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), config)


def load_certificate(context: ssl.SSLContext, config: HttpConfig) -> None:
    """Load the certificate and its key; connections that are open keep the certificate that they have.

    Raises:
        LorarecError: If they cannot be used.
    """
    assert config.ssl_certfile is not None
    asked: list[bool] = []

    def password() -> str:
        """Return the password, for which OpenSSL would ask at the terminal otherwise."""
        asked.append(True)
        return config.ssl_keyfile_password or ""

    try:
        context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile, password)
    except (OSError, ValueError) as error:
        reason = f"{getattr(error, 'strerror', None) or error}"
        if "KEY_VALUES_MISMATCH" in str(error):
            reason = "the key belongs to another certificate"
        elif asked:
            reason = "the password of the key is missing or wrong: give option ssl_keyfile_password"
        elif "PEM" in str(error):
            reason = "they are no PEM files of a certificate and its key"
        key = config.ssl_keyfile or config.ssl_certfile
        raise LorarecError(
            f"option ssl_certfile: {config.ssl_certfile} with the key of {key} cannot be used: {reason}"
        ) from None


class CertificateReloader:
    """Loads the certificate of a server again when the content of its files changes.

    Files that cannot be used change nothing, and the reason is logged.

    Args:
        context: Context of the server, which has the certificate that the files have now.
        config: Options of the HTTP server, with a certificate.
    """

    def __init__(self, context: ssl.SSLContext, config: HttpConfig) -> None:
        self._context, self._config = context, config
        self._content = self._read()

    def _read(self) -> list[bytes] | None:
        """Return the content of the files; None if one cannot be read."""
        paths = [self._config.ssl_certfile, self._config.ssl_keyfile]
        try:
            return [Path(path).read_bytes() for path in paths if path is not None]
        except OSError:
            return None

    async def reload(self) -> None:
        """Load the certificate again if its files have changed."""
        content = await asyncio.to_thread(self._read)
        if content == self._content:
            return
        self._content = content
        try:
            # The context that is in use must not get a certificate without its key.
            await asyncio.to_thread(check_certificate, self._config)
            load_certificate(self._context, self._config)
        except LorarecError as error:
            logger.warning("%s; the certificate that was read before stays in use", error)
        else:
            logger.info("the certificate of %s was read again", self._config.ssl_certfile)

    async def watch(self) -> None:
        """Load the certificate again whenever its files change, until this is cancelled."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            await self.reload()
