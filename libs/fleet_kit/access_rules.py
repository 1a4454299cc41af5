"""The rule file: which issuers are trusted beside the fleet's own, and which claims of theirs give which rights.

Rules only add: a token has the union of what its matching rules give, each scope in that rule's domains alone. A token
that matches no rule may do nothing.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from fleet_kit.caller import EVERY_DOMAIN, FLEET_SCOPES, SCOPES, Caller, Grant, checked_domains
from fleet_kit.errors import Problem
from fleet_kit.written_file import parse

__all__ = ["AccessRules", "Provider", "Rule", "caller_by_rules", "read_rules"]

MAX_FILE = 1 << 20
_NAME = r"^[a-z][a-z0-9-]{0,30}$"
_SEPARATED = frozenset({"scope", "scp"})
"""Claims whose text is a list with spaces between (RFC 8693, section 4.2; Entra, Okta)."""
_CLIENT_CLAIMS = ("azp", "appid", "cid", "client_id")
"""Who asked for the token: OpenID Connect and Entra v2, Entra v1, Okta, RFC 9068."""

Texts = Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Provider(_Part):
    """An issuer of tokens. `name` goes before its subjects, so that two issuers never name one caller."""

    name: str = Field(pattern=_NAME)
    issuer: str = Field(min_length=1, max_length=1000)
    """The claim `iss`, exactly."""
    audience: Texts
    """What `aud` must name one of."""
    clients: tuple[str, ...] = ()
    """Whom `azp`, `appid`, `cid` or `client_id` must name; empty for any."""
    keys: str = ""
    """URL of its key set or discovery document; empty is the discovery document below `issuer`."""
    subject: str = Field(default="sub", min_length=1)
    """Claim that names the caller."""

    _one = field_validator("audience", "clients", mode="before")(_as_list)

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name == "key":
            raise ValueError("'key' is the name of API keys; choose another")
        return name


class Rule(_Part):
    """What tokens with these claims may do, and where."""

    name: str = Field(pattern=_NAME)
    providers: tuple[str, ...] = ()
    """Names of the providers whose tokens it is for; empty for all."""
    when: dict[str, tuple[str | bool, ...]] = Field(min_length=1)
    """Claim, or path to one with dots between, → its wanted values: one of them is enough, of every claim named."""
    scopes: Texts
    domains: Texts

    _one = field_validator("providers", "scopes", "domains", mode="before")(_as_list)

    @field_validator("when", mode="before")
    @classmethod
    def _each_a_list(cls, when: object) -> object:
        if not isinstance(when, dict):
            return when
        return {name: [value] if isinstance(value, str | bool) else value for name, value in when.items()}

    @field_validator("when")
    @classmethod
    def _something_wanted(cls, when: dict[str, tuple[str | bool, ...]]) -> dict[str, tuple[str | bool, ...]]:
        if empty := [name for name, wanted in when.items() if not wanted]:
            raise ValueError(f"claim {empty[0]!r} has no value that it may have")
        return when

    @field_validator("scopes")
    @classmethod
    def _known(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(scopes) - set(SCOPES)):
            raise ValueError(f"unknown scope {unknown[0]!r}; known are {', '.join(SCOPES)}")
        return scopes

    @field_validator("domains")
    @classmethod
    def _names(cls, domains: tuple[str, ...]) -> tuple[str, ...]:
        checked_domains(domains)
        return domains

    @model_validator(mode="after")
    def _fleet_scopes_reach_every_domain(self) -> Self:
        if (of_fleet := FLEET_SCOPES & set(self.scopes)) and EVERY_DOMAIN not in self.domains:
            raise ValueError(f"scope {min(of_fleet)!r} concerns every domain; give it for the domains '*'")
        return self

    @property
    def grant(self) -> Grant:
        """What it gives."""
        return Grant(frozenset(self.scopes), frozenset(self.domains))


class AccessRules(_Part):
    """The whole file."""

    providers: tuple[Provider, ...] = Field(min_length=1, max_length=100)
    rules: tuple[Rule, ...] = Field(min_length=1, max_length=10_000)

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for what, values in (
            ("provider", [one.name for one in self.providers]),
            ("issuer", [one.issuer for one in self.providers]),
            ("rule", [one.name for one in self.rules]),
        ):
            if twice := [value for number, value in enumerate(values) if value in values[:number]]:
                raise ValueError(f"{what} {twice[0]!r} is there twice")
        known = {one.name for one in self.providers}
        for rule in self.rules:
            if unknown := sorted(set(rule.providers) - known):
                raise ValueError(f"rule {rule.name!r}: providers: there is no provider {unknown[0]!r}")
        return self

    def by_provider(self) -> list[tuple[Provider, tuple[Rule, ...]]]:
        """Each provider with the rules for its tokens."""
        return [
            (one, tuple(rule for rule in self.rules if not rule.providers or one.name in rule.providers))
            for one in self.providers
        ]


def read_rules(path: Path) -> AccessRules:
    """The rules of a JSON or YAML file; raises ValueError that names the file, the rule or provider, and the field."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise ValueError(f"it has more than {MAX_FILE} bytes")
        document = parse(content, path.name)
        return AccessRules.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = _named(document, first["loc"])
        raise ValueError(f"access rules {path}: {where}{first['msg'].removeprefix('Value error, ')}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"access rules {path}: {error}") from None


def caller_by_rules(claims: Mapping[str, Any], provider: Provider, rules: Iterable[Rule]) -> Caller:
    """The caller that a verified token of a provider describes; `rules` are those for its tokens.

    Raises:
        ValueError: the claim that names the caller is no text, or the token is another client's.
        Problem: 403, the token lacks the groups that a rule wants, as it has too many of them (Entra's overage).
    """
    client = next((claims[name] for name in _CLIENT_CLAIMS if name in claims), None)
    if provider.clients and client not in provider.clients:
        raise ValueError("its client (azp, appid, cid or client_id) is none that may call")
    subject = claims.get(provider.subject)
    if not isinstance(subject, str) or not subject.strip() or not subject.isprintable() or len(subject) > 255:
        raise ValueError(f"claim {provider.subject!r} must be printable text of at most 255 characters")
    rules = tuple(rules)
    _refuse_overage(claims, rules)
    grants = tuple(rule.grant for rule in rules if _matches(rule, claims))
    named = ", ".join(sorted({name for rule in rules for name in rule.when})) or "none"
    lacking = "" if grants else f"no access rule matches this token of {provider.name!r}; rules look at: {named}"
    return Caller.of_grants(f"{provider.name}:{subject}", grants, lacking)


def _matches(rule: Rule, claims: Mapping[str, Any]) -> bool:
    return all(_values(claims, path) & set(_typed(wanted)) for path, wanted in rule.when.items())


def _values(claims: Mapping[str, Any], path: str) -> set[tuple[type, str | bool]]:
    """A claim's values, of a list each; none for what is neither text nor truth value. True is not the text "1"."""
    found: object = claims.get(path)
    if found is None and path not in claims:
        found = claims
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
    if isinstance(found, str) and path in _SEPARATED:
        found = found.split()
    several = found if isinstance(found, list) else [found]
    return set(_typed(one for one in several if isinstance(one, str | bool)))


def _typed(values: Iterable[str | bool]) -> Iterable[tuple[type, str | bool]]:
    return ((type(one), one) for one in values)


def _refuse_overage(claims: Mapping[str, Any], rules: Iterable[Rule]) -> None:
    elsewhere = claims.get("_claim_names")
    left_out = set(elsewhere) if isinstance(elsewhere, Mapping) else set()
    if claims.get("hasgroups") is True:
        left_out.add("groups")
    if wanted := sorted(left_out & {name for rule in rules for name in rule.when}):
        detail = (
            f"the token leaves out {wanted[0]!r}: its user has more groups than a token holds (Entra's group overage). "
            "Assign app roles and let rules look at `roles`, or limit groups to those assigned to the application"
        )
        raise Problem(403, "Groups not in the token", detail, claim=wanted[0])


def _named(document: JsonValue, place: tuple[int | str, ...]) -> str:
    """The field at fault, and by its name the rule or provider that it belongs to."""
    fields = [str(one) for one in place]
    if len(place) > 1 and isinstance(place[1], int) and isinstance(document, dict):
        one = cast(list[JsonValue], document[str(place[0])])[place[1]]
        name = one.get("name") if isinstance(one, dict) else None
        kind = str(place[0]).removesuffix("s")
        fields = [f"{kind} {name!r}" if isinstance(name, str) else f"{kind} {place[1]}", *fields[2:]]
    return "".join(f"{one}: " for one in fields)
