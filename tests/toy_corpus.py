"""A corpus format in one file, registered from outside; as a script it runs prepare_data with
it.
"""

import sys

from umls_reranker.__main__ import main
from umls_reranker.corpora.corpus import Annotation, CorpusReader, Document
from umls_reranker.corpora.formats import register


class TaggedLines(CorpusReader):
    """Annotations without types, written into the text."""

    name = "tagged lines"
    layout = "lines of an id, a tab, and text with [mention|CUI]"

    def recognizes(self, start):
        return b"|C" in start.split(b"\n")[0]

    def documents(self, path, faults):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            doc_id, marked = line.split("\t")
            text = ""
            annotations = []
            for piece in marked.split("]"):
                before, _, mark = piece.partition("[")
                text += before
                if mark:
                    mention, cui = mark.split("|")
                    span = (len(text), len(text) + len(mention))
                    annotations.append((number, Annotation((span,), mention, ((cui,),))))
                    text += mention
            yield Document(number, doc_id, text, annotations)


if __name__ == "__main__":
    register(TaggedLines())
    sys.argv.insert(1, "prepare_data")
    main()
