"""Java's expressions: what is refused and where, what is a short cut, and replacements."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.processor.rules import shortcuts
from tracefwd.processor.rules.dialect import Refused
from tracefwd.processor.rules.java_regex import translate
from tracefwd.processor.rules.regex import Memo, Pattern, TooMuch, compile_java
from tracefwd.processor.rules.subject import SPAN, Subject
from tracefwd.processor.rules.templates import replacement

TEXTS = st.text("abAB.1 é\n-/_x\U0001f600", max_size=12)


@pytest.mark.parametrize(
    ("pattern", "position", "said"),
    [
        ("a(?=b)", 1, "lookahead"),
        ("a(?!b)", 1, "negative lookahead"),
        ("(?<=a)b", 0, "lookbehind"),
        ("(?<!a)b", 0, "negative lookbehind"),
        ("(?>a)", 0, "an atomic group"),
        ("(a)\\1", 3, "back-references"),
        ("(?<n>a)\\k<n>", 7, "back-references"),
        ("(?<n>a)(?<n>b)", 7, "two groups are named 'n'"),
        ("(?<1n>a)", 0, "'1n' cannot name a group"),
        ("a*+", 1, "possessive"),
        ("a{2}+", 1, "possessive"),
        ("a**", 2, "nothing that repeats"),
        ("*a", 0, "nothing that repeats"),
        ("|+", 1, "nothing that repeats"),
        ("{{foo}}", 0, "nothing that repeats"),
        ("a{x}", 1, "'{x}' is no repetition"),
        ("a{,3}", 1, "'{,3}' is no repetition"),
        ("a{2", 2, "'}' is missing"),
        ("a{1001}", 1, "'{1001}' is not supported"),
        ("(a", 0, "a group is not closed"),
        ("a)", 1, "no group to close"),
        ("[a", 0, "the class is not closed"),
        ("[b-a]", 2, "the range runs backwards"),
        ("[a-\\d]", 2, "a range cannot end in a set"),
        ("[^a[b]]", 0, "different Javas"),
        ("[^a&&b]", 0, "different Javas"),
        ("[\\p{L}&&[abc]]", 0, "Unicode's tables"),
        ("[a&&b]", 0, "matches no character"),
        ("\\p{javaLowerCase}", 0, "has no counterpart"),
        ("\\p{IsAlphabetic}", 0, "has no counterpart"),
        ("a\\p{InGreek}", 1, "has no counterpart"),
        ("\\p{Klingon}", 0, "RE2 refuses it"),
        ("[\\p{block=Greek}]", 1, "has no counterpart"),
        ("(?x)a", 0, "flag x"),
        ("(?U)a", 0, "flag U"),
        ("\\G", 0, "\\G is not supported"),
        ("\\X", 0, "\\X is not supported"),
        ("\\b{g}", 0, "\\b{g}"),
        ("\\y", 0, "\\y is nothing"),
        ("[\\b]", 1, "\\b is nothing"),
        ("\\x4", 0, "2 hexadecimal digits"),
        ("\\x{110000}", 0, "a code point"),
        ("\\u12", 0, "4 hexadecimal digits"),
        ("\\ud83d", 0, "half of a surrogate pair"),
        ("\\08", 0, "octal"),
        ("a\\", 2, "ends too early"),
        ("((a{900}){900}){900}", 0, "RE2 refuses it"),
    ],
)
def test_what_re2_cannot_do_is_refused_with_its_place(
    pattern: str, position: int, said: str
) -> None:
    with pytest.raises(Refused) as refused:
        compile_java(pattern)
    assert (refused.value.position, said in refused.value.reason) == (position, True), str(
        (refused.value.position, refused.value.reason)
    )


@pytest.mark.parametrize(
    "pattern", ["\\p{IsGreek}", "\\p{script=Greek}", "\\p{sc=Greek}", "\\p{Greek}"]
)
def test_scripts_have_many_spellings(pattern: str) -> None:
    assert compile_java(pattern).full["Ω"]
    assert not compile_java(pattern).full["O"]


@given(pattern=st.text("ab.*+?()[]{}|^$\\dpQEux0-9&<>:=!{L}ik,-\n", max_size=14))
@settings(deadline=None, max_examples=400)
def test_any_text_is_an_expression_or_refused(pattern: str) -> None:
    refused = None
    try:
        assert isinstance(compile_java(pattern).full["abc"], bool)
    except Refused as error:
        refused = error
    assert refused is None or (0 <= refused.position <= len(pattern) and refused.reason)


PIECES = st.sampled_from(["a", "b", "A", "\\.", "/", "-", ".*", "x", "é", "1"])
MORE = st.sampled_from(
    [
        "(a)",
        "(ab)?",
        "[ab]",
        "[^b]+",
        "a+",
        "b{2}",
        "a{0,1}",
        "\\d",
        ".",
        "(a(b)x)*",
        "^",
        "$",
        "x?",
    ]
)


@given(pattern=st.lists(PIECES, max_size=6).map("".join), text=TEXTS)
@settings(deadline=None, max_examples=300)
def test_the_short_cut_for_texts_between_stars_says_what_re2_says(pattern: str, text: str) -> None:
    compiled = compile_java(pattern)
    assert shortcuts.segments(pattern) is not None
    slow = compile_java(f"(?:{pattern})")
    assert shortcuts.segments(f"(?:{pattern})") is None
    assert compiled.full[text] is slow.full[text]


@given(pattern=st.lists(PIECES | MORE, max_size=6).map("".join), text=TEXTS)
@settings(deadline=None, max_examples=400)
def test_nothing_is_found_without_the_needle(pattern: str, text: str) -> None:
    try:
        compiled = compile_java(pattern)
    except Refused:
        return
    slow = compile_java(f"(?:{pattern})")
    assert shortcuts.needle(f"(?:{pattern})") == ""
    wanted = slow.replace_all(text, [b"<", 0, b">"], 1_000)
    assert compiled.replace_all(text, [b"<", 0, b">"], 1_000) == wanted
    assert compiled.finding[text] is (wanted is not None)


@pytest.mark.parametrize(
    ("pattern", "needle"),
    [
        ("(token=)[^&]*", "token="),
        ("abc+d", "abc"),
        ("(abc)?de", "de"),
        ("abc{0}", "ab"),
        ("a{12}345", "345"),
        ("abc|d", ""),
        ("(?i)abc", ""),
        ("[abc]d\\.e", "d.e"),
        ("x\\dyz", "yz"),
        ("\\x41bc", ""),
    ],
)
def test_needles(pattern: str, needle: str) -> None:
    assert shortcuts.needle(pattern) == needle


@pytest.mark.parametrize(
    ("pattern", "template", "text", "wanted"),
    [
        ("(a)(b)", "$2$1", "xab", "xba"),
        ("(a)", "$12", "a", "a2"),
        ("(a)(b)(c)(d)(e)(f)(g)(h)(i)(j)", "$10$1", "abcdefghij", "ja"),
        ("(a)|b", "<$1>", "ab", "<a><>"),
        ("(?<first>a)", "${first}\\${first}", "a", "a${first}"),
        ("a", "\\$0\\\\\\x", "a", "$0\\x"),
        ("a", "{{name}}{{", "a", "{{"),
        ("a", "é\U0001f600", "éa", "éé\U0001f600"),
        ("", "-", "é\U0001f600", "-é-\U0001f600-"),
        ("\\B", "-", "é", "-é-"),
        ("a*", "-", "baac", "-b--c-"),
    ],
)
def test_replacements(pattern: str, template: str, text: str, wanted: str) -> None:
    compiled = compile_java(pattern)
    parts = replacement(SPAN, template, compiled).parts_for(Subject("", "", []))
    assert compiled.replace_all(text, parts, 1_000) == wanted


def test_lone_surrogates_are_seen_as_question_marks() -> None:
    assert compile_java("a\\?b").full["a\ud800b"]
    assert compile_java("b").replace_all("a\ud800b", [b"c"], 99) == "a?c"


def test_outcomes_and_work_are_bounded() -> None:
    with pytest.raises(TooMuch):
        compile_java("a").replace_all("a" * 10, [b"b" * 10], 99)
    # Every a is a find only after the rest has been searched for a z.
    evil = compile_java("a[^z]*z|a")
    started = time.process_time()
    with pytest.raises(TooMuch):
        evil.replace_all("a" * 200_000, [b"b"], 1_000_000)
    assert time.process_time() - started < 5


def test_memory_of_answers_is_bounded() -> None:
    asked: list[str] = []
    memo = Memo(lambda text: asked.append(text) or len(text))  # type: ignore[func-returns-value]
    for index in range(5_000):
        assert memo[str(index)] == len(str(index))
        assert len(memo) <= 1_024
    assert memo["4999"] == 4
    assert len(asked) == 5_000
    assert memo["x" * 500] == 500
    assert "x" * 500 not in memo


def test_translations_that_can_be_read() -> None:
    assert translate("^async .*(?<n>x)") == (
        "^async\\x{20}[^\\n\\r\\x{85}\\x{2028}\\x{2029}]*(?P<n>x)"
    )
    assert translate("a", ignore_case=True) == "(?i)a"
    assert isinstance(compile_java("a"), Pattern)
