"""Run a function in a forked process."""

import multiprocessing
import os


def run_forked(work):
    """Run `work` in a fork of this process, for a minute at most; an error in it fails the test."""

    def run():
        # The tokenizer's threads do not survive a fork, wherever an earlier test turned them on.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        work()

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join(60)
    child.kill()
    child.join()
    assert child.exitcode == 0
