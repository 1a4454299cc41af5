"""Whether the service of this container is alive: `python -m fleet_kit.alive` ends with 0 if it is, or has no port."""

import os
import ssl
import urllib.request


def main() -> None:
    """Raises OSError unless /healthz answers. Its certificate is not verified: it names the service, not loopback."""
    port = os.environ.get("LORAFLEET_PORT")
    if not port:
        return
    scheme = "https" if os.environ.get("LORAFLEET_TLS_CERTIFICATE_FILE") else "http"
    unverified = ssl._create_unverified_context()  # noqa: S323 - of this container's own loopback
    with urllib.request.urlopen(f"{scheme}://127.0.0.1:{port}/healthz", timeout=4, context=unverified):  # noqa: S310
        return


if __name__ == "__main__":
    main()
