"""Where the hub, and its cache on a machine, keep the text encoder of the paper."""

from pathlib import Path

# OpenAI's ViT-B/32, as open_clip reads it.
CLIP_REPOSITORY = "timm/vit_base_patch32_clip_224.openai"
CLIP_FILE = "open_clip_model.safetensors"


def cached_clip_revisions(hub_home: Path) -> list[str]:
    """List the revisions of CLIP's weights in a cache of the hub, without importing its library.

    Args:
        hub_home: the folder HF_HOME.
    """
    snapshots = hub_home / "hub" / f"models--{CLIP_REPOSITORY.replace('/', '--')}" / "snapshots"
    return sorted(path.parent.name for path in snapshots.glob(f"*/{CLIP_FILE}") if path.exists())
