"""Metrics of torchmetrics and MONAI: batches, ranks, reductions."""

from __future__ import annotations

from pathlib import Path

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
