"""Where the fleet is and which credentials it takes: `$LORAFLEET_HOME/fleet.json`, then LORAFLEET_* variables."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fleet_kit.tls import client_context
from lorafleet.errors import BadInput, FleetError

SERVICES = ("registry", "trainer", "evaluator", "router", "inference", "console")
DEFAULT_HOME = Path(".lorafleet")


class ServiceEntry(BaseModel):
    """One service of fleet.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    url: str
    env: dict[str, str] = {}


class BaseModelEntry(BaseModel):
    """The base model of fleet.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    name: str
    path: str = ""
    revision: str = ""


class FleetFile(BaseModel):
    """`fleet.json` as the local stack writes it."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    nats_url: str = ""
    database_admin_url: str = ""
    s3_endpoint: str = ""
    ca_file: Path | None = None
    services: dict[str, ServiceEntry] = {}
    tokens: dict[str, Path] = {}
    base_model: BaseModelEntry | None = None


class FleetHome:
    """Resolves addresses and credentials; a variable wins over fleet.json.

    LORAFLEET_<SERVICE>_URL, LORAFLEET_TOKEN, LORAFLEET_TOKEN_FILE, LORAFLEET_NATS_URL, LORAFLEET_NATS_SEED_FILE,
    LORAFLEET_TLS_CA_FILE.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._environment = environment
        self._file: FleetFile | None = None

    @classmethod
    def find(cls, folder: Path | None = None) -> FleetHome:
        """The home named by `--home`, else by LORAFLEET_HOME, else `./.lorafleet`."""
        named = os.environ.get("LORAFLEET_HOME")
        return cls(folder or (Path(named) if named else DEFAULT_HOME), os.environ)

    @property
    def file(self) -> FleetFile:
        """fleet.json, read once; empty where there is none, so that variables alone suffice."""
        if self._file is None:
            path = self.folder / "fleet.json"
            try:
                self._file = FleetFile.model_validate_json(path.read_bytes())
            except FileNotFoundError:
                self._file = FleetFile()
            except PermissionError as error:
                raise FleetError(f"{path} cannot be read: {error.strerror}") from error
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"]) or "the file"
                raise BadInput("--home", f"{path} is not a fleet file: {where}: {first['msg']}") from error
        return self._file

    def service_url(self, service: str) -> str:
        """Base URL of a service."""
        url = self._environment.get(f"LORAFLEET_{service.upper()}_URL")
        if url:
            return url
        entry = self.file.services.get(service)
        if entry is None:
            raise self._unknown(f"the {service}", f"LORAFLEET_{service.upper()}_URL")
        return entry.url

    def token(self, name: str = "admin") -> str:
        """Bearer token: LORAFLEET_TOKEN, LORAFLEET_TOKEN_FILE, or the local stack's token of that name."""
        if token := self._environment.get("LORAFLEET_TOKEN"):
            return token
        named = self._environment.get("LORAFLEET_TOKEN_FILE")
        path = Path(named) if named else self.file.tokens.get(name)
        if path is None:
            raise self._unknown("a token", "LORAFLEET_TOKEN")
        try:
            return path.read_text().strip()
        except OSError as error:
            raise FleetError(f"the token file {path} cannot be read: {error.strerror}") from error

    @property
    def nats_url(self) -> str:
        """Address of the bus."""
        url = self._environment.get("LORAFLEET_NATS_URL") or self.file.nats_url
        if not url:
            raise self._unknown("NATS", "LORAFLEET_NATS_URL")
        return url

    def nats_seed(self, user: str = "admin") -> Path | None:
        """nkey seed file for the bus; None where the server requires none."""
        if named := self._environment.get("LORAFLEET_NATS_SEED_FILE"):
            return Path(named)
        for candidate in (
            self.folder / "keys" / f"nats-{user}.nk",
            self.folder / "keys" / "nats" / f"{user}.nk",
        ):
            if candidate.exists():
                return candidate
        return None

    @property
    def ca_file(self) -> Path | None:
        """Authorities that sign the fleet's certificates, beside the public ones."""
        named = self._environment.get("LORAFLEET_TLS_CA_FILE")
        return Path(named) if named else self.file.ca_file

    @cached_property
    def trust(self) -> ssl.SSLContext:
        """Verifies the fleet's servers."""
        try:
            return client_context(self.ca_file)
        except ValueError as error:
            raise FleetError(str(error)) from error

    @property
    def base_model(self) -> BaseModelEntry:
        """The base model that the fleet serves."""
        if self.file.base_model is None:
            raise self._unknown("the base model", "--home")
        return self.file.base_model

    def _unknown(self, what: str, variable: str) -> FleetError:
        return FleetError(
            f"no address or key of {what} is configured in {self.folder / 'fleet.json'}; "
            f"start the fleet (`lorafleet up`), pass its folder (--home or LORAFLEET_HOME), or set {variable}"
        )
