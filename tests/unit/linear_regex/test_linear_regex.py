"""Patterns that callers send: Python's answers, in time linear in the text, or a refusal that names the reason."""

import re
import time
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from linear_regex import MAX_CHARACTERS, UnsuitablePattern, compile_pattern

LETTERS = "abcAB01_.- \n\tüÜßéжЖ字\u00a0\x1c"
CHARACTERS = st.sampled_from([re.escape(letter) for letter in LETTERS] + [r"\x41", r"\u00fc", r"\t", r"\n"])
CLASSES = st.sampled_from([".", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S"])
RANGES = st.sampled_from(
    ["a-c", "A-Z", "0-9", "à-ÿ", "а-я", r"\d", r"\w", r"\s", r"\S", "[", "&&", "~", "-", "^", r"\]", r"\b"]
)
SETS = st.builds(
    lambda negated, items: f"[{negated}{''.join(items)}]",
    st.sampled_from(["", "^"]),
    st.lists(RANGES, min_size=1, max_size=4).filter(lambda items: items[0] != "^"),
)
EDGES = st.sampled_from([r"\b", "^", r"\A", "(?m:^a$)", r"\Z"])
REPEATS = st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,3}", "{,2}", "{1,}", "{0}", "{x}", "{"])


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = st.builds("{}{})".format, st.sampled_from(["(", "(?:", "(?i:", "(?s:", "(?P<n>"]), inner)
    return st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("{}|{}".format, inner, inner),
        st.builds("(?:{}){}".format, inner, REPEATS),
        group,
    )


PATTERNS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "(?i)", "(?m)", "(?s)", "(?is)"]),
    st.recursive(st.one_of(CHARACTERS, CLASSES, SETS, EDGES), _grown, max_leaves=8),
    st.sampled_from(["", "$"]),
)


@settings(max_examples=500, deadline=None)
@given(PATTERNS, st.text(LETTERS, max_size=12), st.booleans())
@example(r"a$", "a\n", False)
@example(r"\s", "\x1c", False)
@example(r"(k|q)_proj", "model.q_proj", False)
def test_a_pattern_that_is_taken_gives_the_answer_of_re(pattern: str, text: str, at_start: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = re.compile(pattern)
        except re.error:  # a name twice, a repeat of a repeat
            with pytest.raises(UnsuitablePattern, match="not a regular expression"):
                compile_pattern(pattern)
            return
        try:
            ours = compile_pattern(pattern, at_start=at_start)
        except UnsuitablePattern as refused:
            assert "$" in pattern and "follows `$`" in str(refused)  # noqa: PT018
            return
    found = expected.match(text) if at_start else expected.search(text)
    assert ours.search(text) is (found is not None)


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ("(?=a)b", "lookahead"),
        ("(?!a)b", "lookahead"),
        ("(?<=a)b", "lookbehind"),
        ("(?<!a)b", "lookbehind"),
        (r"(a)\1", "reference to a group"),
        (r"(?P<n>a)(?P=n)", "reference to a group"),
        (r"(a)?(?(1)b|c)", "condition"),
        ("(?>a+)b", "atomic"),
        ("a++", "possessive"),
        (r"\N{BULLET}", "write the character"),
        ("(?x) a b", "flag `x`"),
        ("(?a)b", "flag `a`"),
        ("(a", "not a regular expression"),
        ("a" * (MAX_CHARACTERS + 1), "characters"),
        ("x{1000}", "too large"),
        ("(?:x{16}){17}", "too large"),
        ("(?:(?:x{0,9}){0,9}){0,9}", "too large"),
        ("(?:){100000}", "too large"),
        (r"\w{65}", "too large"),
        ("x{99999999999999999999}", "not a regular expression"),
        ("x{1000}{1000}", "not a regular expression"),
        ("(" * 199 + "a" + ")" * 199, ""),
    ],
)
def test_what_the_engine_cannot_match_in_linear_time_is_refused_by_name(pattern: str, named: str) -> None:
    if not named:  # deep, and nothing else: an answer or a refusal, no crash
        assert compile_pattern(pattern).search("a")
        return
    with pytest.raises(UnsuitablePattern, match=re.escape(named)):
        compile_pattern(pattern)


HOSTILE = [
    "(a?){25}a{25}x", "(a+)+$", "(a*)*b", "(a|a)*b", "(a|aa)+$", "(.*a){20}x", "(?:a{1,3}){1,40}x", "(.*)(.*)(.*)(.*)(.*)x",
    "((a{0,5}){0,5}){0,5}x", r"(\w+\s?)+!", r"(?:[ab]*a[ab]{240}c)", r"(?s)(?:.{0,14}a){15}x", r"(?i)(?:\w?){40}!", "(x+x+)+y",
    r"^(([a-z])+.)+[A-Z]([a-z])+$", "a.*b.*c.*d.*e.*f.*g", r"(?:a?b?){50}c", r"\b(?:\w{1,60}\s?)!", r"(?i)\bü\w{50}",
    r"(?s)\b(?:.{0,10}\b){20}x",
]  # fmt: skip


@pytest.mark.parametrize("pattern", HOSTILE)
@pytest.mark.parametrize("text", ["a" * 8_000, "ab" * 4_000, "aü " * 2_600, "abbabaaabbabbbab" * 500])
def test_hostile_patterns_end_fast(pattern: str, text: str) -> None:
    started = time.process_time()
    compile_pattern(pattern).search(text)
    assert time.process_time() - started < 1.5  # about 0.2 s at most on a quiet machine; `re` needs years
