"""Python code in a model's folder: run only because the person who runs whet said so, for this process.

No config, recipe or plan can say so in that person's place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from whet.checkpoint.folder import Checkpoint
from whet.errors import UsageError

_KINDS = ("AutoConfig", "AutoModelForCausalLM")


def trust_remote_code(folder: str | Path) -> None:
    """Have transformers build the model in `folder` with the Python files there, which are run.

    Nothing is run of a family that transformers knows. Raises UsageError where config.json names no such files, or
    files of another place.
    """
    checkpoint = Checkpoint(folder)
    family, named = str(checkpoint.config.get("model_type", "")), checkpoint.config.get("auto_map") or {}
    if family in CONFIG_MAPPING and family not in CONFIG_MAPPING._extra_content:
        return
    if lacking := [kind for kind in _KINDS if not isinstance(named.get(kind), str)]:
        raise UsageError(
            "{folder}: transformers does not know the family {family!r}, and config.json names no Python code for "
            "{kind} (auto_map). Without that there is nothing to trust: download the model again, whole.",
            folder=checkpoint.path,
            family=family,
            kind=lacking[0],
        )
    if elsewhere := next((named[kind] for kind in _KINDS if "--" in named[kind]), None):
        raise UsageError(
            "{folder}: its code lies in another place ({code}). Put those files into the folder, and their names into "
            "auto_map of config.json: only what lies there can be looked at before it is run.",
            folder=checkpoint.path,
            code=elsewhere,
        )
    settings, model = (_run(checkpoint.path, named[kind]) for kind in _KINDS)
    AutoConfig.register(family, settings, exist_ok=True)
    AutoModelForCausalLM.register(settings, model, exist_ok=True)


def _run(folder: Path, name: str) -> Any:
    """The class `file.Class` of the folder's code."""
    try:
        return get_class_from_dynamic_module(name, folder, local_files_only=True)
    except Exception as error:  # whatever code that nobody here knows does
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(
            "{folder}: its Python code cannot be run ({error}). It may be written for another version of "
            "transformers, or need a package that is not installed.",
            folder=folder,
            error=said[:300],
        ) from error
