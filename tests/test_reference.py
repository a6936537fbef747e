"""The specification itself, against torch's interpolate and the published formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from problems import RESIZE, Problem, problems
from protoseg_fast import reference
from published import published_softmax

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 25)), min_size=1, max_size=3),
    st.sampled_from(RESIZE),
)
def test_resize_is_torch_interpolate(
    axes: list[tuple[int, int]], resize: dict[str, object]
) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, *(a for a, _ in axes)))
    size = tuple(b for _, b in axes)
    nearest = resize.get("interpolation") == "nearest"
    expected = functional.interpolate(
        torch.from_numpy(x),
        size,
        mode="nearest" if nearest else MODES[len(axes)],
        **({} if nearest else {"align_corners": bool(resize.get("align_corners"))}),
    )
    np.testing.assert_allclose(reference.resize(x, size, **resize), expected, atol=1e-12)


@given(problems(resized=False))
def test_probability_is_the_published_softmax(problem: Problem) -> None:
    f = torch.from_numpy(problem.exact)
    p = torch.from_numpy(problem.pred.astype(np.float64))[:, :1]
    mask = np.ones(p.shape) if problem.mask is None else problem.mask.astype(np.float64)
    expected = published_softmax(f, p, torch.from_numpy(mask))[:, 1:]
    found = reference.probability(f, p, mask)[:, 0]
    spread = float(np.abs(problem.exact).max() ** 2 * f.shape[1])  # rounding of the margins
    np.testing.assert_allclose(found, expected, atol=1e-9 + 1e-14 * spread, rtol=0)


def test_hand_computed_example() -> None:
    # foreground 3, 5 (mean 4), background 0, 1, 2 (mean 1): boundary 2.5
    f = np.array([[[0.0, 1.0, 2.0, 3.0, 5.0]]])
    p = np.array([[[0.0, 0.0, 0.0, 1.0, 1.0]]])
    target = np.array([[[0, 0, 1, 1, 1]]])
    assert reference.prototypes(f, p).positive == 4
    assert reference.prototypes(f, p).negative == 1
    assert reference.segment(f, p)[0, 0, 0].tolist() == [False, False, False, True, True]
    assert reference.margin(f, p)[0, 0, 0, 0] == (0 - 1) ** 2 - (0 - 4) ** 2
    assert reference.sa_score(f, p, target)[0, 0, 0] == pytest.approx(2 * 2 / (2 + 3))
