"""Run a script after modules that register something: ``with_module.py A.py:B.py SCRIPT ...``."""

import importlib
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    modules, *sys.argv = sys.argv[1:]
    for module in map(Path, modules.split(":")):
        sys.path.insert(0, str(module.parent))
        importlib.import_module(module.stem)
    runpy.run_path(sys.argv[0], run_name="__main__")
