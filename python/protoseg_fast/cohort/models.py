"""The network of a sweep, and its weights."""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from protoseg_fast.cohort.config import SweepConfig, SweepError
from protoseg_fast.cohort.volumes import find_function
from protoseg_fast.network.layers import select_layers, unwrap

__all__ = ["check_device", "check_layers", "file_hash", "load_model", "state_hash"]

#: Where checkpoints of common trainers keep the state_dict: Lightning, nnU-Net, MONAI, timm.
WRAPPERS = ("state_dict", "network_weights", "model_state_dict", "model", "net")


def load_model(config: SweepConfig) -> nn.Module:
    """Build the network, load its weights, put it into eval mode on its device.

    Weights that are drawn are drawn from torch's current state: seed it.

    Raises:
        SweepError: if it cannot be built, or the weights cannot be read or do not fit.
    """
    weights = Path(config.weights) if config.weights else None
    if config.model and Path(config.model).is_dir():
        model, weights = _bundle(Path(config.model), weights)
    else:
        model = _built(config.model)
    if weights is not None:
        _load(model, read_weights(weights), weights)
    try:
        return model.to(device=config.device, dtype=getattr(torch, config.dtype)).eval()
    except (RuntimeError, AssertionError) as error:
        raise SweepError(f"Cannot put the model on {config.device}: {error}") from error


def check_device(name: str) -> None:
    """Refuse a device on which nothing can be computed.

    Raises:
        SweepError: for a device that torch does not know, or does not have here.
    """
    try:
        torch.zeros(1, device=name).cpu()
    except Exception as error:  # of many types, by device
        here = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        reason = str(error).partition("\n")[0]
        raise SweepError(
            f"device must be one that torch has here ({here}); got {name!r}: {reason}"
        ) from error


def check_layers(model: nn.Module, layers: Sequence[str]) -> None:
    """Refuse layers that the network does not have: no case could be scored.

    Raises:
        SweepError: for a selector that finds nothing, with the nearest names, and for TorchScript.
    """
    try:
        select_layers(unwrap(model), list(layers))
    except ValueError as error:
        raise SweepError(f"layers: {error}") from error
    except TypeError as error:
        raise SweepError(str(error)) from error


def read_weights(path: Path) -> dict[str, Any]:
    """Return the state_dict in a file, without running any code that the file holds.

    Raises:
        SweepError: if it is none, or is TorchScript.
    """
    if not path.is_file():
        raise SweepError(f"There are no weights {path}.")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    if _is_torchscript(path):
        raise SweepError(
            f"{path} is TorchScript, whose layers call no hooks, so that they cannot be scored. "
            "Give the network's Python code as --model and its state_dict as --weights: "
            "torch.save(torch.jit.load(FILE).state_dict(), ...)."
        )
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SweepError(
            f"Cannot read {path} with weights_only=True, which runs no code from the file: save "
            f"the state_dict alone, torch.save(model.state_dict(), ...). ({_reason(error)})"
        ) from error
    for key in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
            break
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise SweepError(f"{path} holds no state_dict, but {type(found).__name__}.")
    return found


def _reason(error: Exception) -> str:
    """What torch found in a file, without its advice to run the file's code."""
    if not isinstance(error, pickle.UnpicklingError):
        return str(error).partition("\n")[0]
    held = re.search(r"GLOBAL (\S+)", str(error))
    return f"It holds {held[1]}." if held else "It is no such file."


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


def state_hash(model: nn.Module) -> str:
    """Return the SHA-256 of a network's parameters and buffers, in hexadecimal."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def _built(text: str) -> nn.Module:
    function = find_function(text)
    try:
        model = function()
    except Exception as error:
        raise SweepError(f"{text} failed: {type(error).__name__}: {error}") from error
    if isinstance(model, torch.jit.ScriptModule):
        raise SweepError(f"{text} returned TorchScript, whose layers call no hooks.")
    if not isinstance(model, nn.Module):
        raise SweepError(f"{text} must return a torch.nn.Module, got {type(model).__name__}.")
    return model


def _bundle(folder: Path, weights: Path | None) -> tuple[nn.Module, Path | None]:
    """The network of a MONAI bundle: ``network_def`` in its configuration."""
    names = ("inference.json", "inference.yaml", "train.json", "train.yaml")
    found = [folder / "configs" / n for n in names if (folder / "configs" / n).exists()]
    if not found:
        raise SweepError(f"{folder} is no MONAI bundle: it has no configs/inference.json.")
    try:
        from monai.bundle import ConfigParser
    except ImportError as error:
        raise SweepError("A MONAI bundle needs: pip install monai") from error
    try:
        parser = ConfigParser()
        parser.read_config(str(found[0]))
        parser["bundle_root"] = str(folder)
        model = parser.get_parsed_content("network_def")
    except Exception as error:
        raise SweepError(f"Cannot build network_def of {found[0]}: {error}") from error
    default = folder / "models" / "model.pt"
    return model, weights or (default if default.exists() else None)


def _load(model: nn.Module, state: dict[str, Any], path: Path) -> None:
    if state and all(name.startswith("module.") for name in state):  # saved from DataParallel
        state = {name.removeprefix("module."): value for name, value in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise SweepError(f"The weights in {path} are not those of the model: {error}") from error


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise SweepError(".safetensors needs: pip install safetensors") from error
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise SweepError(
            f"Cannot read {path}: truncated, or no safetensors file; copy it again. ({error})"
        ) from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2].startswith("code/") for name in archive.namelist())
