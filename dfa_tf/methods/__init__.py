"""What a student learns from: one file a method, and the losses and connectors that they share."""

import importlib
import inspect
import pkgutil


def _classes():
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        for _, each in inspect.getmembers(module, inspect.isclass):
            if each.__module__ == module.__name__ and hasattr(each, "needs"):
                yield each


# Every class here that says what it `needs` (see method.py), so that a new method is one new file.
METHODS = {}
for _method in _classes():
    if _method.name in METHODS:
        raise ValueError(f"{_method} and {METHODS[_method.name]} are both named {_method.name!r}")
    METHODS[_method.name] = _method
