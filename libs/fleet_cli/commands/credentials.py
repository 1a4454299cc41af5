"""`lorafleet credentials`: the keys, passwords and tokens of a deployed fleet, each part's own.

Below `<home>/deploy` (mode 0700), for compose.yaml and, as one list of Secrets, for Kubernetes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from fleet_cli.group import CommandGroup
from fleet_cli.session import Session
from fleet_events.topology import KEEPING_OBJECTS, SERVICES, STORING
from fleet_kit import nats_auth
from lorafleet.errors import BadInput

if TYPE_CHECKING:
    from fleet_cli.stack.credentials import Credentials

credentials = CommandGroup("Create the keys, passwords and tokens of a deployed fleet.")

CONTAINER_USER = 10001
"""User of the images, see services/Dockerfile."""
CALLERS = ("trainer", "evaluator", "inference")
"""Services that call another service, and therefore get a token."""


@credentials.command("write")
def write(
    session: Session,
    database: Annotated[
        str, typer.Option("--database", help="host:port at which the services reach PostgreSQL.")
    ] = "postgres:5432",
    nats: Annotated[str, typer.Option("--nats", help="URL at which the services reach NATS.")] = "nats://nats:4222",
) -> None:
    """Write the credentials of a deployment below HOME/deploy; existing ones are kept, so it can be repeated."""
    # Only this command needs the makers of keys; `nats-config` runs in an image that lacks the embedded stack.
    from fleet_cli.stack.credentials import load_or_create
    from fleet_cli.stack.home import Home

    folder = session.home.folder
    if "pid" in _known(folder / "fleet.json"):
        raise BadInput("--home", f"{folder} belongs to a local stack; name another, for example {folder / 'compose'}")
    home = Home.open(folder)
    made = load_or_create(home)
    deploy = home.root / "deploy"
    for path, content in _files(made, database, nats, home.root).items():
        _write(deploy / path, content)
    _write(home.fleet_file, _json(_published(made)))
    session.answer(
        {"folder": str(deploy), "secrets": str(deploy / "secrets.json")},
        f"written below {deploy}\n"
        f"  docker compose --env-file {deploy / 'compose.env'} up --build\n"
        f"  kubectl apply -n NAMESPACE -f {deploy / 'secrets.json'}",
    )


@credentials.command("nats-config")
def nats_config(
    session: Session,
    users: Annotated[
        Path, typer.Argument(metavar="USERS", help="nats/users.json that `write` created: user → public nkey.")
    ],
    output: Annotated[Path | None, typer.Option("--output", help="File to write (default: stdout).")] = None,
) -> None:
    """Print the accounts of nats-server: what each user may publish and consume, from this version's topology."""
    try:
        public = json.loads(users.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput("USERS", f"{users} cannot be read: {error}") from error
    if not isinstance(public, dict) or not public:
        raise BadInput("USERS", f"{users} must be a JSON object, user → public nkey")
    try:
        config = nats_auth.server_config({str(name): str(key) for name, key in public.items()})
    except ValueError as error:
        raise BadInput("USERS", f"{users}: {error}") from error
    if output is None:
        session.out.file.write(config)
    else:
        output.write_text(config)


def _files(made: Credentials, database: str, nats: str, home: Path) -> dict[str, str]:
    """Path below deploy/ → content."""
    secrets = {name: _service_secrets(name, made, database) for name in SERVICES}
    files = {name: _service_files(name, made) for name in SERVICES}
    jwks = made.jwks.read_text()
    users = _json(made.nats_public)
    postgres = {"PGPASSWORD": made.postgres["postgres"], "POSTGRES_PASSWORD": made.postgres["postgres"]} | {
        f"{name.upper()}_PASSWORD": made.postgres[name] for name in STORING
    }
    s3 = {"MINIO_ROOT_USER": made.s3["admin"].access, "MINIO_ROOT_PASSWORD": made.s3["admin"].secret}
    for name in KEEPING_OBJECTS:
        s3 |= {
            f"{name.upper()}_ACCESS_KEY": made.s3[name].access,
            f"{name.upper()}_SECRET_KEY": made.s3[name].secret,
        }
    provision = {"nats-admin.nk": made.nats_seeds["admin"].read_text().strip()}
    urls = {
        name: {"url": "", "env": {key: secrets[name][key]}} for name in STORING for key in ("LORAFLEET_DATABASE_URL",)
    }
    fleet = _json({"nats_url": nats, "services": urls})
    compose = {
        "LORAFLEET_DEPLOY": str(home / "deploy"),
        # Containers read files that their owner alone may read. As root we hand them to the image's user instead.
        "LORAFLEET_UID": str(os.getuid() or CONTAINER_USER),
        "LORAFLEET_GID": str(os.getgid() or CONTAINER_USER),
    }
    written = {
        "compose.env": _env(compose),
        "nats/users.json": users,
        "postgres/postgres.env": _env(postgres),
        "s3/s3.env": _env(s3),
        "provision/fleet.json": fleet,
        "provision/keys/nats-admin.nk": provision["nats-admin.nk"],
    }
    for name in SERVICES:
        written[f"{name}/service.env"] = _env(secrets[name])
        written |= {f"{name}/files/{file}": content for file, content in (files[name] | {"jwks.json": jwks}).items()}
    kubernetes = [
        *(_resource("Secret", name, secrets[name] | files[name]) for name in SERVICES),
        _resource("Secret", "provision", provision),
        _resource("Secret", "postgres", postgres),
        _resource("Secret", "s3", s3),
        # Public keys, both of them.
        _resource("ConfigMap", "jwks", {"jwks.json": jwks}),
        _resource("ConfigMap", "nats-users", {"users.json": users}),
    ]
    written["secrets.json"] = _json({"apiVersion": "v1", "kind": "List", "items": kubernetes})
    return written


def _service_secrets(name: str, made: Credentials, database: str) -> dict[str, str]:
    found: dict[str, str] = {}
    if name in KEEPING_OBJECTS:
        found |= {"LORAFLEET_S3_ACCESS_KEY": made.s3[name].access, "LORAFLEET_S3_SECRET_KEY": made.s3[name].secret}
    if name in STORING:
        address = f"postgresql://{name}:{quote(made.postgres[name])}@{database}/lorafleet"
        found["LORAFLEET_DATABASE_URL"] = address
    return found


def _service_files(name: str, made: Credentials) -> dict[str, str]:
    found = {"nats.nk": made.nats_seeds[name].read_text().strip()}
    if name in CALLERS:
        found["token"] = made.tokens[name].read_text().strip()
    return found


def _published(made: Credentials) -> dict[str, Any]:
    """The fleet as this machine reaches it through the ports that compose.yaml publishes."""
    ports = {name: 8101 + number for number, name in enumerate(SERVICES)}
    return {
        "nats_url": "nats://127.0.0.1:4222",
        "services": {name: {"url": f"http://127.0.0.1:{port}"} for name, port in ports.items()},
        "tokens": {name: str(path) for name, path in made.tokens.items()},
    }


def _resource(kind: str, name: str, content: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": f"lorafleet-{name}", "labels": {"app.kubernetes.io/part-of": "lorafleet"}},
        ("stringData" if kind == "Secret" else "data"): content,
    }


def _known(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _env(values: dict[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def _write(path: Path, content: str) -> None:
    from fleet_cli.stack.home import write_secret

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_secret(path, content)
    if os.getuid() == 0 and "deploy" in path.parts:
        for owned in (path, path.parent):
            os.chown(owned, CONTAINER_USER, CONTAINER_USER)
