"""The methods by name. A method is added with one entry here and the class that the entry names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nayer_core.contract.config import DistillConfig, MethodConfig
from nayer_core.contract.presets import DEFAULT_PRESET, LARGE_IMAGE_SIDE, PRESETS, Preset

DEFAULT_METHOD = "nayer"


@dataclass(frozen=True)
class MethodEntry:
    """A method that a client can request; imports no torch.

    Args:
        title: for model cards: name, authors, year, and the real data it needs.
        config: class of its configuration.
        presets: its named configurations.
        default_preset: what the preset `auto` means.
        implementation: `module:class` of a `nayer_core.running.method.Method`, imported by the core alone.
    """

    title: str
    config: type[MethodConfig]
    presets: Mapping[str, Preset]
    default_preset: str
    implementation: str

    @property
    def preset_names(self) -> tuple[str, ...]:
        """The values that a client may give as `preset`."""
        return ("auto", *self.presets)

    def resolve_config(
        self, preset: str, overrides: Mapping[str, Any], input_size: tuple[int, int, int]
    ) -> tuple[str, MethodConfig]:
        """Return the name of the preset, and its configuration with the client's overrides.

        Some presets have other values for images above 64 pixels: `Preset.large_images`.

        Args:
            preset: one of `preset_names`.
            overrides: fields of the configuration that the client set.
            input_size: (channels, height, width).

        Raises:
            pydantic.ValidationError: an override is unknown or out of range.
        """
        name = self.default_preset if preset == "auto" else preset
        values = self.presets[name].config.model_dump()
        if max(input_size[1:]) > LARGE_IMAGE_SIDE:
            values |= self.presets[name].large_images
        return name, self.config.model_validate({**values, **overrides})


METHODS: dict[str, MethodEntry] = {
    "nayer": MethodEntry(
        title="NAYER (Tran et al., CVPR 2024), data-free: no real image was used in training",
        config=DistillConfig,
        presets=PRESETS,
        default_preset=DEFAULT_PRESET,
        implementation="nayer_core.methods.nayer.algorithm:Nayer",
    ),
}
