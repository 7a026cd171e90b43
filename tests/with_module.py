"""Run a script where a module was imported before, which registers something: ``with_module.py MODULE SCRIPT ...``."""

import importlib
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    module, *sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(module).parent))
    importlib.import_module(Path(module).stem)
    runpy.run_path(sys.argv[0], run_name="__main__")
