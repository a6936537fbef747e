"""What the documentation says is true: docstring examples, code in pages, public names."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import protoseg_fast as psf
from markdown import Block, blocks
from networks import let_torchvision_be_imported, library
from recipes import RECIPES

let_torchvision_be_imported()  # torchmetrics does

README = Path(__file__).parents[1] / "README.md"
RECIPES_PAGE = "docs/networks.md"
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(psf.__path__, "protoseg_fast.")
    if not name.endswith(("_core", "__main__"))
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_there_are_docstring_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    with_examples = sum(len(finder.find(importlib.import_module(name))) for name in MODULES)
    assert with_examples >= 5


@pytest.mark.parametrize("block", blocks("README.md", "python"), ids=str)
def test_readme_code_runs(block: Block) -> None:
    block.run()


def test_every_recipe_is_tested() -> None:
    assert [block.heading for block in blocks(RECIPES_PAGE, "python")] == list(RECIPES)


@pytest.mark.parametrize("block", blocks(RECIPES_PAGE, "python"), ids=lambda b: b.heading)
def test_recipes_run_as_printed(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in block.imports():
        library(module)
    assert block.text.count("\n") <= 8
    recipe = RECIPES[block.heading]
    torch.manual_seed(0)
    names = {"psf": psf, **recipe.names()}
    monkeypatch.chdir(tmp_path)
    found = block.run(names)
    saved = tmp_path / "scores.parquet"
    table = psf.SegmentationAbilityMap.load(saved) if saved.exists() else found["sam"]
    assert tuple(table.to_pandas().columns) == documented_columns()
    assert (table.layers[0], table.layers[-1]) == (recipe.layers[0], recipe.layers[-1])
    assert set(recipe.layers) <= set(table.layers)
    assert table.targets == list(recipe.targets)
    assert table.references == (["target", "output"] if recipe.truth else ["output"])
    check_scores(table.to_pandas())
    if recipe.check is not None:
        recipe.check(table, found)


def documented_columns() -> tuple[str, ...]:
    """Return the names in the table of the class's docstring."""
    _, rows, _ = re.split(
        r"^=+ =+$", inspect.getdoc(psf.SegmentationAbilityMap), flags=re.MULTILINE
    )
    return tuple(re.findall(r"^(\w+)", rows, flags=re.MULTILINE))


def check_scores(frame: pd.DataFrame) -> None:
    """Every layer has scores, as a whole and of units; each is the Dice of its row's counts."""
    known = frame[frame["sa"].notna()]
    dice = 2 * known["tp"] / (known["predicted"] + known["actual"])
    np.testing.assert_allclose(known["sa"], dice, rtol=1e-12)
    kind = np.where(known["group"] == "layer", "layer", "unit")
    scored = known.groupby([kind, "layer"], observed=True).size()
    assert len(scored) == 2 * len(frame["layer"].cat.categories)
    assert known["sa"].gt(0).any()


def test_readme_names_the_commands_and_every_public_name() -> None:
    text = README.read_text()
    assert 'pip install ".[demo]" && protoseg-fast demo' in text
    assert 'pip install ".[test]" && pytest' in text
    for name in set(psf.__all__) - {"MeanSA"}:
        assert re.search(rf"\b{name}\b", text), name


@pytest.mark.parametrize("name", psf.__all__)
def test_public_names_are_documented(name: str) -> None:
    value = getattr(psf, name)
    assert inspect.getdoc(value)
    if inspect.isclass(value):
        for attribute, member in vars(value).items():
            if not attribute.startswith("_") and (callable(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{name}.{attribute}"


def test_dir_lists_the_public_names() -> None:
    assert set(psf.__all__) <= set(dir(psf))
    with pytest.raises(AttributeError, match="no attribute 'sa_scores'"):
        _ = psf.sa_scores


def test_options_have_one_name_order_and_default_everywhere() -> None:
    functions = [psf.sa_score, psf.sa_counts, psf.segment, psf.probability, psf.prototypes]
    functions += [getattr(psf.Guide, f.__name__) for f in functions] + [psf.Guide.__init__]
    master = {
        name: parameter
        for f in (psf.sa_score, psf.probability)
        for name, parameter in inspect.signature(f).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                assert parameter.default == master[name].default, (function, name)
                assert parameter.annotation == master[name].annotation, (function, name)


def test_training_page_runs() -> None:
    """From the authors' module, which is not here, on."""
    torch.manual_seed(0)
    pred = torch.rand(2, 1, 16, 16)
    mask = (torch.rand(2, 1, 16, 16) < 0.8).float()
    names = {
        "psf": psf,
        "torch": torch,
        "xfeat": torch.randn(2, 3, 8, 8, requires_grad=True),
        "pred": pred,
        "target": (pred > 0.6).float(),
        "mask": mask,
        "model": torch.nn.Sequential(),
        "loader": [(torch.rand(2, 1, 16, 16), (pred > 0.6).float())],
        "criterion": torch.nn.BCEWithLogitsLoss(),
        "support": torch.randn(2, 5, 8, 8),
        "query": torch.randn(2, 5, 8, 8),
    }
    names["model"].add_module("encoder", torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1)))
    names["model"].add_module("decoder", torch.nn.Sequential(torch.nn.Conv2d(4, 1, 1)))
    first, *others = blocks("docs/training.md", "python")
    assert "from ProtoSeg import" in first.text
    assert len(others) == 4
    for block in others:
        names = block.run(names)
    assert names["ProtoSeg"] is psf.ProtoSeg
    assert names["foreground"].shape == (2, 3, 1, 16, 16)
    assert names["model"].encoder[0].weight.grad.abs().sum() > 0
    assert names["prototypes"].shape == (2, 2, 5)
    assert names["logits"].shape == (2, 2, 8, 8)
