"""What surrounds a layer's forward: hooks, and the layer's path in an error. A layer without hooks pays for neither."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from ..autograd import Tensor, apply
from ..kernels._backend import Array

if TYPE_CHECKING:
    from .module import Module

__all__ = ["RemovableHandle"]

_ids = count()
Table = dict[int, "tuple[Callable[..., Any], bool]"]


class RemovableHandle:
    """What registering a hook returns: ``remove()`` takes the hook away; also a context manager that does so."""

    def __init__(self, table: Table, key: int) -> None:
        self._table, self._key = table, key

    def remove(self) -> None:
        self._table.pop(self._key, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


class Hooks:
    """The hooks of one module by stage; each table maps an id to (hook, with_kwargs) in calling order."""

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {"before": {}, "after": {}, "backward": {}}

    def add(self, stage: str, hook: Callable[..., Any], with_kwargs: bool, prepend: bool) -> RemovableHandle:
        table, key = self.tables[stage], next(_ids)
        later = dict(table) if prepend else {}
        if prepend:
            table.clear()
        table[key] = (hook, with_kwargs)
        table.update(later)
        return RemovableHandle(table, key)


def call_with_hooks(module: Module, hooks: Hooks, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = type(module).__name__
    for hook, with_kwargs in list(hooks.tables["before"].values()):
        if with_kwargs:
            result = hook(module, args, kwargs)
            if result is not None:
                if not isinstance(result, tuple) or len(result) != 2:
                    raise TypeError(f"{name}: a forward pre-hook with kwargs must return None or (args, kwargs)")
                args, kwargs = result
        else:
            result = hook(module, args)
            if result is not None:
                args = result if isinstance(result, tuple) else (result,)
    backward = [hook for hook, _ in hooks.tables["backward"].values()]
    if backward:
        output = _forward_with_backward_hooks(module, backward, args, kwargs)
    else:
        output = module.forward(*args, **kwargs)
    for hook, with_kwargs in list(hooks.tables["after"].values()):
        result = hook(module, args, kwargs, output) if with_kwargs else hook(module, args, output)
        if result is not None:
            output = result
    return output


def _forward_with_backward_hooks(
    module: Module, hooks: list[Callable[..., Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Forward between two ops that change nothing but see the gradient: behind the output, and before the input."""
    name = type(module).__name__
    sources = [i for i, x in enumerate(args) if isinstance(x, Tensor) and x.requires_grad]
    if len(sources) > 1:
        raise TypeError(f"{name}: full backward hooks support one argument that requires grad, got {len(sources)}")
    seen: list[Tensor] = []

    def call(grad_input: tuple[Tensor | None, ...]) -> Any:
        replaced = None
        for hook in hooks:
            result = hook(module, grad_input, (seen[-1],))
            if result is not None:
                replaced = grad_input = result if isinstance(result, tuple) else (result,)
        return replaced

    def watch_input(x: Array) -> Any:
        def vjp(dx: Array, need: Any) -> Any:
            replaced = call((Tensor(dx),))
            return (dx if replaced is None else replaced[0].array,)

        return x[...], vjp

    def watch_output(y: Array) -> Any:
        def vjp(dy: Array, need: Any) -> Any:
            seen.append(Tensor(dy))
            if not sources:
                call((None,))
            return (dy,)

        return y[...], vjp

    if sources:
        i = sources[0]
        args = (*args[:i], apply("backward_hook", watch_input, args[i]), *args[i + 1 :])
    output = module.forward(*args, **kwargs)
    if not isinstance(output, Tensor):
        raise TypeError(f"{name}: full backward hooks need one Tensor as output, got {type(output).__name__}")
    return apply("backward_hook", watch_output, output)


def name_layer(module: Module, error: TypeError | ValueError) -> None:
    """Put the failing layer's path before the message: ``features.3 (Conv2d): ...``.

    Every module around the failing one calls this as the error passes through; each adds its part of the path.
    """
    if type(error) not in (TypeError, ValueError) or not hasattr(error, "__dict__"):
        return
    trail = error.__dict__
    if "_layer" not in trail:
        trail["_layer"] = (module, "", type(module).__name__, error.args)
        return
    child, path, kind, message = trail["_layer"]
    name = next((name for name, m in module.named_modules() if m is child and name), "")
    path = f"{name}.{path}" if name and path else name or path
    trail["_layer"] = (module, path, kind, message)
    if path and len(message) == 1:
        error.args = (f"{path} ({kind}): {message[0]}",)
