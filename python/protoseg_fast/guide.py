"""The Guide: what prototypes are averaged under, and what maps are scored against."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Sequence
from typing import Any, Literal, TypeGuard

import numpy as np

from protoseg_fast import _core
from protoseg_fast._arrays import Array, Kind, common_kind, inspect
from protoseg_fast._cuda import CudaGuide
from protoseg_fast.counts import BothCounts, Counts, Prototypes

__all__ = ["Empty", "Groups", "Guide", "Interpolation", "Metric"]

Groups = int | Literal["layer", "unit"]
Metric = Literal["euclidean", "cosine"]
Interpolation = Literal["linear", "nearest"]
Empty = Literal["nan", "monai", "one", "zero"]


class Guide:
    """Validates pred, target and mask once, for any number of layers.

    Keeps the packed target and, per feature size, the resized weights of the prototypes, so that
    scoring a further layer reads its features and little else. Borrows ``pred`` and ``mask``: they
    must not be changed while the guide is in use. Safe to use from several threads. Arrays on a
    CUDA device stay there, and so do results: see docs/gpu.md.

    Args:
        pred: (N, T, *size) floating, the network's probability of each target, in [0, 1];
            ``size`` has 1 to 3 spatial axes.
        target: (N, T, *size) boolean, integer or floating, 0 or 1. None: scores are taken
            against pred > 0.5, the estimate without ground truth.
        mask: (N, 1, *size), the voxels that count: boolean, integer 0/1, or finite weights >= 0.
            Voxels count where mask > 0, prototypes are averaged with the weights. None: all.
        binarize: average under pred > binarize (the paper's text) instead of pred (the authors'
            code). In [0, 1].

    Raises:
        ValueError: for shapes that do not fit, pred outside [0, 1] (logits: apply sigmoid or
            softmax first), NaN, a target that is not binary, or negative or infinite weights.
        TypeError: for anything that is no array, of an unsupported dtype, on another device, or
            from different array libraries.

    Examples:
        >>> import numpy as np
        >>> import protoseg_fast as psf
        >>> rng = np.random.default_rng(0)
        >>> target = rng.random((1, 1, 32, 32)) < 0.3
        >>> features = target + rng.normal(size=(1, 8, 32, 32)).astype(np.float32)
        >>> guide = psf.Guide(np.where(target, 0.9, 0.1), target)
        >>> guide.sa_score(features).shape, guide.sa_score(features, groups="unit").shape
        ((1, 1, 1), (1, 8, 1))
    """

    def __init__(
        self,
        pred: Any,
        target: Any = None,
        mask: Any = None,
        *,
        binarize: float | None = None,
    ) -> None:
        given = {"pred": pred, "target": target, "mask": mask}
        arrays = {
            name: inspect(name, value)
            for name, value in given.items()
            if value is not None or name == "pred"
        }
        self._kind = common_kind(arrays)
        threshold = None if binarize is None else _number("binarize", binarize)
        self._has_target = target is not None
        self._core: _core.Guide | CudaGuide
        if self._kind.device != "cpu":
            self._core = CudaGuide(arrays, self._kind, threshold)
            return
        exported = {name: array.exported for name, array in arrays.items()}
        self._core = _core.Guide(
            exported["pred"], exported.get("target"), exported.get("mask"), threshold
        )

    def check(self) -> None:
        """Raise what is wrong with the values of pred, target and mask.

        On the CPU they were checked when the guide was made, and this does nothing. On a CUDA
        device they are checked there without anyone waiting: until this is called, which waits,
        wrong values show as scores of NaN and counts that are not ``defined``.

        Raises:
            ValueError: as the constructor on the CPU.
        """
        if isinstance(self._core, CudaGuide):
            self._core.check()

    def sa_counts(
        self,
        features: Any,
        prototypes: Prototypes | None = None,
        *,
        groups: Groups = 1,
        metric: Metric = "euclidean",
        interpolation: Interpolation = "linear",
        align_corners: bool = False,
    ) -> Counts:
        """Count voxels of map and target for every group; see `protoseg_fast.sa_counts`.

        ``prototypes`` draws the maps at given prototypes instead of those of these features: for
        features that are a part of a volume, the merged ones of its parts. Raises ValueError if
        their shape is not (N, T, C), with the guide's N and T and the features' C, and TypeError if
        they are on another device or from another array library than the guide. Prototypes alone
        then decide what is ``defined``: a map at given prototypes means nothing where features are
        NaN or infinite.
        """
        array = self._inspect(features)
        options = _options(features, groups, metric, interpolation, align_corners)
        ((arrays,),) = self._core.sa_counts(
            array.exported, [options], False, self._given(prototypes)
        )
        return Counts._from_core(arrays, self._kind)

    def sa_counts_both(
        self,
        features: Any,
        prototypes: Prototypes | None = None,
        *,
        groups: Groups = 1,
        metric: Metric = "euclidean",
        interpolation: Interpolation = "linear",
        align_corners: bool = False,
    ) -> BothCounts:
        """Count against the target and against the network's own output, in one pass.

        Arguments and errors are those of `Guide.sa_counts`.

        Returns:
            BothCounts(target, output): the `Counts` that `sa_counts` returns, and those against
            pred > 0.5, the estimate without ground truth. They are equal without a target.
        """
        ((both,),) = self._sa_counts_of_layers(
            [(features, [groups], prototypes)],
            metric=metric,
            interpolation=interpolation,
            align_corners=align_corners,
        )
        return both

    def sa_counts_of_layers(
        self,
        layers: Sequence[Any],
        *,
        groups: Groups = "unit",
        metric: Metric = "euclidean",
        interpolation: Interpolation = "linear",
        align_corners: bool = False,
    ) -> list[BothCounts]:
        """Count as `Guide.sa_counts_both` for the features of several layers, in one call.

        On a CUDA device, the units of small layers take one launch together, which otherwise is
        most of what they cost. On the CPU, layers are scored one after the other.

        Args:
            layers: features (N, C, *feature_size) of each layer, of any C and feature size.
            groups, metric, interpolation, align_corners: see `protoseg_fast.sa_counts`.

        Returns:
            For each layer, `BothCounts` (N, G, T).

        Raises:
            ValueError, TypeError: as `Guide.sa_counts`.
        """
        found = self._sa_counts_of_layers(
            [(features, [groups], None) for features in layers],
            metric=metric,
            interpolation=interpolation,
            align_corners=align_corners,
        )
        return [both for (both,) in found]

    def _sa_counts_of_layers(
        self,
        layers: Sequence[tuple[Any, Sequence[Groups], Prototypes | None]],
        *,
        metric: str = "euclidean",
        interpolation: str = "linear",
        align_corners: bool = False,
    ) -> list[list[BothCounts]]:
        """As `Guide.sa_counts_both` for several (features, divisions, prototypes). Prototypes of a
        layer are averaged once. Without a target, only the output is counted, and stands for both.
        """
        given = [
            (
                self._inspect(features).exported,
                [_options(features, g, metric, interpolation, align_corners) for g in divisions],
                self._given(prototypes),
            )
            for features, divisions, prototypes in layers
        ]
        if isinstance(self._core, CudaGuide):
            found = self._core.sa_counts_of_layers(given, self._has_target)
        else:
            found = [
                self._core.sa_counts(features, divisions, self._has_target, prototypes)
                for features, divisions, prototypes in given
            ]
        return [[self._both(arrays) for arrays in layer] for layer in found]

    def _both(self, arrays: Sequence[Any]) -> BothCounts:
        """The counts of one or two references."""
        references = [Counts._from_core(one, self._kind) for one in arrays]
        return BothCounts(references[0], references[-1])

    def sa_score(
        self,
        features: Any,
        *,
        groups: Groups = 1,
        metric: Metric = "euclidean",
        interpolation: Interpolation = "linear",
        align_corners: bool = False,
        empty: Empty = "nan",
    ) -> Any:
        """Score every group; see `protoseg_fast.sa_score`."""
        _check_types(empty=empty)
        array = self._inspect(features)
        options = _options(features, groups, metric, interpolation, align_corners)
        return self._kind.wrap(self._core.sa_score(array.exported, options, empty))

    def segment(
        self,
        features: Any,
        prototypes: Prototypes | None = None,
        *,
        groups: Groups = 1,
        metric: Metric = "euclidean",
        interpolation: Interpolation = "linear",
        align_corners: bool = False,
    ) -> Any:
        """Map every group's foreground; see `protoseg_fast.segment`, and `Guide.sa_counts` for
        ``prototypes``.
        """
        array = self._inspect(features)
        options = _options(features, groups, metric, interpolation, align_corners)
        return self._kind.wrap(self._core.segment(array.exported, options, self._given(prototypes)))

    def probability(
        self,
        features: Any,
        *,
        groups: Groups = 1,
        metric: Metric = "euclidean",
        temperature: float = 1.0,
        interpolation: Interpolation = "linear",
        align_corners: bool = False,
    ) -> Any:
        """Map every group's probability of foreground; see `protoseg_fast.probability`.

        No gradients are recorded here, unlike there.
        """
        array = self._inspect(features)
        options = _options(features, groups, metric, interpolation, align_corners, temperature)
        return self._kind.wrap(self._core.probability(array.exported, options))

    def prototypes(
        self,
        features: Any,
        *,
        interpolation: Interpolation = "linear",
        align_corners: bool = False,
    ) -> Prototypes:
        """Average features under pred and 1 - pred; see `protoseg_fast.prototypes`."""
        array = self._inspect(features)
        options = _options(features, 1, "euclidean", interpolation, align_corners)
        return Prototypes._from_core(self._core.prototypes(array.exported, options), self._kind)

    @property
    def size(self) -> tuple[int, ...]:
        """The 1 to 3 spatial extents of pred, target and mask."""
        return self._core.size

    @property
    def images(self) -> int:
        """N, the number of images."""
        return self._core.images

    @property
    def targets(self) -> int:
        """T, the number of targets."""
        return self._core.targets

    @property
    def has_target(self) -> bool:
        """Whether maps are scored against a target, or against pred > 0.5."""
        return self._has_target

    @property
    def nbytes(self) -> int:
        """Bytes kept: per voxel and target two bits, and per feature size one or two more
        (nothing of features at ``size``) besides two weights per feature voxel. More channels or
        layers of a size add nothing.
        """
        return self._core.nbytes

    def __repr__(self) -> str:
        return (
            f"Guide(N={self._core.images}, T={self._core.targets}, size={self.size}, "
            f"arrays={str(self._kind)!r})"
        )

    def _inspect(self, features: Any) -> Array:
        array = inspect("features", features)
        self._check_kind("features", array.kind)
        return array

    def _given(self, prototypes: Prototypes | None) -> tuple[Any, Any] | None:
        """Return positive and negative, in NumPy or on the guide's device."""
        if prototypes is None:
            return None
        if not isinstance(prototypes, Prototypes):
            raise TypeError(
                f"prototypes must be protoseg_fast.Prototypes, got {type(prototypes).__name__}."
            )
        self._check_kind("prototypes", prototypes._kind)
        return prototypes._arrays["positive"], prototypes._arrays["negative"]

    def _check_kind(self, name: str, kind: Kind) -> None:
        if kind.device != self._kind.device:
            raise TypeError(
                f"{name} are on {kind.device}, but the guide's pred is on "
                f"{self._kind.device}; move one of them first."
            )
        if kind != self._kind:
            raise TypeError(
                f"{name} come from {kind}, but the guide's pred came from {self._kind}; "
                "convert one of them first."
            )


def _options(
    features: Any,
    groups: Groups,
    metric: str,
    interpolation: str,
    align_corners: bool,
    temperature: float = 1.0,
) -> _core.Options:
    _check_types(align_corners, metric=metric, interpolation=interpolation)
    return _core_options(
        _group_count(groups, features),
        metric,
        interpolation,
        bool(align_corners),
        _number("temperature", temperature),
    )


def _check_types(align_corners: Any = False, **strings: Any) -> None:
    """Raise TypeError; which strings there are is the engine's to say."""
    for name, value in strings.items():
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a string, got {type(value).__name__}.")
    if not isinstance(align_corners, (bool, np.bool_)):
        raise TypeError(f"align_corners must be True or False, got {align_corners!r}.")


@functools.lru_cache(maxsize=256)
def _core_options(
    groups: int, metric: str, interpolation: str, align_corners: bool, temperature: float
) -> _core.Options:
    return _core.Options(
        groups=groups,
        metric=metric,
        interpolation=interpolation,
        align_corners=align_corners,
        temperature=temperature,
    )


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether a value is an integer of any library, but not True or False."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _group_count(groups: Groups, features: Any) -> int:
    if isinstance(groups, str):
        if groups == "layer":
            return 1
        if groups == "unit":
            # No int(): torch.compile traces the number of channels as a symbol.
            count: int = features.shape[1] if len(features.shape) > 1 else 1
            return count
        raise ValueError(f'groups must be an int, "layer" or "unit", got {groups!r}.')
    if not is_whole(groups):
        raise TypeError(f'groups must be an int, "layer" or "unit", got {groups!r}.')
    if not -(2**63) <= groups < 2**63:
        raise ValueError(f"groups must divide the channels of features, got {groups}.")
    return int(groups)


def _number(name: str, value: Any) -> float:
    if type(value) is float:  # as a rule; to ask numbers.Real takes ten times as long
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    return float(value)
