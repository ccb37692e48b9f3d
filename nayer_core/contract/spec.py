"""The job specification: the document of `POST /jobs` and of the program."""

import itertools
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails

from nayer_core.contract import catalog, normalization
from nayer_core.contract.config import MethodConfig
from nayer_core.contract.labels import listed
from nayer_core.contract.methods import DEFAULT_METHOD, METHODS, MethodEntry
from nayer_core.contract.normalization import Normalization, NormalizationName
from nayer_core.contract.webhook import WebhookSpec

MAX_LABELS = 100_000
MAX_LABEL_CHARS = 200
MAX_LABEL_ERRORS = 50  # reported for one list

MetadataKey = Annotated[str, StringConstraints(max_length=100)]
Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_LABEL_CHARS)]
LabelList = Annotated[tuple[Label, ...], Field(min_length=2, max_length=MAX_LABELS)]
OnOutOfMemory = Literal["fail", "halve"]
TeacherWeights = Literal["auto", "raw"]

MAX_RUNTIME_SECONDS = 366 * 24 * 3600  # a year


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TeacherSpec(_Document):
    """The network that was uploaded."""

    architecture: str = Field("auto", description="A name of GET /architectures, or 'auto' to recognise it.")
    input_size: tuple[int, int, int] = Field(description="(channels, height, width) in pixels.")
    normalization: Normalization = Field(
        description="mean and std per channel, for images in [0, 1], or one of the names of known values."
    )
    weights: TeacherWeights = Field(
        "auto",
        description="Where the file has trained weights and averages of them (EMA): the averages, or 'raw'.",
    )
    accuracy: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Accuracy on real data, where known: makes a bound on the student's computable."
    )

    @field_validator("architecture")
    @classmethod
    def _known_architecture(cls, name: str) -> str:
        return name if name == "auto" else catalog.require_architecture(name)

    @field_validator("input_size")
    @classmethod
    def _supported_size(cls, size: tuple[int, int, int]) -> tuple[int, int, int]:
        channels, height, width = size
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, not {channels}")
        if not (8 <= height <= 1024 and 8 <= width <= 1024):
            raise ValueError(f"height and width must be 8 to 1024 pixels, not {height} x {width}")
        return size

    @field_validator("normalization", mode="before", json_schema_input_type=Normalization | NormalizationName)
    @classmethod
    def _named_normalization(cls, value: object, info: ValidationInfo) -> object:
        size = info.data.get("input_size")  # absent if it is wrong itself
        return normalization.by_name(value, size[0] if size else None)

    @field_validator("normalization")
    @classmethod
    def _unit_scale(cls, values: Normalization) -> Normalization:
        return normalization.require_unit_scale(values)

    @model_validator(mode="after")
    def _channels_agree(self) -> Self:
        if len(self.normalization.mean) != self.input_size[0]:
            raise ValueError(
                f"normalization has {len(self.normalization.mean)} channels, "
                f"input_size has {self.input_size[0]}"
            )
        return self


class StudentSpec(_Document):
    """The network to train."""

    architecture: str = Field(description="A name of GET /architectures.")

    @field_validator("architecture")
    @classmethod
    def _known_architecture(cls, name: str) -> str:
        return catalog.require_architecture(name)


class TextEncoderSpec(_Document):
    """How class names become vectors for the noisy layer."""

    name: str = Field("auto", description="CLIP where its weights can be had, else a sentence encoder.")
    prompt: Annotated[str, StringConstraints(max_length=500)] = Field(
        "a photo of a {label}", description="Must hold {label} or {index} (Table 6)."
    )
    whiten: bool | None = Field(
        None, description="Decorrelate the embeddings over the classes; left open, the preset decides."
    )

    @field_validator("name")
    @classmethod
    def _known_encoder(cls, name: str) -> str:
        return catalog.require_text_encoder(name)

    @field_validator("prompt")
    @classmethod
    def _names_the_class(cls, prompt: str) -> str:
        if "{label}" not in prompt and "{index}" not in prompt:
            raise ValueError("prompt must hold {label} or {index}")
        return prompt


class JobSpec(_Document):
    """One request for a student. `labels`, `input_size` and `normalization` have no default:
    a wrong value would silently ruin the student.
    """

    labels: LabelList = Field(
        description="Class names, in the order of the teacher's outputs: a list, or an object with indices."
    )
    teacher: TeacherSpec
    student: StudentSpec
    method: str = Field(DEFAULT_METHOD, description="How the student is taught.")
    preset: str = "auto"
    config: dict[str, Any] = Field(
        default_factory=dict, description="Fields of DistillConfig that differ from the preset."
    )
    text_encoder: TextEncoderSpec = TextEncoderSpec()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    reuse_bank: bool = Field(
        False,
        description="Begin after the warm-up of an earlier job on this teacher; store one for later jobs.",
    )
    on_out_of_memory: OnOutOfMemory = Field(
        "fail",
        description="When the device is full: end with the batch sizes that fit, or go on with halved ones.",
    )
    max_runtime_seconds: Annotated[int, Field(ge=1, le=MAX_RUNTIME_SECONDS)] | None = None
    metadata: Annotated[
        dict[MetadataKey, Annotated[str, StringConstraints(max_length=500)]], Field(max_length=16)
    ] = Field(
        default_factory=dict,
        description="At most 16 strings of the client's own, by names of up to 100 characters.",
    )
    webhook: WebhookSpec | None = Field(None, description="Receiver of messages about the job.")

    @field_validator("labels", mode="before", json_schema_input_type=LabelList | dict[str, Any])
    @classmethod
    def _first_wrong_labels(cls, labels: object) -> object:
        if isinstance(labels, dict):
            labels = _listed(labels)
        # pydantic would make an error for each: seconds for 300,000 wrong ones.
        if not isinstance(labels, list | tuple):
            return labels
        labels = labels[: MAX_LABELS + 1]
        wrong = (error for index, label in enumerate(labels) if (error := _label_error(index, label)))
        first = list(itertools.islice(wrong, MAX_LABEL_ERRORS))
        if first:
            raise ValidationError.from_exception_data("labels", first)
        return labels

    @field_validator("method")
    @classmethod
    def _known_method(cls, method: str) -> str:
        return catalog.require_name(method, tuple(METHODS), "method")

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, preset: str, info: ValidationInfo) -> str:
        return catalog.require_name(preset, _method_of(info).preset_names, "preset")

    @field_validator("config")
    @classmethod
    def _known_fields(cls, config: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for field in config:
            catalog.require_name(field, tuple(_method_of(info).config.model_fields), "config field")
        return config

    @model_validator(mode="after")
    def _config_resolves(self) -> Self:
        try:
            self.resolved_config()
        except ValidationError as error:
            raise ValidationError.from_exception_data("config", _under("config", error)) from error
        return self

    def resolved_config(self) -> tuple[str, MethodConfig]:
        """Return the name of the preset and the whole configuration for this spec."""
        return METHODS[self.method].resolve_config(self.preset, self.config, self.teacher.input_size)

    def resolved_text_encoder(self) -> TextEncoderSpec:
        """Return the text encoder; without a value from the client, the preset decides `whiten`."""
        if self.text_encoder.whiten is not None:
            return self.text_encoder
        preset, _ = self.resolved_config()
        return self.text_encoder.model_copy(update={"whiten": METHODS[self.method].presets[preset].whiten})


def _method_of(info: ValidationInfo) -> MethodEntry:
    """Return the entry of the document's method; of the default method if the name is wrong."""
    return METHODS[info.data.get("method", DEFAULT_METHOD)]


def _listed(labels: dict[Any, Any]) -> list[Any]:
    try:
        return listed(labels)[0]
    except ValueError as error:
        raise ValueError(f"labels must be a list of names, or an object with indices; {error}") from error


def _label_error(index: int, label: object) -> InitErrorDetails | None:
    if not isinstance(label, str):
        return InitErrorDetails(type="string_type", loc=(index,), input=label)
    length = len(label.strip())
    if length == 0:
        return InitErrorDetails(type="string_too_short", loc=(index,), input=label, ctx={"min_length": 1})
    if length > MAX_LABEL_CHARS:
        most = {"max_length": MAX_LABEL_CHARS}
        return InitErrorDetails(type="string_too_long", loc=(index,), input=label, ctx=most)
    return None


def _under(field: str, error: ValidationError) -> list[InitErrorDetails]:
    # pydantic merges nested errors unchanged: without this their locations would lack `config`.
    return [
        InitErrorDetails(
            type=item["type"], loc=(field, *item["loc"]), input=item["input"], ctx=item.get("ctx", {})
        )
        for item in error.errors(include_url=False)
    ]


class ResolvedSpec(_Document):
    """A spec after inspection: nothing is `auto`, except the text encoder until `embed`."""

    labels: tuple[str, ...]
    input_size: tuple[int, int, int]
    normalization: Normalization
    teacher_architecture: str
    teacher_accuracy: float | None
    teacher_notes: tuple[str, ...] = Field((), description="What was assumed of the teacher's file.")
    student_architecture: str
    method: str = DEFAULT_METHOD
    preset: str
    config: SerializeAsAny[MethodConfig]
    text_encoder: TextEncoderSpec
    seed: int
    on_out_of_memory: OnOutOfMemory = "fail"
    reuse_bank: bool = False
    bank: dict[str, str] | None = Field(
        None, description="sha256 and job of the bank that is used; known when the run begins."
    )

    @field_validator("config", mode="before")
    @classmethod
    def _config_of_the_method(cls, config: object, info: ValidationInfo) -> object:
        return _method_of(info).config.model_validate(config)

    @property
    def num_classes(self) -> int:
        """K: the number of classes of teacher and student."""
        return len(self.labels)


ExportFormat = Literal["safetensors", "onnx", "pt2"]
