"""MedCAT 2 trained on the training documents (https://github.com/CogStack/cogstack-nlp, medcat-v2).

A concept database of the dictionary's names and types, by its `CDBMaker`; a vocabulary of word
vectors, by gensim as in its tutorials; then `train_unsupervised` on the documents' text and
`train_supervised_raw` on their mentions. Documents are annotated whole; a mention is answered by
the longest entity that MedCAT links within it.
"""

import logging
import os
import random
from functools import lru_cache

from peer import Candidate

ENVIRONMENT = "medcat"
PACKAGES = ("medcat", "spacy", "spacy-lookups-data", "gensim")
INPUTS = ("context", "training mentions")
DEVIATIONS = (
    "spacy.blank with the lemmas of spacy-lookups-data replaces en_core_web_md, "
    "which is a download",
    "word vectors are trained on the training documents alone; "
    "its vocabulary of 800,000 words is a download",
    "training mentions whose concept is not in the dictionary are left out: "
    "they would be linked to",
    "nested entities are kept, so that those within a mention are found; "
    "abbreviations are not expanded",
)


def setup(export):
    # Otherwise it checks the package index for a newer version.
    os.environ["MEDCAT_DISABLE_VERSION_CHECK"] = "true"
    from medcat.components.linking.vector_context_model import PerDocumentTokenCache
    from medcat.components.types import CoreComponentType

    cat = trained(export)
    texts = export.documents()
    model = cat.pipe.get_component(CoreComponentType.linking).context_model
    # Even one at a time, a document is annotated only once, as users would do.
    annotate = lru_cache(maxsize=1)(lambda document: cat(texts[document]))

    def link(mentions):
        for mention in mentions:
            document = annotate(mention.doc_id)
            spans = [
                (entity.base.start_char_index, entity.base.end_char_index)
                for entity in document.linked_ents
            ]
            within = [
                (end - start, -row)
                for row, (start, end) in enumerate(spans)
                if mention.start <= start and end <= mention.end
            ]
            yield candidates(document.linked_ents[-max(within)[1]], document) if within else []

    def candidates(entity, document):
        name = entity.detected_name.replace(cat.config.general.separator, " ")
        if len(entity.link_candidates) < 2:
            return [Candidate(entity.cui, entity.context_similarity, name)]
        cuis, similarities, _ = model.get_all_similarities(
            entity.link_candidates, entity, entity.detected_name, document, PerDocumentTokenCache()
        )
        return [Candidate(cui, score, name) for cui, score in zip(cuis, similarities, strict=True)]

    return link


def trained(export):
    """The model of the dictionary, trained on the training documents."""
    import numpy as np
    from gensim.models import Word2Vec
    from medcat.cat import CAT
    from medcat.model_creation.cdb_maker import CDBMaker
    from medcat.vocab import Vocab
    from pandas import DataFrame

    random.seed(13)
    np.random.seed(13)
    logging.getLogger("medcat").setLevel(logging.ERROR)
    config = configured(export.scratch("medcat") / "en_lookup")
    rows = [
        {
            "cui": cui,
            "name": name,
            "name_status": "P" if name == preferred else "A",
            "type_ids": "|".join(types),
        }
        for cui, preferred, names, types in export.concepts()
        for name in names
    ]
    vocabulary = Vocab()
    cat = CAT(CDBMaker(config).prepare_csvs([DataFrame(rows)]), vocabulary, config)
    documents = export.documents("train")
    words = [
        [token.base.lower for token in cat.pipe.tokenizer(text)] for text in documents.values()
    ]
    # The options of its MakeVocab, with more epochs and rarer words: it was made for a larger
    # corpus.
    vectors = Word2Vec(
        words, vector_size=300, window=10, negative=10, min_count=2, epochs=20, workers=1, seed=13
    ).wv
    for word in vectors.index_to_key:
        vocabulary.add_word(word, vectors.get_vecattr(word, "count"), vectors[word])
    cat.trainer.train_unsupervised([*documents.values()])
    cat.trainer.train_supervised_raw(
        annotated(documents, export.mentions("train")), disable_progress=True
    )
    return cat


def configured(pipeline):
    """Its configuration, with a spaCy pipeline of lemmas that is written to a folder."""
    import spacy
    from medcat.config import Config

    language = spacy.blank("en")
    language.add_pipe("lemmatizer", config={"mode": "lookup"})
    language.initialize()
    language.to_disk(pipeline)
    config = Config()
    config.general.log_level = logging.ERROR
    config.general.nlp.provider = "spacy"
    config.general.nlp.modelname = str(pipeline)
    config.general.show_nested_entities = True
    # Its options with the highest dev accuracy, 0.436 instead of 0.422: names of two letters, and
    # no preference for frequent concepts, whose scores are capped at the same value.
    config.components.ner.min_name_len = 2
    config.components.ner.upper_case_limit_len = 2
    config.components.linking.prefer_frequent_concepts = 0
    return config


def annotated(documents, mentions):
    """Documents and their mentions as MedCATtrainer exports them."""
    annotations = {document: [] for document in documents}
    for mention in mentions:
        if mention.in_dictionary:
            span = {
                "start": mention.start,
                "end": mention.end,
                "value": mention.text,
                "cui": mention.cui,
            }
            annotations[mention.doc_id].append(span)
    rows = [
        {"id": document, "name": document, "text": text, "annotations": annotations[document]}
        for document, text in documents.items()
    ]
    return {"projects": [{"name": "train", "documents": rows}]}
