"""One adapter from a hub of models: its configuration and its weights, and nothing else of what is there."""

import re
from pathlib import Path

from .errors import BadSkill

FILES = ["adapter_config.json", "adapter_model.safetensors"]


def is_hub_name(words: str) -> bool:
    """`owner/name`, or `owner/name/folder` for an adapter in a folder of its repository."""
    return bool(re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)+", words))


def fetch_adapter(name: str, into: Path) -> tuple[Path, str]:
    """Download the adapter `name` below `into`; its folder, and the revision. Raises BadSkill."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    owner, title, *inner = name.split("/")
    disable_progress_bars()
    try:
        revision = HfApi().model_info(f"{owner}/{title}").sha or "main"
        wanted = [*FILES, *(f"*/{file}" for file in FILES)]
        folder = snapshot_download(f"{owner}/{title}", revision=revision, allow_patterns=wanted, local_dir=into)
    except Exception as error:  # of many kinds: no such name, no network, no permission, a broken answer
        raise BadSkill(
            f"`{name}` is neither a folder nor an adapter that could be fetched from the hub ({type(error).__name__}).",
            "check the spelling and the connection; a private one needs HF_TOKEN",
        ) from error
    return Path(folder, *inner), revision
