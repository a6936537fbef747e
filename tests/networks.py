"""Small networks of the libraries that people use, and what scoring them by hand gives."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import protoseg_fast as psf


class Block(nn.Module):
    """A convolution, a norm and an activation."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 3, padding=1)
        self.norm = nn.InstanceNorm2d(outside)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


class Net(nn.Module):
    """Blocks in a list, one of them with two names and two calls, and one never called."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([Block(1, 4), Block(4, 4)])
        self.shared = self.encoder[1]
        self.unused = nn.Conv2d(4, 4, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Linear(4, 4)
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        for block in self.encoder:
            x = block(x)
        x = self.shared(nn.functional.max_pool2d(x, 2))
        x = x * self.gate(self.pool(x).flatten(1))[..., None, None]
        return self.head(x)


class Classes(nn.Module):
    """Four channels at the size of the image."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.last = nn.Conv2d(6, channels, 1)

    def forward(self, x):
        return self.last(torch.relu_(self.first(x)) * 5)


def library(module: str) -> Any:
    """Import a module of another library; the test is skipped without it, unless CI wants all."""
    if os.environ.get("PROTOSEG_TEST_LIBRARIES") == "required":
        return importlib.import_module(module)
    return pytest.importorskip(module)


def monai_unet() -> tuple[nn.Module, Tensor]:
    """3-D, residual units."""
    nets = library("monai.networks.nets")
    model = nets.UNet(
        spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 8, 16), strides=(2, 2),
        num_res_units=1,
    )  # fmt: skip
    return model, torch.rand(2, 1, 16, 16, 16)


def monai_basic_unet() -> tuple[nn.Module, Tensor]:
    """2-D, in-place LeakyReLU."""
    nets = library("monai.networks.nets")
    model = nets.BasicUNet(
        spatial_dims=2, in_channels=1, out_channels=2, features=(4, 4, 8, 8, 16, 4)
    )
    return model, torch.rand(2, 1, 32, 32)


def monai_segresnet() -> tuple[nn.Module, Tensor]:
    """3-D, one activation module shared by several blocks, in-place."""
    nets = library("monai.networks.nets")
    model = nets.SegResNet(
        spatial_dims=3, in_channels=1, out_channels=2, init_filters=8, blocks_down=(1, 1, 1),
        blocks_up=(1, 1),
    )  # fmt: skip
    return model, torch.rand(1, 1, 16, 16, 16)


def smp_unet() -> tuple[nn.Module, Tensor]:
    """2-D, ResNet-18 encoder, in-place ReLU called twice."""
    let_torchvision_be_imported()
    smp = library("segmentation_models_pytorch")
    model = smp.Unet("resnet18", encoder_weights=None, classes=2, decoder_channels=(16,) * 5)
    return model, torch.rand(1, 3, 64, 64)


def nnunet() -> tuple[nn.Module, Tensor]:
    """nnU-Net's PlainConvUNet, 2-D, in-place LeakyReLU."""
    let_torchvision_be_imported()
    unet = library("dynamic_network_architectures.architectures.unet")
    model = unet.PlainConvUNet(
        input_channels=1, n_stages=3, features_per_stage=(4, 8, 16), conv_op=nn.Conv2d,
        kernel_sizes=3, strides=(1, 2, 2), n_conv_per_stage=(2, 2, 2), num_classes=2,
        n_conv_per_stage_decoder=(2, 2), conv_bias=True, norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
    )  # fmt: skip
    return model, torch.rand(2, 1, 32, 32)


def torchvision_lraspp() -> tuple[nn.Module, Tensor]:
    """2-D, puts out a dictionary; in-place activations, pooled layers."""
    let_torchvision_be_imported()
    segmentation = library("torchvision.models.segmentation")
    model = segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=2
    )
    return model, torch.rand(1, 3, 64, 64)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    f.__name__: f
    for f in (
        monai_unet,
        monai_basic_unet,
        monai_segresnet,
        smp_unet,
        nnunet,
        torchvision_lraspp,
    )
}


def make(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network in evaluation mode and an image; same numbers every time."""
    torch.manual_seed(0)
    model, image = NETWORKS[name]()
    return model.eval(), image


_declared: list[Any] = []


def let_torchvision_be_imported() -> None:
    """Help torchvision beside a torch whose build its operators do not fit, as on CI.

    It registers things for operators that it has then not loaded. None is called here, so
    declaring them is enough. torchmetrics and timm import torchvision if they find it.
    """
    if _declared or importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declared.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            arguments = "Tensor dets, Tensor scores, float iou_threshold"
            _declared[0].define(f"{name}({arguments}) -> Tensor")


def all_hooks(model: nn.Module) -> list[tuple[str, list[Any], list[Any]]]:
    """Every module's hooks, to compare before and after."""
    return [
        (name, list(module._forward_hooks.items()), list(module._forward_pre_hooks.items()))
        for name, module in model.named_modules()
    ]


def cloned_features(model: nn.Module, image: Tensor) -> dict[tuple[str, int], Tensor]:
    """Copies of what every convolution puts out, by (name, call): what a careful person does."""
    found: dict[tuple[str, int], Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.modules.conv._ConvNd):

            def hook(_module: Any, _args: Any, output: Tensor, name: str = name) -> None:
                call = sum(key[0] == name for key in found)
                found[name, call] = output.detach().clone()

            handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        model(image)
    for handle in handles:
        handle.remove()
    return found


def assert_scores_by_hand(
    table: psf.SegmentationAbilityMap,
    guide: psf.Guide,
    features: Mapping[tuple[str, int], Tensor],
    groups: tuple[str, ...] = ("layer", "unit"),
    targets: Sequence[str] = ("0", "1", "2", "3"),
) -> None:
    """Every row is there once, in order, and equals what the guide says of cloned features."""
    frame = table.to_pandas()
    rows = iter(frame.itertuples(index=False))
    for (layer, call), copy in features.items():
        for division in groups:
            both = guide.sa_counts_both(copy, groups=division)
            for reference in ("target", "output"):
                counts = getattr(both, reference)
                for n, g, t in np.ndindex(*counts.tp.shape):
                    row = next(rows)
                    group = "layer" if division == "layer" else g
                    assert (row.case, row.layer, row.call, row.group) == (n, layer, call, group)
                    assert (row.target, row.reference) == (targets[t], reference)
                    np.testing.assert_equal(row.sa, float(counts.dice[n, g, t]))
                    assert row.tp == counts.tp[n, g, t]
                    assert row.predicted == counts.predicted[n, g, t]
                    assert row.actual == counts.actual[n, g, t]
                    assert row.voxels == counts.voxels[n, 0, 0]
                    assert row.channels == copy.shape[1]
                    assert row.feature_size == "x".join(map(str, copy.shape[2:]))
    assert next(rows, None) is None


def assert_same_table(a: psf.SegmentationAbilityMap, b: psf.SegmentationAbilityMap) -> None:
    """Every row and column."""
    importlib.import_module("pandas").testing.assert_frame_equal(a.to_pandas(), b.to_pandas())
