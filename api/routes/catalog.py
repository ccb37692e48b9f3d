"""The catalog: architectures, presets and the schema of a spec. It needs no database."""

import functools
from typing import Annotated

from fastapi import Query

from api.problems import documented
from api.routing import Router
from api.schemas import ArchitectureBody, ArchitectureList, PresetBody, PresetList, SchemaBody
from nayer_core.contract import catalog
from nayer_core.contract.config import DistillConfig
from nayer_core.contract.presets import PRESETS
from nayer_core.contract.spec import JobSpec

router = Router(tags=["catalog"])

# names, family, notes
OWN_FAMILIES = (
    (
        catalog.WIDE_RESNETS,
        "wide_resnet",
        "small images (32 x 32 pixels); any wrn_{depth}_{width} with depth = 6n + 4 can be built",
    ),
    (catalog.CIFAR_RESNETS, "cifar_resnet", "small images (32 x 32 pixels); He et al. 2016, section 4.2"),
    (catalog.RESNETS, "resnet", "small images: a 3 x 3 stem without pooling"),
    (catalog.VGGS, "vgg", "small images: batch normalisation and one linear layer"),
    (("mobilenet_v2",), "mobilenet", "small images: the first two stages do not stride"),
    (("lenet5",), "lenet", "digits; no batch normalisation, so no statistics to match"),
    (("alexnet",), "alexnet", "small images; no batch normalisation, so no statistics to match"),
)


@router.get(
    "/architectures",
    operation_id="listArchitectures",
    summary="List the networks that can be teacher or student",
    responses=documented("invalid_parameter"),
)
def list_architectures(
    q: Annotated[
        str, Query(max_length=100, description="Words to search for in names, families and notes.")
    ] = "",
) -> ArchitectureList:
    """The service's own networks first, then those of torchvision and timm."""
    words = q.casefold().split()
    matches = [item for item in _architectures() if all(word in _text(item) for word in words)]
    return ArchitectureList(data=matches, total=len(matches))


@router.get("/presets", operation_id="listPresets", summary="List the presets", responses=documented())
def list_presets() -> PresetList:
    """Each preset with its whole configuration for small images. A spec without a preset uses `default`."""
    presets = [
        PresetBody(name=name, summary=preset.summary, config=preset.config.model_dump(mode="json"))
        for name, preset in PRESETS.items()
    ]
    return PresetList(data=presets, default="balanced")


@router.get("/schema", operation_id="getSchema", summary="The JSON Schema of a spec", responses=documented())
def get_schema() -> SchemaBody:
    """The schemas of the part `spec` and of its field `config`, with defaults and sources."""
    return SchemaBody(job_spec=JobSpec.model_json_schema(), distill_config=DistillConfig.model_json_schema())


@functools.cache
def _architectures() -> tuple[ArchitectureBody, ...]:
    entries = [(name, family, notes) for names, family, notes in OWN_FAMILIES for name in names]
    for name in catalog.library_architectures():
        library, _, network = name.partition("/")
        entries.append((name, library, f"{network} as {library} builds it"))
    return tuple(ArchitectureBody(name=name, family=family, notes=notes) for name, family, notes in entries)


def _text(item: ArchitectureBody) -> str:
    return f"{item.name} {item.family} {item.notes}".casefold()
