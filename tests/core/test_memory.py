"""The bounded cache of what was computed for texts."""

from umls_reranker.core.arrays import LONGEST, Memory


def counted(size):
    asked = []
    return Memory(lambda texts: asked.extend(texts) or [text.encode() for text in texts], size), asked


def test_a_value_is_made_once():
    cache, asked = counted(10)
    assert cache(["a", "b"]) == [b"a", b"b"] and cache(["b", "c", "a"]) == [b"b", b"c", b"a"]
    assert asked == ["a", "b", "c"]


def test_memory_is_bounded_and_what_is_used_is_seldom_made_again():
    cache, asked = counted(8)
    for number in range(100):
        assert cache(["used", str(number)]) == [b"used", str(number).encode()]
        assert len(cache) <= 8
    assert asked.count("used") <= 100 / 7 + 1
    cache(["0"])
    assert asked.count("0") == 2
    texts = [str(number) for number in range(50)]
    assert cache(texts) == [text.encode() for text in texts] and len(cache) <= 8


def test_a_long_text_is_not_kept():
    cache, asked = counted(10)
    long, longest = "x" * 10_000, "y" * LONGEST
    for _ in range(2):
        assert cache([long, "a", longest]) == [long.encode(), b"a", longest.encode()]
    assert asked == [long, "a", longest, long] and len(cache) == 2
