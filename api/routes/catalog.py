"""What may be asked: architectures, presets and the schema of a spec. No database needed."""

import functools
from typing import Annotated

from fastapi import APIRouter, Query

from api.problems import documented
from api.schemas import ArchitectureBody, ArchitectureList, PresetBody, PresetList, SchemaBody
from nayer_core.contract import catalog
from nayer_core.contract.config import DistillConfig
from nayer_core.contract.presets import PRESETS
from nayer_core.contract.spec import JobSpec

router = APIRouter(tags=["catalog"])

SMALL = "made for images of 32 x 32 pixels"
LARGE = "from 32 x 32 pixels up"
OWN_FAMILIES = {
    **dict.fromkeys(catalog.CIFAR_RESNETS, ("cifar_resnet", SMALL)),
    **dict.fromkeys(
        catalog.WIDE_RESNETS, ("wide_resnet", f"{SMALL}; any wrn_{{6n+4}}_{{width}} can be built")
    ),
    **dict.fromkeys(catalog.RESNETS, ("resnet", LARGE)),
    **dict.fromkeys(catalog.VGGS, ("vgg", LARGE)),
}


@router.get(
    "/architectures",
    operation_id="listArchitectures",
    summary="List the networks that can be teacher or student",
    responses=documented("invalid_parameter"),
)
def list_architectures(
    q: Annotated[str, Query(max_length=100, description="Part of a name, family or note.")] = "",
) -> ArchitectureList:
    """Our own first, then those of torchvision and timm."""
    wanted = q.casefold().split()
    found = [item for item in _architectures() if all(word in _text(item) for word in wanted)]
    return ArchitectureList(data=found, total=len(found))


@router.get("/presets", operation_id="listPresets", summary="List the presets", responses=documented())
def list_presets() -> PresetList:
    """Each with the whole configuration it means for small images; `auto` is the default."""
    presets = [
        PresetBody(name=name, summary=preset.summary, config=preset.config.model_dump(mode="json"))
        for name, preset in PRESETS.items()
    ]
    return PresetList(data=presets, default="balanced")


@router.get("/schema", operation_id="getSchema", summary="The JSON Schema of a spec", responses=documented())
def get_schema() -> SchemaBody:
    """The document of the part `spec`, and that of its field `config`, with defaults and sources."""
    return SchemaBody(job_spec=JobSpec.model_json_schema(), distill_config=DistillConfig.model_json_schema())


@functools.cache
def _architectures() -> tuple[ArchitectureBody, ...]:
    own = dict.fromkeys((*catalog.WIDE_RESNETS, *catalog.OWN_ARCHITECTURES))
    listed = [(name, *OWN_FAMILIES.get(name, (name.rstrip("0123456789"), LARGE))) for name in own]
    for name in catalog.library_architectures():
        library, _, network = name.partition("/")
        listed.append((name, library, f"{network} as {library} builds it"))
    return tuple(ArchitectureBody(name=name, family=family, notes=notes) for name, family, notes in listed)


def _text(item: ArchitectureBody) -> str:
    return f"{item.name} {item.family} {item.notes}".casefold()
