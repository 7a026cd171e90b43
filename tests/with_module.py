"""Run a command after modules that register something: ``with_module.py A.py:B.py COMMAND ...``."""

import importlib
import sys
from pathlib import Path

from umls_reranker.__main__ import main

if __name__ == "__main__":
    modules = sys.argv.pop(1)
    for module in map(Path, modules.split(":")):
        sys.path.insert(0, str(module.parent))
        importlib.import_module(module.stem)
    main()
