#!/usr/bin/env python
"""Write NCBI Disease or BC5CDR as a folder with a recipe: trained on the training documents, tested on dev.

    python benchmarks/corpora.py ../shared/data/medic runs/ncbi && umls-reranker run runs/ncbi

The first folder has the corpora's PubTator files, and in cui/ MEDIC as a release with made-up CUIs. The folder's name
says which corpus is written. An annotation whose text is not at its offsets is left out. One training document in
eight is for dev and calibration.
"""

import argparse
import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path


def write_ncbi(medic: Path, folder: Path) -> Path:
    """Write the folder of NCBI Disease; returns its recipe."""
    train, dev = ((medic / "cui" / f"ncbi_{name}.txt").read_text().split() for name in ("train", "dev"))
    return write_recipe(medic, folder, [*documents(medic / "cui" / "ncbi.pubtator.gz")], train, dev)


def write_bc5cdr(medic: Path, folder: Path) -> Path:
    """Write the folder of the diseases of BC5CDR; returns its recipe."""
    with gzip.open(medic / "cui" / "META" / "MRCONSO.RRF.gz", "rt", encoding="utf-8") as lines:
        cuis = {fields[13]: fields[0] for fields in (line.split("|") for line in lines)}
    files = (medic / f"CDR_{name}Set.PubTator.txt.gz" for name in ("Training", "Development"))
    train, dev = ([*documents(file, cuis)] for file in files)
    ids = ([document.split("|", 1)[0] for document in texts] for texts in (train, dev))
    return write_recipe(medic, folder, train + dev, *ids)


def documents(file: Path, cuis: Mapping[str, str] | None = None) -> Iterator[str]:
    """Documents of a compressed PubTator file.

    Args:
        file: the file.
        cuis: code -> CUI: only diseases that have one are kept, the first code of each. None: the file has CUIs.
    """
    blocks = gzip.decompress(file.read_bytes()).decode("utf-8").strip().split("\n\n")
    for block in blocks:
        title, abstract, *lines = block.strip("\n").split("\n")
        text, kept = f"{title.split('|', 2)[2]} {abstract.split('|', 2)[2]}", [title, abstract]
        for fields in (line.split("\t") for line in lines):
            if len(fields) != 6 or text[int(fields[1]) : int(fields[2])] != fields[3]:
                continue
            if cuis is not None:
                code = fields[5].split("|")[0]
                if fields[4] != "Disease" or code not in cuis:
                    continue
                fields[4:] = "T047", cuis[code]
            kept.append("\t".join(fields))
        yield "\n".join(kept)


def write_recipe(medic: Path, folder: Path, texts: list[str], train: list[str], test: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "corpus": ["\n\n".join(texts)],
        "train_documents": [one for row, one in enumerate(train) if row % 8],
        "dev_documents": train[::8],
        "test_documents": test,
    }
    recipe = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    recipe += f"\nrun_name: {folder.name}\numls_dir: {(medic / 'cui' / 'META').resolve()}\n"
    for key, lines in contents.items():
        path = (folder / f"{key}.txt").resolve()
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        recipe += f"{key}: {path}\n"
    path = folder / "config.yaml"
    path.write_text(recipe, encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("medic", type=Path)
    parser.add_argument("folder", type=Path, help="folder to write, named ncbi or bc5cdr")
    options = parser.parse_args()
    write = {"ncbi": write_ncbi, "bc5cdr": write_bc5cdr}[options.folder.name]
    print(write(options.medic, options.folder))


if __name__ == "__main__":
    main()
