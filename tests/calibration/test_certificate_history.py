import json

from umls_reranker.calibration.certificate import CertificateHistory


def test_documents_certify_once():
    first = CertificateHistory().after(["a", "b", "a"])
    assert first.is_new(["a", "c", "b", "c"]).tolist() == [False, True, False, True]
    second = first.after(["c"])
    assert second.is_new(["a", "c", "d"]).tolist() == [False, False, True]
    assert second.certificates[:-1] == first.certificates
    assert CertificateHistory().is_new(["a"]).all()


def test_ids_are_kept_as_hashes():
    history = CertificateHistory().after(["PMID 26316050"]).after([])
    state = json.loads(json.dumps(history.to_list()))
    assert CertificateHistory.from_list(state) == history
    assert "26316050" not in json.dumps(state)
