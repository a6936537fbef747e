"""What the documentation says is true: docstring examples, README code, public names."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import protoseg_fast as psf
from networks import let_torchvision_be_imported

let_torchvision_be_imported()  # torchmetrics does

README = Path(__file__).parents[1] / "README.md"
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


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL))
def test_readme_code_runs(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {})


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
