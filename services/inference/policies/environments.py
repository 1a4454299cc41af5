"""What a process does where nothing else is set, by where it runs: docs/serving.md has this table for operators."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Literal

Environment = Literal["development", "staging", "production"]
Preloading = Literal["lazy", "active", "aggressive"]
Quantisation = Literal["none", "profile"]
Monitoring = Literal["basic", "detailed"]


@dataclass(frozen=True, slots=True)
class Preset:
    """Defaults of the settings with these names; `InferenceSettings` describes each."""

    preloading: Preloading
    quantisation: Quantisation
    slots: int
    cache_bytes: int
    hot_reload: bool
    redundancy: bool
    monitoring: Monitoring
    log_level: str


PRESETS: Mapping[Environment, Preset] = MappingProxyType(
    {
        "development": Preset(
            preloading="lazy",
            quantisation="none",
            slots=4,
            cache_bytes=1024**3,
            hot_reload=True,
            redundancy=False,
            monitoring="basic",
            log_level="DEBUG",
        ),
        "staging": Preset(
            preloading="active",
            quantisation="none",
            slots=16,
            cache_bytes=4 * 1024**3,
            hot_reload=True,
            redundancy=False,
            monitoring="detailed",
            log_level="INFO",
        ),
        "production": Preset(
            preloading="aggressive",
            quantisation="profile",
            slots=32,
            cache_bytes=16 * 1024**3,
            hot_reload=False,
            redundancy=True,
            monitoring="detailed",
            log_level="INFO",
        ),
    }
)


def defaults_of(environment: str) -> dict[str, object]:
    """Setting → value; nothing for a name that is no environment, which validation then refuses."""
    return next((asdict(preset) for name, preset in PRESETS.items() if name == environment), {})
