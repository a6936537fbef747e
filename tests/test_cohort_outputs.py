"""What a sweep says of the network's own output: Dice, Soft Dice Confidence, size."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pandas")

from types import SimpleNamespace  # noqa: E402

from protoseg_fast.cohort.scoring import _Kept  # noqa: E402

SIZE = (1, 2, 5, 6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_outputs_count_where_the_mask_is(masked: bool, labelled: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    pred = torch.rand(SIZE, generator=generator)
    truth = torch.rand(SIZE, generator=generator) < 0.4 if labelled else None
    mask = torch.rand((1, 1, *SIZE[2:]), generator=generator) < 0.6 if masked else None
    counted = torch.ones(SIZE[2:], dtype=torch.bool) if mask is None else mask[0, 0]
    kept = _Kept(False)
    kept.predicted(SimpleNamespace(names=("a", "b")), pred, truth, mask)
    found = kept.outputs()
    assert list(found) == ["a", "b"]
    for t, name in enumerate(found):
        p = pred[0, t][counted].double()
        y = p > 0.5
        assert found[name]["foreground"] == y.sum()
        confidence = 2 * p[y].sum() / (p.sum() + y.sum())
        assert found[name]["soft_dice_confidence"] == pytest.approx(float(confidence), rel=1e-12)
        if truth is None:
            assert found[name]["dice"] is None
            continue
        true = truth[0, t][counted]
        dice = 2 * (y & true).sum() / (y.sum() + true.sum())
        assert found[name]["dice"] == pytest.approx(float(dice), rel=1e-6)
