"""Drop-in for the authors' torch module. Imports torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from protoseg_fast import _formula, torch_ops
from protoseg_fast._core import cuda_available
from protoseg_fast.guide import Guide

__all__ = ["ProtoSeg"]

_SPATIAL_DIMS = {"1d": (2,), "2d": (2, 3), "3d": (2, 3, 4)}


class ProtoSeg(nn.Module):
    """The authors' ProtoSeg module: same constructor, forward, numbers and gradients.

    Averages the features under pred and under 1 - pred, and returns the two-way softmax of the
    negative squared distances to the two prototypes (He et al. 2023, arXiv:2212.09206, and their
    published code). CPU and CUDA tensors go through the compiled operator
    ``torch.ops.protoseg_fast.margin``, forward and backward, which keeps nothing of the features'
    size; tensors on other devices, or on CUDA where the build has no engine for it, through matrix
    products that keep one temporary of that size. Works under
    torch.compile (fullgraph), torch.export and autocast; has no parameters and an empty state_dict.
    torch.jit.script is refused: use torch.export.

    Args:
        ndims: "1d", "2d" or "3d", the number of spatial axes.

    Raises:
        ValueError: for another ndims.

    Examples:
        >>> import torch
        >>> xfeat, pred = torch.rand(2, 64, 32, 32), torch.rand(2, 1, 32, 32)
        >>> ProtoSeg(ndims="2d")(xfeat, pred).shape
        torch.Size([2, 2, 32, 32])
    """

    def __init__(self, ndims: str = "2d") -> None:
        super().__init__()
        if not isinstance(ndims, str) or ndims not in _SPATIAL_DIMS:
            raise ValueError(f"ndims must be one of {list(_SPATIAL_DIMS)}, got {ndims!r}.")
        self.ndims = ndims
        self.dims = _SPATIAL_DIMS[ndims]

    def extra_repr(self) -> str:
        """Show the constructor's argument."""
        return f"ndims={self.ndims!r}"

    def __prepare_scriptable__(self) -> None:
        """Refuse torch.jit.script, which could not call the engine."""
        raise RuntimeError(
            "ProtoSeg cannot be compiled by torch.jit.script; use torch.export.export or "
            "torch.compile, which trace it as the operator torch.ops.protoseg_fast.margin."
        )

    def forward(self, xfeat: Tensor, pred: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the probabilities of background and foreground.

        Args:
            xfeat: (N, C, *size) floating features. Unlike `protoseg_fast.probability`, they must
                already have the size of pred, as in the published module.
            pred: (N, 1, *size) floating probabilities in [0, 1].
            mask: (N, 1, *size) voxels that count, or their weights; None: all.

        Returns:
            (N, 2, *size): [:, 0] background, [:, 1] foreground, summing to 1; of the dtype that
            torch promotes the inputs to (float32 for 16-bit ones under autocast), always computed
            in float32 or float64. NaN where there is no foreground or background to average.
            Differentiable with respect to every floating input; second derivatives go through
            plain torch operations.

        Raises:
            ValueError: for shapes that do not fit, or pred outside [0, 1] (checked on the CPU
                only; other devices would have to wait for it).
            TypeError: for anything but floating tensors on one device (mask: also bool, integer).
        """
        self._check(xfeat, pred, mask)
        dtype = torch.promote_types(xfeat.dtype, pred.dtype)
        if mask is not None:
            dtype = torch.promote_types(dtype, mask.dtype)
        inputs = [xfeat, pred] if mask is None else [xfeat, pred, mask]
        needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        needs_grad = needs_grad or _formula.is_needed(*inputs)
        on_device = xfeat.is_cuda and not torch.compiler.is_compiling() and cuda_available()
        if on_device and not needs_grad and dtype == xfeat.dtype:
            foreground = Guide(pred, None, mask).probability(xfeat)[:, 0].to(dtype)
            return torch.cat([1 - foreground, foreground], dim=1)
        if dtype == torch.float64:
            xfeat = xfeat.double()
        elif torch.is_autocast_enabled(xfeat.device.type):
            dtype = torch.float32
        margin = _margin(xfeat, pred, mask)[:, 0]
        # Not 1 - sigmoid: the logarithm of a small background probability must stay finite.
        return torch_ops.sigmoid(torch.cat([-margin, margin], dim=1)).to(dtype)

    def _check(self, xfeat: Tensor, pred: Tensor, mask: Tensor | None) -> None:
        given = {"xfeat": xfeat, "pred": pred} | ({} if mask is None else {"mask": mask})
        for name, tensor in given.items():
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name} must be a torch tensor, got {type(tensor).__name__}.")
            if tensor.device != xfeat.device:
                raise TypeError(
                    f"All tensors must be on one device, but xfeat is on {xfeat.device} and {name} "
                    f"on {tensor.device}."
                )
            if name != "mask" and not tensor.is_floating_point():
                raise TypeError(
                    f"{name} must be floating, got {tensor.dtype}; call {name}.float() first."
                )
            if tensor.dim() != 2 + len(self.dims):
                raise ValueError(
                    f"{name} must have 2 + {len(self.dims)} axes for ndims={self.ndims!r}, got "
                    f"shape {tuple(tensor.shape)}."
                )
        expected = (xfeat.shape[0], 1, *xfeat.shape[2:])
        for name, tensor in given.items():
            if name != "xfeat" and tuple(tensor.shape) != expected:
                raise ValueError(
                    f"{name} must have shape (N, 1, *size) = {expected} to go with xfeat of shape "
                    f"{tuple(xfeat.shape)}, got {tuple(tensor.shape)}; resize xfeat to pred first, "
                    "or use protoseg_fast.probability, which accepts features of any size."
                )


def _margin(xfeat: Tensor, pred: Tensor, mask: Tensor | None) -> Tensor:
    if xfeat.device.type in torch_ops.DEVICES:
        return torch_ops.margin(xfeat, pred, mask)
    with torch.autocast(xfeat.device.type, enabled=False):
        return _formula.margin(xfeat, pred, mask, 1, "euclidean", 1.0, "linear", False, None)
