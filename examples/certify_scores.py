"""Find the score from which the answers of any system are certified to be 95 % correct.

You need the system's scores for labelled answers, and the document of each: mentions of one
document go wrong together. No model is needed. Here the answers are synthetic.

    python examples/certify_scores.py

prints

    accept from 0.886: 39.6% of the answers
    96.9% of them are correct in this sample
"""

import numpy as np

from umls_reranker import certify

rng = np.random.default_rng(0)
documents = np.repeat(np.arange(600), 5)  # 600 documents with 5 answers each
scores = rng.beta(4, 1, len(documents))  # probabilities, as your system gives them
correct = (
    rng.random(len(documents)) < scores**0.5
)  # underconfident: the guarantee holds all the same

certificate = certify(scores, correct, documents, target_precision=0.95)
if certificate.threshold is None:
    print(certificate)
else:
    print(f"accept from {certificate.threshold:.3f}: {certificate.coverage:.1%} of the answers")
    print(f"{certificate.precision:.1%} of them are correct in this sample")

# Label more documents and call again, with all labels so far, as often as you like. What breaks the
# guarantee is to choose: the best of several systems, or of several sets of labels.
