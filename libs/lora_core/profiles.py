"""How far an adapter may be compressed for what it does and where it runs: the table, as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from lora_core.format.arrow_writer import Storage

Device = Literal["mobile", "desktop", "server"]


@dataclass(frozen=True)
class QuantisationProfile:
    """level: llama.cpp's, which `to_gguf` writes. storage: ours, in which `LoRAFormat.save` keeps such an adapter. A
    file is called by the one that it has.

    quality_threshold: the share of positions at which the compressed adapter must still prefer the original's token.
    size_reduction, speed_gain: the aim, against float16 and its speed; `lora_core.compression_quality` measures them.
    """

    level: str
    storage: Storage
    quality_threshold: float
    size_reduction: float
    speed_gain: float


PROFILES: Mapping[tuple[str, Device], QuantisationProfile] = MappingProxyType(
    {
        ("intent-classifier", "mobile"): QuantisationProfile("Q4_K_M", "int4", 0.85, 0.75, 2.0),
        ("content-generator", "desktop"): QuantisationProfile("Q6_K", "int8", 0.95, 0.5, 1.3),
        ("workflow-builder", "server"): QuantisationProfile("Q8_0", "int8", 0.98, 0.25, 1.1),
    }
)
DEFAULT = QuantisationProfile("F16", "plain", 1.0, 0.0, 1.0)


def profile_of(adapter_type: str, device: Device) -> QuantisationProfile:
    """The profile for this kind of adapter on this device; uncompressed where the table has no row."""
    return PROFILES.get((adapter_type, device), DEFAULT)


def quality_threshold(adapter_type: str, storage: Storage) -> float:
    """The share of positions at which an adapter of this type, kept so, must still prefer the original's token.

    Its own profile's where one keeps it so, else the strictest that any profile requires of this storage.
    """
    required = [(kind, one.quality_threshold) for (kind, _), one in PROFILES.items() if one.storage == storage]
    own = [threshold for kind, threshold in required if kind == adapter_type]
    return max(own or [threshold for _, threshold in required], default=DEFAULT.quality_threshold)


def level_threshold(adapter_type: str, level: str | None) -> float:
    """The same of a file for llama.cpp at this level (`q4_k_m` …); 1 for one that is not rounded."""
    if level is None:
        return DEFAULT.quality_threshold
    required = [
        (kind, profile.quality_threshold) for (kind, _), profile in PROFILES.items() if profile.level.lower() == level
    ]
    own = [threshold for kind, threshold in required if kind == adapter_type]
    return max(own or [threshold for _, threshold in required], default=DEFAULT.quality_threshold)
