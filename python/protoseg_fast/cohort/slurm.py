"""A Slurm array script for a sweep in parts."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from protoseg_fast.cohort.config import SweepConfig

__all__ = ["command_of", "script"]


def script(config: SweepConfig, resources: Mapping[str, Any], more: Sequence[str] = ()) -> str:
    """Return an array script whose task k runs part k of ``num_parts``.

    Args:
        config: of the sweep; its part_id has no say.
        resources: of ``#SBATCH``, by name.
        more: further ``#SBATCH`` options, such as "--gres=gpu:1".
    """
    lines = [f"#SBATCH --{name}={value}" for name, value in resources.items()]
    lines += [f"#SBATCH {option}" for option in more]
    command = " \\\n  ".join(
        [*command_of(config), f"--num-parts {config.num_parts}", '--part-id "$SLURM_ARRAY_TASK_ID"']
    )
    return f"""#!/bin/bash
#SBATCH --job-name=protoseg-sweep
#SBATCH --array=0-{config.num_parts - 1}
#SBATCH --output=protoseg-sweep-%A_%a.log
#SBATCH --requeue
{chr(10).join(lines)}
# Submit it again to do what is left. Afterwards: protoseg-fast status, protoseg-fast merge.
set -euo pipefail
export OMP_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-1}}"

exec {command}
"""


def command_of(config: SweepConfig) -> list[str]:
    """Return the command of a sweep, a shell-quoted option at a time, without its part."""
    parts = ["protoseg-fast sweep"]
    for option in dataclasses.fields(config):
        value = getattr(config, option.name)
        if value == option.default or option.name in ("num_parts", "part_id"):
            continue
        flag = "--" + option.name.replace("_", "-")
        if isinstance(value, bool):
            parts.append(flag if value else f"--no-{option.name.replace('_', '-')}")
        elif isinstance(value, dict):
            texts = [f"{name}={','.join(map(str, v))}" for name, v in value.items()]
            parts.append(shlex.join([flag, *texts]))
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            parts.append(shlex.join([flag, text]))
    return parts
