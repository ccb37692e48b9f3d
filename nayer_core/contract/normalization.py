"""How a teacher's training normalised images: values, well-known sets of values by name, and their checks."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Channel = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
NormalizationName = Literal["imagenet", "inception", "clip", "cifar10", "cifar100", "mnist", "none"]

# Mean and deviation of images in [0, 1]. imagenet, inception and clip are the constants of timm
# (IMAGENET_DEFAULT_*, IMAGENET_INCEPTION_*, OPENAI_CLIP_*); cifar10, cifar100 and mnist are statistics of the
# training sets, as their examples use them. One value holds for each channel.
NAMED: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = MappingProxyType(
    {
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "inception": ((0.5,), (0.5,)),
        "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
        "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        "mnist": ((0.1307,), (0.3081,)),
        "none": ((0.0,), (1.0,)),
    }
)

_LARGEST_MEAN, _LARGEST_STD = 1.0, 1.5  # of images in [0, 1]; their deviation is 0.5 at most
_WHITE = 255


class Normalization(BaseModel):
    """Mean and deviation by which the teacher's training normalised images in [0, 1], per channel."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: Annotated[tuple[Channel, ...], Field(min_length=1, max_length=3)]
    std: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)], ...],
        Field(min_length=1, max_length=3),
    ]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} values and std has {len(self.std)}")
        return self


def by_name(value: Any, channels: int | None) -> Any:
    """Return the values of a name of `NAMED` for so many channels; other values as they are.

    Raises:
        ValueError: there is no such name, or its values are for another number of channels.
    """
    if not isinstance(value, str):
        return value
    if value not in NAMED:
        names = ", ".join(map(repr, NAMED))
        raise ValueError(
            f"{value[:40]!r} is no known normalisation; give mean and std, or one of the names {names}"
        )
    mean, std = NAMED[value]
    if len(mean) == 1 and channels is not None:
        mean, std = mean * channels, std * channels
    if channels is not None and len(mean) != channels:
        raise ValueError(f"{value!r} has values for {len(mean)} channels, and input_size has {channels}")
    return {"mean": mean, "std": std}


def require_unit_scale(normalization: Normalization) -> Normalization:
    """Refuse values for images in [0, 255].

    Raises:
        ValueError: with the values that are meant, where a division gives them.
    """
    mean, std = normalization.mean, normalization.std
    if max(map(abs, mean)) <= _LARGEST_MEAN and max(std) <= _LARGEST_STD:
        return normalization
    divided = [[float(f"{value / _WHITE:.4g}") for value in values] for values in (mean, std)]
    if max(map(abs, divided[0])) <= _LARGEST_MEAN and max(divided[1]) <= _LARGEST_STD and min(divided[1]) > 0:
        raise ValueError(
            "mean and std are values for images in [0, 255]; here images are in [0, 1]. Divide both by 255:"
            f" mean {divided[0]}, std {divided[1]}"
        )
    raise ValueError("mean and std must be values for images in [0, 1]: means up to 1, deviations below 1")
