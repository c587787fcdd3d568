"""Stand-ins for packages that a library imports and its attention does not need."""

import importlib.abc
import importlib.machinery
import sys
from contextlib import contextmanager
from types import ModuleType
from unittest import mock


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds packages of these names, of which whatever is asked for is there and does nothing."""

    def __init__(self, names):
        self.names = set(names)

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = ModuleType(spec.name)
        module.__version__ = "0"
        module.__getattr__ = lambda name: self.attribute(name)
        return module

    def attribute(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return mock.MagicMock()

    def exec_module(self, module):
        pass


def stand_in(*names: str) -> Absent:
    """From now on these packages can be imported; a real one is found before."""
    sys.meta_path.append(finder := Absent(names))
    return finder


@contextmanager
def standing_in(*names: str):
    """The same for a while: another library, imported later, finds them absent."""
    finder = stand_in(*names)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] in finder.names]:
            if isinstance(getattr(sys.modules[name], "__loader__", None), Absent):
                del sys.modules[name]
