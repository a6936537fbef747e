"""What the recipes of docs/networks.md find when they run: small networks, images and labels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import protoseg_fast as psf
from networks import library


@dataclass(frozen=True)
class Recipe:
    """The names that a recipe uses, and what its table must hold.

    Attributes:
        names: makes them.
        layers: the first and the last layer of the table, and others that must be there.
        targets: of the table.
        truth: whether there is a ground truth.
        check: looks at the table and at all names, once the recipe has run.
    """

    names: Callable[[], dict[str, Any]]
    layers: tuple[str, ...]
    targets: tuple[str, ...] = ("0",)
    truth: bool = True
    check: Callable[[psf.SegmentationAbilityMap, dict[str, Any]], None] | None = None


class UNet(nn.Module):
    """One level, one skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 6, 3, padding=1)
        self.inner = nn.Conv2d(6, 8, 3, padding=1)
        self.up = nn.Conv2d(14, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down(x).relu()
        coarse = self.inner(nn.functional.max_pool2d(fine, 2)).relu()
        coarse = nn.functional.interpolate(coarse, scale_factor=2)
        return self.head(self.up(torch.cat([fine, coarse], 1)).relu())


class Encoded(nn.Module):
    """A transformer of timm, a convolution, and the image's size again: one logit a pixel."""

    def __init__(self, encoder: nn.Module, lay_out: Callable[[Tensor], Tensor], channels: int):
        super().__init__()
        self.encoder, self.lay_out = encoder, lay_out
        self.head = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.lay_out(self.encoder.forward_features(x))
        return nn.functional.interpolate(self.head(features), size=x.shape[2:])


def label(*shape: int, classes: int = 2) -> Tensor:
    """A label map in which every class has some voxels."""
    return torch.arange(torch.Size(shape).numel()).reshape(shape) // 7 % classes


def of_your_own() -> dict[str, Any]:
    return {"MyUNet": UNet, "image": torch.rand(2, 1, 16, 16), "mask": label(2, 16, 16)}


def monai() -> dict[str, Any]:
    return {"image": torch.rand(1, 1, 16, 16, 16), "label": label(1, 16, 16, 16, classes=3)}


def smp() -> dict[str, Any]:
    return {"image": torch.rand(1, 3, 32, 32), "mask": label(1, 32, 32)}


def nnunet(outputs: int, classes: int) -> dict[str, Any]:
    """A PlainConvUNet with deep supervision, whose output is a list."""
    unet = library("dynamic_network_architectures.architectures.unet")
    network = unet.PlainConvUNet(
        input_channels=1, n_stages=3, features_per_stage=(4, 8, 16), conv_op=nn.Conv2d,
        kernel_sizes=3, strides=(1, 2, 2), n_conv_per_stage=1, num_classes=outputs,
        n_conv_per_stage_decoder=1, conv_bias=True, norm_op=nn.InstanceNorm2d,
        nonlin=nn.LeakyReLU, deep_supervision=True,
    )  # fmt: skip
    image = torch.rand(2, 1, 32, 32)
    assert isinstance(network(image), list)
    return {"network": network, "image": image, "label": label(2, 32, 32, classes=classes)}


def torchvision() -> dict[str, Any]:
    return {"image": torch.rand(1, 3, 32, 32), "label": label(1, 32, 32, classes=21)}


def vit() -> dict[str, Any]:
    """Twelve blocks, so that some have numbers of two digits."""
    encoder = library("timm").create_model(
        "vit_tiny_patch16_224", embed_dim=12, depth=12, num_heads=2, num_classes=0
    )
    lay_out = psf.vit_reshape_transform((14, 14), prefix_tokens=1)
    return {"model": Encoded(encoder, lay_out, 12).eval(), "image": torch.rand(1, 3, 224, 224)}


def swin() -> dict[str, Any]:
    encoder = library("timm").create_model(
        "swin_tiny_patch4_window7_224", embed_dim=8, depths=(2, 2), num_heads=(1, 2), num_classes=0
    )
    model = Encoded(encoder, psf.swin_reshape_transform, 16).eval()
    return {"model": model, "image": torch.rand(1, 3, 224, 224)}


def larger_volume() -> dict[str, Any]:
    """A third longer than the window."""
    model = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv3d(2, 2, 1)).eval()
    return {"model": model, "volume": torch.rand(1, 1, 128, 96, 96), "label": label(1, 128, 96, 96)}


def best_units() -> dict[str, Any]:
    model, image = UNet().eval(), torch.rand(2, 1, 16, 16)
    sam = psf.segmentation_ability_map(model, image, target=label(2, 16, 16))
    return {"model": model, "image": image, "sam": sam}


def twenty_units_were_off(sam: psf.SegmentationAbilityMap, found: dict[str, Any]) -> None:
    """The output is that of the network whose best units' weights are zero."""
    best = sam.best(20)
    assert sum(map(len, found["units"].values())) == len(best) == 20
    by_hand = copy.deepcopy(found["model"])
    for layer, unit in zip(best["layer"], best["group"], strict=True):
        convolution = by_hand.get_submodule(layer)
        convolution.weight.data[unit] = convolution.bias.data[unit] = 0
    with torch.no_grad():
        torch.testing.assert_close(found["without"], by_hand(found["image"]))
        assert not torch.equal(found["without"], found["model"](found["image"]))


def all_cases_are_there(sam: psf.SegmentationAbilityMap, _: dict[str, Any]) -> None:
    assert sam.cases == ["a", "b", "c"]


def batches() -> dict[str, Any]:
    def loader() -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        for names in (["a", "b"], ["c"]):
            yield torch.rand(len(names), 1, 16, 16), label(len(names), 16, 16), names

    return {"model": UNet().eval(), "loader": loader()}


SWIN_BLOCKS = [f"encoder.layers.{layer}.blocks.{block}" for layer in (0, 1) for block in (0, 1)]

#: By the heading in the page that the recipe is under.
RECIPES: dict[str, Recipe] = {
    "Your own network": Recipe(of_your_own, ("down", "inner", "up", "head")),
    "MONAI": Recipe(monai, ("model.0.residual", "model.2.1.conv.unit0.conv"), ("liver", "tumour")),
    "Segmentation Models PyTorch": Recipe(
        smp, ("encoder.conv1", "encoder.layer4.1.conv2", "decoder.blocks.4")
    ),
    "nnU-Net, trained on labels": Recipe(
        lambda: nnunet(4, 4),
        ("encoder.stages.0.0.convs.0.conv", "decoder.seg_layers.1"),
        ("1", "2", "3"),
    ),
    "nnU-Net, trained on regions": Recipe(
        lambda: nnunet(3, 5),
        ("encoder.stages.0.0.convs.0.conv", "decoder.seg_layers.1"),
        ("whole", "core", "enhancing"),
    ),
    "torchvision": Recipe(torchvision, ("backbone.conv1", "classifier.4"), ("person", "cycle")),
    "ViT": Recipe(vit, tuple(f"encoder.blocks.{i}" for i in range(12)), truth=False),
    "Swin": Recipe(
        swin,
        (
            "encoder.patch_embed.proj",
            "encoder.layers.0.blocks.0",
            "encoder.layers.1.blocks.1",
            "head",
        ),
        truth=False,
    ),
    "A volume larger than the patch": Recipe(larger_volume, ("0", "2"), ("1",)),
    "Are the units needed?": Recipe(
        best_units, ("down", "inner", "up", "head"), check=twenty_units_were_off
    ),
    "Several batches, one table": Recipe(
        batches, ("down", "inner", "up", "head"), check=all_cases_are_there
    ),
}
