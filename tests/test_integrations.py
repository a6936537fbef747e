"""Metrics of torchmetrics and MONAI: batches, ranks, reductions."""

from __future__ import annotations

import importlib
import itertools
import pickle
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import protoseg_fast as psf  # noqa: E402
from networks import let_torchvision_be_imported  # noqa: E402
from ranks import batch, update_every_other  # noqa: E402

let_torchvision_be_imported()  # torchmetrics does


def expected(groups: int, average: str, seeds: range) -> torch.Tensor:
    batches = [batch(seed) for seed in seeds]
    counts = [psf.sa_counts(*arrays, groups=groups) for arrays in batches]
    if average == "images":
        return torch.cat([c.dice for c in counts]).nanmean(0)
    tp, predicted, actual = (
        torch.cat([getattr(c, name) * c.defined for c in counts]).sum(0)
        for name in ("tp", "predicted", "actual")
    )
    return 2 * tp.double() / (predicted + actual)


# --- torchmetrics ---------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["images", "voxels"])
@pytest.mark.parametrize("groups", [1, 6])
def test_torchmetrics_accumulates_batches(groups: int, average: str) -> None:
    pytest.importorskip("torchmetrics")
    from protoseg_fast.integrations.torchmetrics import SegmentationAbility

    metric = SegmentationAbility(groups, 2, average)
    for seed in range(3):
        metric.update(*batch(seed))
    torch.testing.assert_close(metric.compute(), expected(groups, average, range(3)))
    metric.reset()
    one = metric(*batch(5))  # forward: this batch's own value
    torch.testing.assert_close(one, expected(groups, average, range(5, 6)))
    torch.testing.assert_close(metric.compute(), one)


def test_torchmetrics_without_values_or_target() -> None:
    pytest.importorskip("torchmetrics")
    from protoseg_fast.integrations.torchmetrics import SegmentationAbility

    metric = SegmentationAbility(targets=2)
    features, pred, _, mask = batch(0)
    metric.update(features, pred, mask=mask)
    found = psf.sa_score(features, pred, pred > 0.5, mask).nanmean(0)
    torch.testing.assert_close(metric.compute(), found)
    for average in ("images", "voxels"):
        metric = SegmentationAbility(average=average)
        metric.update(features, pred[:, :1] * 0, pred[:, :1] > 0.5)
        assert metric.compute().isnan().all()
    with pytest.raises(ValueError, match="1 targets, got 2"):
        metric.update(features, pred)
    with pytest.raises(ValueError, match='"voxels"'):
        SegmentationAbility(average="micro")
    with pytest.raises(ValueError, match="positive"):
        SegmentationAbility(groups=0)
    for wrong in ("unit", True, 2.0):
        with pytest.raises(TypeError, match=f"groups must be an int, .* got {wrong!r}"):
            SegmentationAbility(groups=wrong)
    with pytest.raises(TypeError, match="targets must be an int"):
        SegmentationAbility(targets=None)


def test_torchmetrics_collections_merge_equal_options_only() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    from protoseg_fast.integrations.torchmetrics import SegmentationAbility

    options = [
        {}, {"empty": "monai"}, {"empty": "zero"}, {"interpolation": "nearest"},
        {"metric": "cosine"}, {"align_corners": True},
    ]  # fmt: skip
    metrics = {str(i): SegmentationAbility(1, 2, **each) for i, each in enumerate(options)}
    metrics["0 again"] = SegmentationAbility(1, 2)
    metrics["0 of voxels"] = SegmentationAbility(1, 2, "voxels")
    collection = torchmetrics.MetricCollection({name: m.clone() for name, m in metrics.items()})
    features, pred, target, _ = batch(0)
    # after a batch without finite features, all that is counted is equal
    for given in ((features * float("inf"), pred, target), (features, pred, target * 0)):
        collection.update(*given)
        for metric in metrics.values():
            metric.update(*given)
    assert sorted(map(len, collection.compute_groups.values())) == [1] * 5 + [3]
    for name, found in collection.compute().items():
        torch.testing.assert_close(found, metrics[name].compute(), rtol=0, atol=0, equal_nan=True)
    collection.reset()
    collection.update(*batch(3))
    metrics["4"].reset()
    metrics["4"].update(*batch(3))
    torch.testing.assert_close(collection.compute()["4"], metrics["4"].compute(), rtol=0, atol=0)


def test_torchmetrics_metrics_of_other_options_are_not_added() -> None:
    pytest.importorskip("torchmetrics")
    from protoseg_fast.integrations.torchmetrics import SegmentationAbility

    if not hasattr(SegmentationAbility, "merge_state"):
        pytest.skip("torchmetrics without merge_state")
    metrics = [SegmentationAbility(6, 2) for _ in range(2)]
    for seed, metric in enumerate(metrics):
        metric.update(*batch(seed))
    metrics[0].merge_state(metrics[1])
    torch.testing.assert_close(metrics[0].compute(), expected(6, "images", range(2)))
    with pytest.raises(ValueError, match="same options"):
        metrics[0].merge_state(SegmentationAbility(6, 2, metric="cosine"))


def test_torchmetrics_copies_and_loads() -> None:
    pytest.importorskip("torchmetrics")
    from protoseg_fast.integrations.torchmetrics import SegmentationAbility

    metric = SegmentationAbility(6, 2)
    metric.update(*batch(0))
    metric.persistent(True)
    loaded = SegmentationAbility(6, 2)
    loaded.load_state_dict(metric.state_dict())
    for again in (pickle.loads(pickle.dumps(metric)), metric.clone(), loaded):
        again.update(*batch(1))
        torch.testing.assert_close(again.compute(), expected(6, "images", range(2)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_torchmetrics_sums_stay_wide(dtype: torch.dtype) -> None:
    pytest.importorskip("torchmetrics")
    from protoseg_fast.integrations.torchmetrics import SegmentationAbility

    metric = SegmentationAbility(6, 2)
    metric.update(*batch(0))
    before = metric.metric_state
    metric.set_dtype(dtype).to(dtype).to("cpu")
    for name, state in metric.metric_state.items():
        assert torch.equal(state, before[name])
        assert state.dtype == before[name].dtype
    metric.reset()
    for seed in range(3):
        metric.update(*batch(seed))
    torch.testing.assert_close(
        metric.compute(), expected(6, "images", range(3)), rtol=0, atol=1e-15
    )


def test_torchmetrics_goes_on_after_inference_mode() -> None:
    pytest.importorskip("torchmetrics")
    from protoseg_fast.integrations.torchmetrics import SegmentationAbility

    metric = SegmentationAbility(6, 2)
    with torch.inference_mode():
        metric.update(*batch(7))
        metric.reset()
    with torch.no_grad():
        metric.update(*batch(0))
    metric(*batch(1))
    torch.testing.assert_close(metric.compute(), expected(6, "images", range(2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "eucl"}, 'metric must be one of "euclidean", "cosine", got "eucl"'),
        ({"metric": None}, "metric must be a string"),
        ({"interpolation": "cubic"}, 'interpolation must be one of "linear"'),
        ({"align_corners": 1}, "align_corners must be True or False"),
        ({"align_corners": True, "interpolation": "nearest"}, "align_corners=True has no meaning"),
        ({"empty": "x"}, 'empty must be one of "nan", "monai", "one", "zero", got "x"'),
        ({"empty": None}, "empty must be a string, got NoneType"),
    ],
)
@pytest.mark.parametrize("library", ["torchmetrics", "monai"])
def test_unknown_options_are_refused_when_a_metric_is_made(
    library: str, options: dict[str, Any], message: str
) -> None:
    pytest.importorskip(library)
    module = importlib.import_module(f"protoseg_fast.integrations.{library}")
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(module, module.__all__[0])(**options)


@pytest.mark.slow
def test_torchmetrics_syncs_over_two_ranks(tmp_path: Path) -> None:
    pytest.importorskip("torchmetrics")
    if not torch.distributed.is_available():
        pytest.skip("torch without distributed")
    torch.multiprocessing.spawn(update_every_other, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        for average, found in torch.load(tmp_path / f"{rank}.pt").items():
            torch.testing.assert_close(found, expected(6, average, range(5)))


# --- MONAI ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", ["layer", "unit"])
def test_monai_buffers_scores_of_images(groups: str) -> None:
    pytest.importorskip("monai")
    from protoseg_fast.integrations.monai import SegmentationAbilityMetric

    metric = SegmentationAbilityMetric(groups, get_not_nans=True)
    rows = []
    for seed in range(3):
        features, pred, target, mask = batch(seed)
        rows.append(psf.sa_score(features, pred, target, mask, groups=groups).flatten(1))
        found = metric(y_pred=pred, y=target, features=features, mask=mask)
        torch.testing.assert_close(found, rows[-1].float(), equal_nan=True)
    every = torch.cat(rows).float()
    mean, count = metric.aggregate("mean_batch")
    torch.testing.assert_close(mean, every.nanmean(0))
    assert count.tolist() == (~every.isnan()).sum(0).tolist()
    value, _ = metric.aggregate()
    torch.testing.assert_close(value.squeeze(), every.nanmean(1).nanmean())
    metric.reset()
    with pytest.raises(ValueError, match="nothing to aggregate"):
        metric.aggregate()


def test_monai_takes_lists_and_metatensors() -> None:
    monai = pytest.importorskip("monai")
    from monai.data import MetaTensor

    from protoseg_fast.integrations.monai import SegmentationAbilityMetric

    assert monai
    features, pred, target, _ = batch(0)
    metric = SegmentationAbilityMetric()
    whole = metric(y_pred=MetaTensor(pred), y=MetaTensor(target), features=MetaTensor(features))
    apart = metric(y_pred=list(pred), y=list(target), features=list(features))
    torch.testing.assert_close(apart, whole, equal_nan=True)
    alone = metric(y_pred=list(pred), features=list(features))
    expected = psf.sa_score(features, pred, pred > 0.5)[:, 0].float()
    torch.testing.assert_close(alone, expected, equal_nan=True)
    with pytest.raises(TypeError, match="features"):
        metric(y_pred=pred, y=target)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kinds", list(itertools.product([list, torch.Tensor], repeat=3)))
def test_monai_takes_lists_beside_batches(kinds: tuple[type, ...], masked: bool) -> None:
    pytest.importorskip("monai")
    from protoseg_fast.integrations.monai import SegmentationAbilityMetric

    features, *given, mask = batch(0)
    metric = SegmentationAbilityMetric("unit")
    expected = metric(*given, features=features, mask=mask if masked else None)
    pred, target, features = (
        x if kind is torch.Tensor else kind(x)
        for kind, x in zip(kinds, (*given, features), strict=True)
    )
    for each in (mask, tuple(mask)) if masked else (None,):
        found = metric(pred, target, features=features, mask=each)
        torch.testing.assert_close(found, expected, equal_nan=True)


def test_monai_refuses_lists_that_do_not_fit() -> None:
    pytest.importorskip("monai")
    from protoseg_fast.integrations.monai import SegmentationAbilityMetric

    features, pred, target, mask = batch(0)
    metric = SegmentationAbilityMetric()
    with pytest.raises(ValueError, match=r"must be images, .* 0 of y_pred, 0 of y, 0 of features"):
        metric([], [], features=[])
    with pytest.raises(ValueError, match="as many of each, got 2 of y_pred, 2 of y, 1 of features"):
        metric(list(pred), target, features=features[:1])
    with pytest.raises(TypeError, match="mask must be a tensor or a list of tensors, got NoneType"):
        metric(pred, target, features=features, mask=[mask[0], None])
    with pytest.raises(TypeError, match=r"features must be a tensor .* got ndarray"):
        metric(pred, target, features=features.numpy())
    for wrong in ("foo", 2.0):
        with pytest.raises((TypeError, ValueError), match='groups must be an int, "layer" or'):
            SegmentationAbilityMetric(wrong)
