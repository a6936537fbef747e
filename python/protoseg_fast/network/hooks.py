"""Forward hooks that lend every chosen layer's features to a function and are always given back."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from types import FrameType, TracebackType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from protoseg_fast.network.layers import INPUT, Layers, select_layers, unwrap

__all__ = [
    "LayerHooks",
    "NoSuchOutputError",
    "Pick",
    "ReshapeTransform",
    "Uncopied",
    "Visit",
    "first_tensor",
    "picker",
    "plain",
    "uncompiled",
]

#: Called with a layer's name, the number of the call within the forward pass, and its features.
Visit: TypeAlias = Callable[[str, int, Tensor], None]
Pick: TypeAlias = "int | str | Callable[[Any], Any] | None"
ReshapeTransform: TypeAlias = (
    "Callable[[Tensor], Tensor] | Mapping[Any, Callable[[Tensor], Tensor]] | None"
)

_CALL = "_call_impl"  # of nn.Module; by its name, as tools put functions of their own around it


class LayerHooks:
    """Within the block, what the chosen layers put out goes to ``visit``, one call at a time.

    A pass begins when the network is called and ends when it returns; if it raises, it never
    ends. A network that calls itself (test-time augmentation) is still in the same pass. Layers
    that are run without the network itself belong to a pass that was not begun. Hooks hear every
    thread that runs the network, and cannot tell whose a layer is: passes of two threads at once
    are an error. On copies of the network that are made meanwhile, hooks do nothing.

    Args:
        model: the network, wrapped or not. It is run without torch.compile.
        layers: see `protoseg_fast.list_layers`.
        visit: given the features as a plain tensor without gradients, valid during the call only:
            what runs next may overwrite them.
        unfit: returns why features cannot be used, or None. Such a layer is left out and noted in
            ``skipped``, but for one that was chosen by its name, which is an error.
        insist: whether that is an error; else it is left out like the others.
        output: see `protoseg_fast.trace`.
        reshape_transform: see `protoseg_fast.trace`.
        on_begin, on_end: called as a pass begins and ends.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers,
        visit: Visit,
        *,
        unfit: Callable[[Tensor], str | None] = lambda features: None,
        insist: bool = True,
        output: Pick = None,
        reshape_transform: ReshapeTransform = None,
        on_begin: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.wrapped = model
        self.model = unwrap(model)
        self.selection = select_layers(self.model, layers)
        self._visit = visit
        self._unfit = unfit
        self._insisted = self.selection.exact if insist else frozenset()
        self._pick = picker("output", output)
        self._transforms = self._transforms_by_layer(reshape_transform)
        self._on_begin, self._on_end = on_begin, on_end
        self._runner: int | None = None  # the thread that runs the network now
        # The call of the network that is the pass. No count of calls: an interrupt is not told.
        self._pass: FrameType | None = None
        self._stack: contextlib.ExitStack | None = None
        self.forget()

    def __enter__(self) -> LayerHooks:
        if self._stack is not None:
            raise RuntimeError("The hooks are in place already; enter the block once at a time.")
        self._runner = self._pass = None
        with contextlib.ExitStack() as stack:
            stack.enter_context(uncompiled(self.wrapped))
            model = self.model
            begin = self._while_entered(self._begin)
            stack.callback(model.register_forward_pre_hook(begin, with_kwargs=True).remove)
            for name, module in self.selection.modules.items():
                hook = self._while_entered(self._hook(name))
                stack.callback(module.register_forward_hook(hook).remove)
            # Last, so that a chosen layer that is the network's last is part of the pass.
            end, leave = self._while_entered(self._end), self._while_entered(self._leave)
            stack.callback(model.register_forward_hook(end).remove)
            # After exceptions, too.
            stack.callback(model.register_forward_hook(leave, always_call=True).remove)
            self._stack = stack.pop_all()
        return self

    def _while_entered(self, run: Callable[..., None]) -> Uncopied:
        """A hook that does nothing if an interrupt keeps it from being taken back."""

        def hook(*args: Any) -> None:
            if self._stack is not None:
                run(*args)

        return Uncopied(hook)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stack, self._stack, self._pass = self._stack, None, None
        if stack is not None:
            stack.close()

    def failed(self) -> bool:
        """Whether the last pass that began never ended."""
        return self._inside is True

    def forget(self) -> None:
        """Be as if the network had never run."""
        self._calls: Counter[str] = Counter()
        self._ever_called: set[str] = set()
        self._inside: bool | None = None  # None: the network itself was never called
        self._left_out: dict[str, str] = {}

    @property
    def skipped(self) -> dict[str, str]:
        """Layers that were left out of some pass, or not called in any, and why."""
        if self._inside is None:
            return dict(self._left_out)
        uncalled = (name for name in self.selection.modules if name not in self._ever_called)
        return self._left_out | dict.fromkeys(uncalled, "is not called")

    def leave_out(self, name: str, reason: str) -> None:
        """Note a layer that is left out."""
        self._left_out[name] = reason

    def check_called(self, elsewhere: Set[str] = frozenset()) -> None:
        """Raise ValueError for layers that were chosen by their names and called in no pass, nor
        ``elsewhere``.
        """
        if uncalled := self.selection.exact - self._ever_called - elsewhere:
            names = ", ".join(f'"{name}"' for name in sorted(uncalled))
            raise ValueError(
                f"The network calls no layer {names}. Layers that are chosen by a glob, a pattern "
                "or a type are left out if they are not called."
            )

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        runner, here = self._runner, threading.get_ident()
        if runner not in (None, here) and self._is_running():
            raise RuntimeError(
                "Two threads run the network at once while its layers are scored; run one pass "
                "after the other, or give each thread a copy of the network."
            )
        call = _call_of(module)
        if self._pass is None or not _is_within(call, self._pass):
            self._runner, self._pass = here, call
            self._ever_called |= self._calls.keys()
            self._calls.clear()
            self._inside = True
            self._on_begin()
        if self.selection.image:
            image = first_tensor([*args, *kwargs.values()])
            self._lend(INPUT, module, image)

    def _is_running(self) -> bool:
        """Whether the thread that began the pass is still in it."""
        frame = sys._current_frames().get(self._runner or 0)
        return self._pass is None or _is_within(frame, self._pass)

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if _call_of(module) is self._pass:
            self._inside = False
            self._ever_called |= self._calls.keys()
            self._on_end()

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._runner == threading.get_ident() and _call_of(module) is self._pass:
            self._runner = self._pass = None

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _args: Any, output: Any) -> None:
            # Gradient checkpointing runs layers again, after the pass: not a second call.
            if self._inside is not False:
                self._lend(name, module, output)

        return hook

    def _lend(self, name: str, module: nn.Module, output: Any) -> None:
        call = self._calls[name]
        self._calls[name] += 1
        with torch.no_grad():
            features, reason = self._features(name, module, output)
            if features is not None:
                return self._visit(name, call, features)
        if name == INPUT or name in self._insisted:
            raise ValueError(f'Layer "{name}" {reason}.')
        self.leave_out(name, reason)

    def _features(self, name: str, module: nn.Module, output: Any) -> tuple[Tensor | None, str]:
        """Return what is scored of what a layer puts out, or why there is nothing."""
        found = output
        if name != INPUT:
            try:
                found = self._pick(output)
            except NoSuchOutputError as error:
                return None, f"puts out {error}"
        if not isinstance(found, Tensor):
            return None, "puts out no tensor"
        features = plain(found)
        transform = self._transforms.get(name)
        if transform:
            features = transform(features)
        reason = _why_unreadable(features) or self._unfit(features) or ""
        if not reason and not transform and is_channels_last(module, features):
            reason = "puts out channels last; lay them out with reshape_transform"
        return (None, reason) if reason else (features, "")

    def _transforms_by_layer(
        self, transform: ReshapeTransform
    ) -> dict[str, Callable[[Tensor], Tensor]]:
        if transform is None:
            return {}
        if not isinstance(transform, Mapping):
            if not callable(transform):
                raise TypeError(
                    "reshape_transform must be a function of a tensor, or a dictionary of layers "
                    f"and such functions, got {transform!r}."
                )
            return dict.fromkeys(self.selection.modules, transform)
        found = {}
        for layers, function in transform.items():
            for name in select_layers(self.model, layers).modules:
                found[name] = function
        return found


class NoSuchOutputError(LookupError):
    """What a module puts out has not the index or key that was asked for."""


class Uncopied:
    """A hook that does nothing on copies of its module: they are other networks."""

    def __init__(self, run: Callable[..., None]) -> None:
        self._run = run

    def __call__(self, *args: Any) -> None:
        self._run(*args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Uncopied, (_nothing,)


def _nothing(*_: Any) -> None:
    pass


def _call_of(module: nn.Module) -> FrameType | None:
    """Return the call of a module that runs the hook which asks; None if there is none to see."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == _CALL and frame.f_locals.get("self") is module:
            break
        frame = frame.f_back
    return frame


def _is_within(frame: FrameType | None, call: FrameType | None) -> bool:
    """Whether a call is what runs a frame, or what runs that, and so on."""
    while frame is not None and frame is not call:
        frame = frame.f_back
    return frame is not None


def _why_unreadable(features: Tensor) -> str:
    """Why the engine cannot read a tensor, whatever its axes; "" if it can."""
    if not features.is_floating_point() or features.element_size() < 2:
        return f"puts out {features.dtype}, but features must be floating, of 16 bits or more"
    if features.is_nested or features.layout is not torch.strided:
        kind = "nested" if features.is_nested else str(features.layout).removeprefix("torch.")
        return f"puts out a {kind} tensor, but features must be dense"
    return "" if features.numel() else f"puts out an empty tensor, {tuple(features.shape)}"


def is_channels_last(module: nn.Module, features: Tensor) -> bool:
    """Whether a module's channels are the last axis by its very nature, as in transformers.

    (N, *size, C) has the axes of (N, C, *size), and would be scored as something else.
    """
    if type(module) is nn.LayerNorm:  # subclasses may lay their features out themselves
        return len(module.normalized_shape) == 1
    return type(module) is nn.Linear and features.dim() > 2


def plain(tensor: Tensor) -> Tensor:
    """Return a tensor without gradients and without its subclass (MONAI's MetaTensor), uncopied."""
    if type(tensor) is not Tensor:
        with torch._C.DisableTorchFunctionSubclass():
            tensor = tensor.as_subclass(Tensor)
    return tensor.detach()


def first_tensor(output: Any) -> Tensor | None:
    """Return the first tensor of a tensor, or of nested tuples, lists and dictionaries of them."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, tuple | list):
        return next((t for item in output if (t := first_tensor(item)) is not None), None)
    return None


def picker(argument: str, pick: Pick) -> Callable[[Any], Any]:
    """Return the function that takes the wanted tensor from what a module puts out, and raises
    `NoSuchOutputError` if that has none of the index or key.

    Raises:
        TypeError: if ``pick`` is neither None, an index, a key nor a function.
    """
    if pick is None:
        return first_tensor
    if callable(pick):
        return pick
    if not isinstance(pick, int | str):
        raise TypeError(f"{argument} must be an index, a key or a function, got {pick!r}.")
    return functools.partial(_item, argument, pick)  # a table that keeps it can be pickled


def _item(argument: str, pick: int | str, output: Any) -> Any:
    if isinstance(output, Tensor):
        return output
    try:
        return first_tensor(output[pick])
    except (LookupError, TypeError) as error:
        kind = type(output).__name__
        if isinstance(output, Mapping | list | tuple):
            kind += f" of {list(output) if isinstance(output, Mapping) else len(output)}"
        raise NoSuchOutputError(f"a {kind}, without {argument}={pick!r}") from error


@contextlib.contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Run compiled modules as they were written: compiled code calls no hooks added later."""
    compiled = any(
        "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
    if not compiled:
        yield
        return
    if not hasattr(torch.compiler, "set_stance"):
        raise TypeError(
            "model is compiled, and this version of torch cannot run it uncompiled; pass the "
            "module it was made from."
        )
    warnings.warn(
        "model is compiled, and compiled code calls no hooks: while it is traced, the original "
        "modules are run instead.",
        stacklevel=4,
    )
    with torch.compiler.set_stance("force_eager"):
        yield
