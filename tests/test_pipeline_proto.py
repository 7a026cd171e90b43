import time

pytest_plugins = ["pipeline_fixtures"]


def test_a(scripts, tmp_path):
    for s in (
        "prepare_data",
        "build_index",
        "mine_negatives",
        "train",
        "calibrate",
        "evaluate",
        "summarize",
        "validate",
    ):
        t = time.time()
        o = scripts.run(s, watch=tmp_path, output_dir=tmp_path)
        print(s, o.code, round(time.time() - t, 2), len(o.changes))
        if o.code:
            print(o.err[-3000:])
        if s in ("prepare_data", "build_index", "mine_negatives", "train"):
            print("\n".join(o.changes))
    print(o.err, o.out)
