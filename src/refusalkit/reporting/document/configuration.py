"""A run's configuration and digests as JSON values."""

from __future__ import annotations

from typing import Any

from refusalkit.runs.manifest import Manifest


def configuration_of(manifest: Manifest) -> dict[str, Any]:
    """What was configured, which parameters were sent, and the versions in use."""
    return {
        "config": manifest.config,
        "config_digest": manifest.config_digest,
        "prompt_set": manifest.prompt_set.digest,
        "selection": manifest.prompt_set.selection,
        "judges": {name: entry.digest for name, entry in manifest.judges.items()},
        "parameters": {k: v.model_dump(mode="json") for k, v in manifest.parameters.items()},
        "refusalkit": manifest.refusalkit,
        "python": manifest.python,
        "packages": manifest.packages,
    }
