"""Containers of modules: Sequential (called one after the other), ModuleList and ModuleDict (only hold them)."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from operator import index
from typing import Any, TypeVar

from .module import Module

__all__ = ["ModuleDict", "ModuleList", "Sequential"]

Self = TypeVar("Self", bound="_Indexed")


class _Indexed(Module):
    """Submodules in an order, named "0", "1", ... unless they were given names."""

    def _names(self) -> list[str]:
        return [name for name, kind in self._kinds.items() if kind == "module"]

    def _name(self, i: int) -> str:
        names = self._names()
        at = index(i)
        if not -len(names) <= at < len(names):
            raise IndexError(f"{type(self).__name__}: index {at} is out of range for {len(names)} modules")
        return names[at]

    def _refill(self, modules: Iterable[tuple[str, Module]]) -> None:
        for name in self._names():
            delattr(self, name)
        for name, module in modules:
            self.register_module(name, module)

    def __len__(self) -> int:
        return len(self._names())

    def __iter__(self) -> Iterator[Module]:
        return iter([self.__dict__[name] for name in self._names()])

    def __contains__(self, module: object) -> bool:
        return any(m is module for m in self)

    def __getitem__(self, i: Any) -> Any:
        if not isinstance(i, slice):
            return self.__dict__[self._name(i)]
        part = type(self)()
        part._refill((n, self.__dict__[n]) for n in self._names()[i])
        return part

    def __setitem__(self, i: int, module: Module) -> None:
        self.register_module(self._name(i), module)

    def __delitem__(self, i: int | slice) -> None:
        """Remove modules; those that remain keep their given names, but "0", "1", ... are numbered anew."""
        names = self._names()
        gone = set(names[i]) if isinstance(i, slice) else {self._name(i)}
        left = [(n, self.__dict__[n]) for n in names if n not in gone]
        numbered = all(n == str(k) for k, n in enumerate(names))
        self._refill((str(k) if numbered else n, m) for k, (n, m) in enumerate(left))

    def pop(self, i: int = -1) -> Module:
        module: Module = self[index(i)]
        del self[i]
        return module

    def append(self: Self, module: Module) -> Self:
        self.register_module(str(len(self)), module)
        return self

    def extend(self: Self, modules: Iterable[Module]) -> Self:
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, i: int, module: Module) -> None:
        modules = list(self)
        modules.insert(index(i), module)
        self._refill((str(k), m) for k, m in enumerate(modules))


class Sequential(_Indexed):
    """Modules called one after the other: ``Sequential(a, b)(x) = b(a(x))``; an OrderedDict gives them names."""

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            self._refill(args[0].items())
        else:
            self._refill((str(i), module) for i, module in enumerate(args))

    def forward(self, input: Any) -> Any:
        state = self.__dict__
        for name, kind in self._kinds.items():
            if kind == "module":
                input = state[name](input)
        return input


class ModuleList(_Indexed):
    """A list whose modules are found by ``parameters()``, ``state_dict()`` and so on. It cannot be called."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(modules or [])

    def __getitem__(self, i: Any) -> Any:
        return ModuleList(list(self)[i]) if isinstance(i, slice) else super().__getitem__(i)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])


class ModuleDict(Module):
    """A dict whose modules are found by ``parameters()``, ``state_dict()`` and so on. It cannot be called."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def _items(self) -> dict[str, Module]:
        return dict(self._own("module"))

    def __getitem__(self, key: str) -> Module:
        return self._items()[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.register_module(key, module)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[str]:
        return iter(self._items())

    def __contains__(self, key: object) -> bool:
        return key in self._items()

    def keys(self) -> KeysView[str]:
        return self._items().keys()

    def values(self) -> ValuesView[Module]:
        return self._items().values()

    def items(self) -> ItemsView[str, Module]:
        return self._items().items()

    def pop(self, key: str) -> Module:
        module = self[key]
        del self[key]
        return module

    def update(self, modules: Any) -> None:
        for key, module in modules.items() if isinstance(modules, Mapping) else modules:
            self.register_module(key, module)
