"""What a service finds in its environment, and fleet.json, in which everybody else finds the fleet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fleet_cli.stack.bus import bus_url
from fleet_cli.stack.certificates import Certificates
from fleet_cli.stack.credentials import Credentials
from fleet_cli.stack.home import Home, write_secret_json
from fleet_cli.stack.models import BASE_MODEL_NAME, BaseModel
from fleet_cli.stack.objects import BUCKET, objects_url
from fleet_cli.stack.ports import LOOPBACK
from fleet_cli.stack.postgres import DATABASE, postgres_url
from fleet_events.topology import KEEPING_OBJECTS, SERVICES, STORING

LIBRARIES = {
    # Nothing may be fetched from a model hub at run time.
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Several processes compute on one machine: a thread that waits spins for part of a millisecond, then leaves its
    # core to them. Inference's own value.
    "GOMP_SPINCOUNT": "5000",
    # A log that is written late is of no use after a crash.
    "PYTHONUNBUFFERED": "1",
}
"""Variables that libraries read when they are imported: the same for every service."""


@dataclass(frozen=True)
class ServiceInfo:
    """Where a service answers and what it was started with."""

    url: str
    env: dict[str, str]


@dataclass(frozen=True)
class FleetInfo:
    """Addresses and credentials of a running fleet: the content of fleet.json."""

    nats_url: str
    database_admin_url: str
    s3_endpoint: str
    s3_bucket: str
    ca_file: Path | None
    """Authority of the fleet's certificates; None where it runs without TLS."""
    services: dict[str, ServiceInfo]
    tokens: dict[str, Path]
    base_model: BaseModel | None
    embedding_model: Path
    pid: int

    def token(self, name: str) -> str:
        """The bearer token of that name."""
        return self.tokens[name].read_text().strip()


def service_url(port: int, certificates: Certificates | None = None) -> str:
    """Where a service answers."""
    return f"{'https' if certificates else 'http'}://{LOOPBACK}:{port}"


def service_environment(
    name: str,
    home: Home,
    ports: Mapping[str, int],
    credentials: Credentials,
    embedding_model: Path,
    *,
    database: str = DATABASE,
) -> dict[str, str]:
    """The LORAFLEET_* variables of one service."""
    certificates = credentials.certificates
    cache = home.cache / name
    cache.mkdir(mode=0o700, exist_ok=True)
    env = {
        "HOME": str(home.root),
        "HOST": LOOPBACK,
        "PORT": str(ports[name]),
        "NATS_URL": bus_url(ports["nats"], certificates),
        "NATS_SEED_FILE": str(credentials.nats_seeds[name]),
        "JWKS": str(credentials.jwks),
        "BASE_MODEL": str(home.models / BASE_MODEL_NAME),
        "BASE_MODEL_NAME": BASE_MODEL_NAME,
        "EMBEDDING_MODEL": str(embedding_model),
        "CACHE_DIR": str(cache),
    }
    if name in credentials.tokens:
        env["TOKEN_FILE"] = str(credentials.tokens[name])
    if name in KEEPING_OBJECTS:
        env |= {
            "S3_ENDPOINT": objects_url(ports["s3"], certificates),
            "S3_ACCESS_KEY": credentials.s3[name].access,
            "S3_SECRET_KEY": credentials.s3[name].secret,
            "S3_BUCKET": BUCKET,
        }
    if name in STORING:
        env["DATABASE_URL"] = postgres_url(name, credentials.postgres[name], ports["postgres"], database)
    for other in SERVICES:
        env[f"{other.upper()}_URL"] = service_url(ports[other], certificates)
    if certificates:
        env |= {
            "NATS_TLS_FIRST": "true",
            "TLS_CA_FILE": str(certificates.ca),
            "TLS_CERTIFICATE_FILE": str(certificates.certificate),
            "TLS_KEY_FILE": str(certificates.key),
        }
    if name == "trainer":
        served = {
            "url": f"{env['INFERENCE_URL']}/v1",
            "model": BASE_MODEL_NAME,
            "token_file": str(credentials.tokens[name]),
        }
        env["GENERATION_ENDPOINTS"] = json.dumps({"inference": served})
    return {f"LORAFLEET_{key}": value for key, value in env.items()} | LIBRARIES


def describe(
    home: Home,
    ports: Mapping[str, int],
    credentials: Credentials,
    services: Iterable[str],
    *,
    base_model: BaseModel | None,
    embedding_model: Path,
) -> FleetInfo:
    """The contents of fleet.json."""
    certificates = credentials.certificates
    return FleetInfo(
        nats_url=bus_url(ports["nats"], certificates),
        database_admin_url=postgres_url("postgres", credentials.postgres["postgres"], ports["postgres"]),
        s3_endpoint=objects_url(ports["s3"], certificates),
        s3_bucket=BUCKET,
        ca_file=certificates.ca if certificates else None,
        services={
            name: ServiceInfo(
                service_url(ports[name], certificates),
                service_environment(name, home, ports, credentials, embedding_model),
            )
            for name in services
        },
        tokens=dict(credentials.tokens),
        base_model=base_model,
        embedding_model=embedding_model,
        pid=os.getpid(),
    )


def write_fleet_file(home: Home, info: FleetInfo, ports: Mapping[str, int]) -> None:
    """Write fleet.json, readable by its owner alone: it holds passwords."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(info), default=str))
    write_secret_json(home.fleet_file, {**content, "ports": dict(ports)})


def ports_before(home: Home) -> dict[str, int]:
    """The ports of the last run, or nothing."""
    try:
        known = json.loads(home.fleet_file.read_text())["ports"]
        return {str(name): int(port) for name, port in known.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
