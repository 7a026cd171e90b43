"""Count the calls inside the package of one `rerank` and of one `link`, by module and function.

    python benchmarks/calls.py rerank
    python benchmarks/calls.py rerank --typed
    python benchmarks/calls.py rerank --warm --model runs/quickstart/model
    python benchmarks/calls.py link --warm

`rerank` ranks two candidates by name and id; `link` reads three mentions from CSV, links them with
an index of six names and writes CSV. The call that is counted is the first after loading, or with
`--warm` the second. A call is that of a Python function of the package, of a generator one for each
value. Comprehensions and generator expressions count with the function that they stand in.
"""

import argparse
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import umls_reranker
from umls_reranker import ConceptLinker, UMLSReranker

PACKAGE = Path(umls_reranker.__file__).parent
NAMES = "id,name\nC1,cold\nC1,common cold\nC2,fever\nC3,influenza\nC3,flu\nC4,heart\n"
MENTIONS = "doc_id,mention\n1,common cold\n1,fever\n2,flu\n"
TYPED_MENTIONS = "doc_id,mention,entity_type\n1,common cold,T047\n1,fever,T184\n2,flu,T047\n"


def counted(function: Callable[[], Any]) -> Counter[tuple[str, str]]:
    """(module, function) -> the number of its calls while a function runs."""
    calls: Counter[tuple[str, str]] = Counter()
    root = f"{PACKAGE}/"

    def profile(frame: Any, event: str, argument: Any) -> None:
        path = frame.f_code.co_filename
        name = frame.f_code.co_name
        if event == "call" and path.startswith(root) and not name.startswith("<"):
            calls[path.removeprefix(root), name] += 1

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


def rerank(model: str, is_typed: bool, folder: Path) -> Callable[[], Any]:
    """A call that ranks two candidates."""
    candidates = [{"name": "Common Cold", "cui": "C1"}, {"name": "cold temperature", "cui": "C2"}]
    entity_type = "T047" if is_typed else None
    reranker = UMLSReranker.from_pretrained(model)
    return lambda: reranker.rerank("cold", candidates, entity_type=entity_type)


def link(model: str, is_typed: bool, folder: Path) -> Callable[[], Any]:
    """A call that links the mentions of a file."""
    from umls_reranker.linking.link_files import LinkJob
    from umls_reranker.serving.file_jobs import OneProcess

    (folder / "names.csv").write_text(NAMES)
    (folder / "mentions.csv").write_text(TYPED_MENTIONS if is_typed else MENTIONS)
    words = ["umls_reranker", "index", folder / "names.csv", folder / "index"]
    subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True)
    linker = ConceptLinker.from_pretrained(model, folder / "index")
    job = LinkJob(folder / "mentions.csv", folder / "linked.csv", overwrite=True)
    return lambda: job.run(linker, OneProcess())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("rerank", "link"))
    parser.add_argument("--model", default="built-in", help="folder of a model")
    parser.add_argument("--warm", action="store_true", help="count the second call")
    parser.add_argument("--typed", action="store_true", help="mentions with a semantic type")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    prepare = {"rerank": rerank, "link": link}[arguments.what]
    with tempfile.TemporaryDirectory() as folder:
        call = prepare(arguments.model, arguments.typed, Path(folder))
        if arguments.warm:
            call()
        calls = counted(call)
    by_module: Counter[str] = Counter()
    for (module, _), count in calls.items():
        by_module[module] += count
    for module, total in by_module.most_common():
        print(f"{total:6,} {module}")
        functions = {name: count for (place, name), count in calls.items() if place == module}
        for name, count in Counter(functions).most_common():
            print(f"{count:14,} {name}")
    print(f"{calls.total():6,} calls of {len(calls)} functions in {len(by_module)} modules")


if __name__ == "__main__":
    main()
