"""Threads that ask for the same network take turns: hooks hear them all."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from torch import nn

from protoseg_fast.network.layers import unwrap

__all__ = ["one_thread_at_a_time", "turn_of"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_turns: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_taking_turns = threading.Lock()


def turn_of(model: nn.Module) -> threading.RLock:
    """Return the lock of a network, wrapped or not."""
    with _taking_turns:
        return _turns.setdefault(unwrap(model), threading.RLock())


def one_thread_at_a_time(run: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let threads wait for each other that call a function of the same network."""

    @functools.wraps(run)
    def in_turn(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        model = args[0] if args else kwargs.get("model")
        if not isinstance(model, nn.Module):
            return run(*args, **kwargs)  # which says what is wrong
        with turn_of(model):
            return run(*args, **kwargs)

    return in_turn
