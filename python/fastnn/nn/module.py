"""Module: the base of all layers and networks, as torch.nn.Module.

Parameters, buffers and submodules live in the instance's ``__dict__`` like any attribute, so that ``self.weight`` costs
nothing extra; ``_kinds`` remembers which names are which, in the order of registration. Hooks and the naming of
layers in errors are in hooks.py, loading and saving in state.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import numpy as np

from ..autograd import Tensor, cuda_name
from ..kernels._backend import Array, here, moved, on
from ..tape import replace
from .hooks import Hooks, RemovableHandle, call_with_hooks, name_layer
from .parameter import Parameter, float_dtype
from .state import IncompatibleKeys, load_state, save_state

__all__ = ["Module"]

Kind = Literal["parameter", "buffer", "module"]
Self = TypeVar("Self", bound="Module")

_TYPES: dict[str, str] = {"parameter": "fastnn.nn.Parameter", "buffer": "fastnn.Tensor", "module": "fastnn.nn.Module"}


class Module:
    """Base class of layers and networks: subclass it, call ``super().__init__()``, assign layers, define ``forward``.

    Example::

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.hidden = nn.Linear(4, 8)
                self.out = nn.Linear(8, 2)

            def forward(self, x):
                return self.out(F.relu(self.hidden(x)))
    """

    training: bool
    _kinds: dict[str, Kind]
    _transient: set[str]  # buffers that are not saved
    _hooks: Hooks | None = None

    def __init__(self) -> None:
        state = self.__dict__
        state["training"] = True
        state["_kinds"] = {}
        state["_transient"] = set()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._hooks is None:
                return self.forward(*args, **kwargs) if kwargs else self.forward(*args)
            return call_with_hooks(self, self._hooks, args, kwargs)
        except (TypeError, ValueError) as error:
            name_layer(self, error)
            raise

    # -- attributes ------------------------------------------------------------------------------------------------
    def __setattr__(self, name: str, value: Any) -> None:
        kinds = self.__dict__.get("_kinds")
        if isinstance(value, Parameter):
            self._register("parameter", name, value)
        elif isinstance(value, Module):
            self._register("module", name, value)
        elif kinds and name in kinds and not (value is None or (kinds[name] == "buffer" and isinstance(value, Tensor))):
            kind = kinds[name]
            raise TypeError(
                f"{type(self).__name__}: cannot assign a {type(value).__name__} as {kind} '{name}': "
                f"{_TYPES[kind]} or None expected"
            )
        else:
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._kinds.pop(name, None)
        self._transient.discard(name)

    def __getattr__(self, name: str) -> Any:
        hint = "" if "_kinds" in self.__dict__ else " (__init__ must call super().__init__() first)"
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'{hint}", name=name, obj=self)

    def _register(self, kind: Kind, name: str, value: Any) -> None:
        state = self.__dict__
        if "_kinds" not in state:
            raise AttributeError(f"cannot assign a {kind} before {type(self).__name__} has called super().__init__()")
        if state["_kinds"].get(name) != kind:
            state["_kinds"].pop(name, None)
            state["_kinds"][name] = kind
        state["_transient"].discard(name)
        state[name] = value

    def _check_new(self, kind: Kind, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{kind} name must be a string, got {type(name).__name__}")
        if not name or "." in name:
            raise KeyError(f"{kind} name must not be empty or contain '.', got {name!r}")
        if hasattr(self, name) and self.__dict__.get("_kinds", {}).get(name) != kind:
            raise KeyError(f"{type(self).__name__} already has an attribute '{name}'")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Make ``param`` a parameter under ``name``; None reserves the name (a layer without bias)."""
        self._check_new("parameter", name)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"register_parameter: '{name}' must be a Parameter or None, got {type(param).__name__}")
        if param is not None and not param.is_leaf:
            raise ValueError(f"register_parameter: '{name}' is the result of an op; compute it in forward() instead")
        self._register("parameter", name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Make ``tensor`` part of the module's state without training it; saved if ``persistent``."""
        self._check_new("buffer", name)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"register_buffer: '{name}' must be a Tensor or None, got {type(tensor).__name__}")
        self._register("buffer", name, tensor)
        if not persistent:
            self._transient.add(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Make ``module`` a submodule under ``name``."""
        self._check_new("module", name)
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"add_module: '{name}' must be a Module or None, got {type(module).__name__}")
        self._register("module", name, module)

    add_module = register_module

    # -- walking ---------------------------------------------------------------------------------------------------
    def _own(self, kind: Kind) -> Iterator[tuple[str, Any]]:
        """This module's own entries of one kind, without those that are None."""
        state = self.__dict__
        for name, k in list(self._kinds.items()):
            if k == kind and state[name] is not None:
                yield name, state[name]

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """(path, module) of this module (path ``prefix``) and all below it, each module once."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self._own("module"):
            yield from child.named_modules(memo, join(prefix, name), remove_duplicate)

    def modules(self) -> Iterator[Module]:
        for _, module in self.named_modules():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the direct submodules, each once."""
        seen: set[Module] = set()
        for name, child in self._own("module"):
            if child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        for _, child in self.named_children():
            yield child

    def _named(self, kind: Kind, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        within = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in within:
            for name, value in module._own(kind):
                if not remove_duplicate or id(value) not in seen:
                    seen.add(id(value))
                    yield join(path, name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) of this module and, with ``recurse``, all below it; a shared parameter once."""
        return self._named("parameter", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """(path, buffer) of this module and, with ``recurse``, all below it."""
        return self._named("buffer", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target: str) -> Module:
        """The module at a path such as ``"features.3"``; ``""`` is this module."""
        module = self
        for name in target.split(".") if target else []:
            if module._kinds.get(name) != "module" or module.__dict__[name] is None:
                raise AttributeError(f"get_submodule: no module '{name}' in {type(module).__name__} (path {target!r})")
            module = module.__dict__[name]
        return module

    def _get(self, kind: Kind, target: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if module._kinds.get(name) != kind:
            raise AttributeError(f"get_{kind}: no {kind} '{name}' in {type(module).__name__} (path {target!r})")
        return module.__dict__[name]

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a path such as ``"features.3.weight"``."""
        return self._get("parameter", target)

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a path such as ``"bn.running_mean"``."""
        return self._get("buffer", target)

    # -- state -----------------------------------------------------------------------------------------------------
    def state_dict(
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Tensor]:
        """path -> tensor of all parameters and persistent buffers; the tensors share this module's memory."""
        return save_state(self, {} if destination is None else destination, prefix, keep_vars)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> IncompatibleKeys:
        """Copy the values of ``state_dict`` (path -> tensor or array) into this module's parameters and buffers.

        ``strict`` demands exactly this module's keys. Everything is checked before anything is copied; the error
        names every key that is missing, unexpected or of the wrong shape. ``assign`` keeps the given arrays instead
        of copying them.
        """
        return load_state(self, state_dict, strict, assign)

    # -- all at once -----------------------------------------------------------------------------------------------
    def train(self: Self, mode: bool = True) -> Self:
        """Set training mode (dropout drops, batch norm uses its batch) or, with False, evaluation mode."""
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode must be True or False, got {mode!r}")
        for module in self.modules():
            module.__dict__["training"] = mode
        return self

    def eval(self: Self) -> Self:
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters():
            clear_gradient(parameter, set_to_none)

    def apply(self: Self, fn: Callable[[Module], Any]) -> Self:
        """Call ``fn`` on every submodule, then on this module: to initialise a network."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def to(self: Self, *targets: Any, dtype: Any = None, device: str | None = None) -> Self:
        """Move all parameters and buffers, and convert the floating-point ones, in place: ``to("cuda")``,
        ``to(numpy.float64)``. Their gradients go with them; an optimizer's state does not: make it afterwards."""
        for target in targets:
            if isinstance(target, Tensor):
                device, dtype = target.device, target.dtype
            elif target is None or (isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda")):
                device = target
            else:
                dtype = target
        op = f"{type(self).__name__}.to"
        there = here(op, device)
        new = None if dtype is None else float_dtype(op, dtype)

        def changed(x: Array) -> Array:
            if new is not None and x.dtype.kind == "f":
                with on(x):
                    x = x.astype(new, copy=False)
            return x if device is None else moved(x, there)

        for tensor in [*self.parameters(), *self.buffers()]:
            array = changed(tensor.array)
            if array is not tensor.array:
                gradient, tensor.grad = tensor.grad, None
                replace(tensor, array)  # a graph that kept the old numbers is of another dtype or device now
                if gradient is not None:
                    tensor.grad = changed(gradient.array)
        return self

    def float(self: Self) -> Self:
        return self.to(np.float32)

    def double(self: Self) -> Self:
        return self.to(np.float64)

    def cpu(self: Self) -> Self:
        return self.to("cpu")

    def cuda(self: Self, device: int | str | None = None) -> Self:
        return self.to(cuda_name(device))

    # -- hooks -----------------------------------------------------------------------------------------------------
    def _hook(self, stage: str, hook: Callable[..., Any], with_kwargs: bool, prepend: bool) -> RemovableHandle:
        if not callable(hook):
            raise TypeError(f"a hook must be callable, got {type(hook).__name__}")
        if self._hooks is None:
            self.__dict__["_hooks"] = Hooks()
        assert self._hooks is not None
        return self._hooks.add(stage, hook, with_kwargs, prepend)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before every forward; what it returns (unless None) replaces the arguments.

        ``with_kwargs``: ``hook(module, args, kwargs)``, which returns None or the pair (args, kwargs).
        """
        return self._hook("before", hook, with_kwargs, prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after every forward; what it returns (unless None) replaces the output.

        ``with_kwargs``: ``hook(module, args, kwargs, output)``.
        """
        return self._hook("after", hook, with_kwargs, prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` in backward; its result (unless None) replaces grad_input.

        Both are tuples of one Tensor (or None): the module must return one Tensor, and at most one of its positional
        arguments may require a gradient.
        """
        return self._hook("backward", hook, False, prepend)

    # -- showing ---------------------------------------------------------------------------------------------------
    def extra_repr(self) -> str:
        """What a layer shows of itself between the parentheses."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._own("module")]
        if not children and len(lines) <= 1:
            return f"{type(self).__name__}({extra})"
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines + children) + "\n)"


def join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def clear_gradient(parameter: Tensor, set_to_none: bool) -> None:
    """Forget a gradient, or fill it with zeros in the memory it has."""
    if set_to_none:
        parameter._grad = None
    elif parameter.grad is not None:
        parameter.grad = parameter.grad.detach().zero_()
