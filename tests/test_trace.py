"""`trace`: hooks that score, change nothing and are given back."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pandas")

from torch import nn  # noqa: E402

import protoseg_fast as psf  # noqa: E402
from networks import Net, all_hooks, assert_scores_by_hand, cloned_features  # noqa: E402

SIZE = (16, 16)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(1)
    return Net().eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def guide(image) -> psf.Guide:
    return psf.Guide(image.clamp(0.1, 0.9), image > 0.7)


def test_every_call_is_scored_before_it_is_overwritten(model, image, guide) -> None:
    features = cloned_features(model, image)
    assert ("encoder.1.conv", 1) in features
    with psf.trace(model, guide=guide) as tracer:
        model(image)
    assert_scores_by_hand(tracer.result(), guide, features)


def test_output_and_gradients_are_those_without_hooks(model, image, guide) -> None:
    expected = model(image)
    with psf.trace(model, layers="all", guide=guide):
        found = model(image)
    assert torch.equal(found, expected)
    found.sum().backward()
    traced = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    expected.sum().backward()
    plain = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(map(torch.equal, traced, plain))


def test_other_peoples_hooks_stay(model, image, guide) -> None:
    calls = []
    model.head.register_forward_hook(lambda *_: calls.append(1))
    before = all_hooks(model)
    with psf.trace(model, guide=guide):
        model.head.register_forward_hook(lambda *_: calls.append(2))
        model(image)
    assert calls == [1, 2]
    assert len(all_hooks(model)) == len(before)
    hooks = {name: rest for name, *rest in all_hooks(model)}
    assert len(hooks["head"][0]) == 2
    assert sum(len(forward) + len(pre) for forward, pre in hooks.values()) == 2


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fail = nn.Conv2d(1, 2, 1), True

    def forward(self, x):
        x = self.conv(x)
        if self.fail:
            raise KeyError("inside forward")
        return x


def test_exceptions_of_the_network_propagate_and_leave_no_rows(image, guide) -> None:
    model = Failing()
    before = all_hooks(model)
    with pytest.raises(KeyError, match="inside forward"), psf.trace(model, guide=guide) as tracer:
        model(image)
    assert all_hooks(model) == before
    assert len(tracer.result()) == 0
    with tracer:
        with pytest.raises(KeyError):
            model(image)
        model.fail = False
        model(image)
    assert tracer.result().cases == [0, 1]
    assert len(tracer.result()) == 2 * 3 * 2


def test_passes_of_two_threads_at_once_are_refused(model, image, guide) -> None:
    class Meeting(nn.Module):
        """While it runs, another thread runs it, too."""

        def __init__(self) -> None:
            super().__init__()
            self.net = model
            self.other: BaseException | None = None

        def forward(self, x, alone=True):
            if alone:
                with ThreadPoolExecutor(1) as pool:
                    self.other = pool.submit(self, x, False).exception()
            return self.net(x)

    network = Meeting().eval()
    with psf.trace(network, guide=guide) as tracer:
        network(image)
        assert "Two threads" in str(network.other)
        with ThreadPoolExecutor(1) as pool:  # one after the other, whichever thread it is
            assert pool.submit(network, image, False).exception() is None
            assert pool.submit(network, "no image", False).exception() is not None
        network(image, alone=False)
    assert tracer.result().cases == list(range(6))
    assert all(not hooks and not pre for _, hooks, pre in all_hooks(network))


def test_several_passes_cases_and_names(model, image, guide) -> None:
    other = psf.Guide(image[:1].clamp(0.1, 0.9), image[:1] > 0.2)
    with psf.trace(model, layers="head", guide=guide, targets=["lesion"]) as tracer:
        model(image)
        tracer.guide, tracer.cases = other, ["named"]
        model(image[:1])
    table = tracer.result()
    assert table.cases == [0, 1, "named"]
    assert table.targets == ["lesion"]
    tracer.reset()
    assert len(tracer.result()) == 0
    with tracer:
        model(image[:1])
    assert tracer.result().cases == [0]


def test_without_target_there_is_one_reference(model, image) -> None:
    guide = psf.Guide(image.clamp(0.1, 0.9))
    with psf.trace(model, layers="head", guide=guide, groups="layer") as tracer:
        model(image)
    assert tracer.result().references == ["output"]
    assert len(tracer.result()) == 2


def test_the_image_is_a_layer(model, image, guide) -> None:
    with psf.trace(model, layers="input", guide=guide) as tracer:
        model(image)
        model(x=image)
    frame = tracer.result().to_pandas()
    assert set(frame.layer) == {"input"}
    expected = guide.sa_score(image, groups="unit")[:, 0, 0].tolist() * 2
    found = frame[(frame.group == 0) & (frame.reference == "target")].sa.tolist()
    assert found == expected


def test_layers_that_do_not_fit_are_skipped_unless_they_were_named(model, image, guide) -> None:
    with psf.trace(model, layers="all", guide=guide) as tracer:
        model(image)
    assert set(tracer.skipped) == {"gate", "unused"}
    assert "shape (2, 4)" in tracer.skipped["gate"]
    before = all_hooks(model)
    with (
        pytest.raises(ValueError, match=r'Layer "gate" puts out shape \(2, 4\)'),
        psf.trace(model, layers="gate", guide=guide),
    ):
        model(image)
    assert all_hooks(model) == before


def test_groups(model, image, guide) -> None:
    with psf.trace(model, "encoder.0.conv", guide, groups=("layer", 2)) as tracer:
        model(image)
    table = tracer.result().to_pandas()
    assert sorted(set(table.group), key=str) == [0, 1, "layer"]
    features = cloned_features(model, image)["encoder.0.conv", 0]
    rows = table[(table.group == 1) & (table.reference == "target")]
    np.testing.assert_array_equal(rows.sa, guide.sa_score(features, groups=2)[:, 1, 0])
    with psf.trace(model, ["head", "encoder.0.conv"], guide, groups=2) as tracer:
        model(image)
    assert tracer.result().layers == ["encoder.0.conv"]
    assert "not a multiple" in tracer.skipped["head"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"groups": ("unit", 2)}, ValueError, "one of the others"),
        ({"groups": ("layer", "layer")}, ValueError, "one of the others"),
        ({"groups": "units"}, ValueError, '"unit"'),
        ({"groups": 0}, ValueError, "positive"),
        ({"groups": 1.5}, TypeError, "groups"),
        ({"guide": "guide"}, TypeError, r"protoseg_fast\.Guide"),
        ({"targets": ["a", "b"]}, ValueError, "names 2 targets"),
        (
            {"targets": ["a", "a"], "guide": psf.Guide(torch.rand(1, 2, *SIZE))},
            ValueError,
            "targets must all be different",
        ),
        ({"output": 1.5}, TypeError, "output"),
        ({"reshape_transform": 3}, TypeError, "reshape_transform"),
        ({"reshape_transform": {"nowhere": abs}}, ValueError, "nowhere"),
    ],
)
def test_wrong_arguments(model, guide, options, error, message: str) -> None:
    with pytest.raises(error, match=message):
        psf.trace(model, **{"guide": guide, **options})


def test_wrong_guides(model, image, guide) -> None:
    with pytest.raises(TypeError, match="torch tensors"):
        psf.trace(model, guide=psf.Guide(image.numpy()))
    with pytest.raises(ValueError, match="needs a guide"), psf.trace(model):
        model(image)
    with psf.trace(model, guide=guide) as tracer:
        tracer.cases = ["one"]
        with pytest.raises(ValueError, match="names 1 images"):
            model(image)
        with pytest.raises(ValueError, match="cases must all be different"):
            tracer.cases = ["one", "one"]
        tracer.cases = ["one", "two"]
        model(image)
        tracer.cases = ["three", "one"]
        with pytest.raises(ValueError, match="Case 'one' has been scored already"):
            model(image)
        with pytest.raises(RuntimeError, match="in place already"), tracer:
            pass
    assert all(not hooks and not pre for _, hooks, pre in all_hooks(model))


_PEAK = """
import resource, torch, protoseg_fast as psf
torch.set_num_threads(1)
model = torch.nn.Conv2d(1, 64, 1).half() if {half} else torch.nn.Conv2d(1, 64, 1)
image = torch.rand(1, 1, 1024, 1024)
guide = psf.Guide(image, image > 0.5)
image = image.to(model.weight.dtype).to(memory_format={layout})

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

network = torch.nn.Sequential(model)
with torch.inference_mode():
    network(image)
    before = peak()
    with psf.trace(network, "0", guide) as tracer:
        network(image)
    assert len(tracer.result()) == 2 * 65
print(peak() - before)
"""


@pytest.mark.parametrize("layout", ["contiguous_format", "channels_last"])
@pytest.mark.parametrize("half", [False, True])
def test_nothing_of_the_features_size_is_allocated(layout: str, half: bool) -> None:
    program = _PEAK.format(half=half, layout=f"torch.{layout}")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    features = 64 * 1024 * 1024 * (2 if half else 4)
    assert int(done.stdout) < features / 4


# --- how networks are run -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precision(model, image, guide, dtype) -> None:
    model, image = model.to(dtype), image.to(dtype)
    features = cloned_features(model, image)
    assert {f.dtype for f in features.values()} == {dtype}
    with psf.trace(model, guide=guide) as tracer:
        model(image)
    assert_scores_by_hand(tracer.result(), guide, features)


def test_autocast(model, image, guide) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = cloned_features(model, image)
        with psf.trace(model, guide=guide) as tracer:
            model(image)
    assert features["head", 0].dtype == torch.bfloat16
    assert_scores_by_hand(tracer.result(), guide, features)


def test_channels_last(model, image, guide) -> None:
    model = model.to(memory_format=torch.channels_last)
    image = image.to(memory_format=torch.channels_last)
    features = cloned_features(model, image)
    with psf.trace(model, guide=guide) as tracer, torch.inference_mode():
        model(image)
    assert_scores_by_hand(tracer.result(), guide, features)


def test_training_mode_with_gradients_and_checkpointing(image, guide) -> None:
    from torch.utils.checkpoint import checkpoint

    inner = Net().train()

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return checkpoint(self.inner, x, use_reentrant=False)

    model = Checkpointed()
    with psf.trace(model, layers="inner.head", guide=guide) as tracer:
        model(image).sum().backward()  # runs the layers again
    assert model.training
    assert len(tracer.result()) == 2 * 2 * 2


def test_metatensor(model, image, guide) -> None:
    data = pytest.importorskip("monai.data")
    features = cloned_features(model, image)
    with psf.trace(model, layers=["convs"], guide=guide) as tracer:
        output = model(data.MetaTensor(image, meta={"spacing": 1}))
    assert isinstance(output, data.MetaTensor)
    assert_scores_by_hand(tracer.result(), guide, features)


def test_data_parallel_wrapper(model, image, guide) -> None:
    wrapped = nn.DataParallel(model)
    assert psf.list_layers(wrapped, layers="head")[0].name == "head"
    with psf.trace(wrapped, guide=guide) as tracer:
        wrapped(image)
    assert_scores_by_hand(tracer.result(), guide, cloned_features(model, image))


@pytest.mark.parametrize("how", ["wrapper", "in place", "part"])
def test_compiled_models_run_their_original_modules(model, image, guide, how: str) -> None:
    features = cloned_features(model, image)
    compiled = model
    if how == "wrapper":
        compiled = torch.compile(model, backend="eager")
    elif how == "in place":
        model.compile(backend="eager")
    else:
        model.encoder[0].compile(backend="eager")
    with torch.no_grad():
        compiled(image)  # compiled before the hooks come
        if not hasattr(torch.compiler, "set_stance"):  # before torch 2.6
            with (
                pytest.raises(TypeError, match="pass the module"),
                psf.trace(compiled, guide=guide),
            ):
                pass
            return
        with (
            pytest.warns(UserWarning, match="original modules are run"),
            psf.trace(compiled, guide=guide) as tracer,
        ):
            compiled(image)
    assert_scores_by_hand(tracer.result(), guide, features)


def test_parts_run_without_the_network(model, image, guide) -> None:
    with psf.trace(model, layers="encoder.0.conv", guide=guide) as tracer:
        model.encoder[0](image)
    assert tracer.result().cases == [0, 1]
