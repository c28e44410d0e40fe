"""Every bad file is either accepted or named by file, line, value and remedy; no message holds a post's text."""

import bz2
import csv
import gzip
import io
import lzma
import os
import shlex
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from redsm5.data import csvfile
from redsm5.data.csvfile import rows
from redsm5.data.posts import SYMPTOMS, Span
from redsm5.data.read import ANNOTATIONS_FILE, POSTS_FILE, read_corpus, stream_posts
from redsm5.engine.errors import InputError

SAMPLE = Path(__file__).parents[2].parent / "shared/data/redsm5_sample"

SECRET = "A secret sentence, nobody's business."
POSTS = f'post_id,text\na,"{SECRET} I am tired. Bye."\nb,Nothing here.\n'
ANNOTATIONS = (
    "post_id,sentence_id,sentence_text,DSM5_symptom,status,explanation\n"
    "a,a_1,I am tired.,FATIGUE,1,says so\n"
    "b,b_0,Nothing here.,ANHEDONIA,0,\n"
)


@pytest.fixture
def read(tmp_path):
    def read(posts=POSTS, annotations=ANNOTATIONS):
        for name, content in ((POSTS_FILE, posts), (ANNOTATIONS_FILE, annotations)):
            if content is not None:
                (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_corpus(tmp_path)

    return read


def label(post, symptom):
    return post.labels[SYMPTOMS.index(symptom)]


# ---------------------------------------------------------------------------------------------------------------------
# what is read


def test_labels_and_spans_come_from_the_status(read):
    a, b = read().posts
    assert (a.post_id, b.post_id) == ("a", "b")
    assert sum(a.labels) == label(a, "FATIGUE") == 1
    assert [a.text[s.start : s.end] for s in a.evidence] == ["I am tired."]
    assert a.evidence[0].symptom == SYMPTOMS.index("FATIGUE")
    assert sum(b.labels) == 0
    assert b.negatives == (Span(SYMPTOMS.index("ANHEDONIA"), 0, 13),)


def test_counts_add_up(read):
    counts = read().counts
    assert counts["posts"] == 2
    assert counts["posts_without_symptom"] == 1
    assert counts["annotations"] == 2
    assert counts["evidence"] == counts["aligned_exact"] == 1
    assert counts["hard_negatives"] == 1
    rest = ("aligned_normalized", "aligned_fuzzy", "unaligned", "special_case", "contradictions")
    assert not any(counts[name] for name in (*rest, "duplicate_annotations", "hard_negatives_unaligned"))


def test_a_sentence_that_is_not_in_the_post_is_counted_and_its_label_stands(read):
    corpus = read(annotations=ANNOTATIONS.replace("I am tired.", "Quite another matter altogether"))
    assert label(corpus.posts[0], "FATIGUE") == 1
    assert corpus.posts[0].evidence == ()
    assert corpus.counts["unaligned"] == 1


def test_a_sentence_may_have_two_symptoms(read):
    corpus = read(annotations=ANNOTATIONS + "a,a_1,I am tired.,SLEEP_ISSUES,1,\n")
    assert [SYMPTOMS[span.symptom] for span in corpus.posts[0].evidence] == ["FATIGUE", "SLEEP_ISSUES"]


def test_special_case_is_counted_and_no_criterion(read):
    corpus = read(annotations=ANNOTATIONS + "b,b_0,Nothing here.,SPECIAL_CASE,1,\n")
    assert sum(corpus.posts[1].labels) == 0
    assert corpus.counts["special_case"] == 1


@pytest.mark.parametrize("order", [1, -1])
def test_a_contradiction_counts_as_present_in_whatever_order(read, order):
    rows = ["a,a_1,I am tired.,FATIGUE,1,\n", "a,a_1,I am tired.,FATIGUE,0,\n"]
    corpus = read(annotations=ANNOTATIONS.splitlines(keepends=True)[0] + "".join(rows[::order]))
    assert label(corpus.posts[0], "FATIGUE") == 1
    assert corpus.posts[0].negatives == ()
    assert corpus.counts["contradictions"] == 1


def test_the_order_of_rows_does_not_matter(read):
    head, *rows = ANNOTATIONS.splitlines(keepends=True)
    more = [*rows, "a,a_2,Bye.,SLEEP_ISSUES,1,\n", "a,a_1,I am tired.,ANHEDONIA,1,\n"]
    posts_head, *posts_rows = POSTS.splitlines(keepends=True)
    assert read(annotations=head + "".join(more)) == read(
        posts=posts_head + "".join(reversed(posts_rows)), annotations=head + "".join(reversed(more))
    )


# ---------------------------------------------------------------------------------------------------------------------
# what is harmless


@pytest.mark.parametrize(
    ("posts", "annotations"),
    [
        ("\ufeff" + POSTS, "\ufeff" + ANNOTATIONS),
        (POSTS.replace("\n", "\r\n"), ANNOTATIONS.replace("\n", "\r\n")),
        (POSTS.replace("post_id,text", " post_id , text"), ANNOTATIONS),
        (POSTS.replace("\na,", "\n a ,"), ANNOTATIONS.replace("\nb,", "\nb ,")),
        (POSTS, ANNOTATIONS.replace(",says so", ",NaN")),
        (POSTS, ANNOTATIONS.replace(",says so", ",").replace("FATIGUE", " fatigue ")),
        (POSTS, ANNOTATIONS.replace(",1,", ",1.0,").replace(",0,", ",0.0,")),
        (POSTS + "\n\n", ANNOTATIONS + ",,,,,\n"),
        (POSTS.removesuffix("\n"), ANNOTATIONS.removesuffix("\n")),
    ],
    ids=[
        "bom",
        "crlf",
        "header_spaces",
        "id_spaces",
        "nan_explanation",
        "lower_case",
        "float_status",
        "blank_rows",
        "no_last_newline",
    ],
)
def test_harmless_differences_give_the_same_corpus(read, posts, annotations):
    assert read(posts, annotations) == read()


def test_additional_columns_and_a_missing_explanation_are_accepted(read):
    posts = "\n".join(line + ",x" for line in POSTS.splitlines())
    annotations = "\n".join(line.rpartition(",")[0] for line in ANNOTATIONS.splitlines())
    assert read(posts, annotations) == read()


def test_repeated_rows_are_counted_once(read):
    corpus = read(annotations=ANNOTATIONS + ANNOTATIONS.splitlines(keepends=True)[1])
    assert corpus.counts["duplicate_annotations"] == 1
    assert corpus.counts["evidence"] == 1


def test_a_line_break_within_a_text_is_the_same_from_windows(read):
    posts = POSTS.replace("I am tired. Bye", "I am\ntired. Bye")
    assert read(posts.replace("\n", "\r\n")) == read(posts)
    assert read(posts).counts["aligned_normalized"] == 1


def test_a_post_longer_than_the_csv_modules_limit_is_read(read):
    text = "word " * 100_000 + "I am tired."
    corpus = read(posts=f"post_id,text\na,{text}\nb,Nothing here.\n")
    assert corpus.posts[0].text == text
    assert corpus.counts["aligned_exact"] == 1


def separated(content, separator):
    """The same records with another separator."""
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator="\n").writerows(csv.reader(io.StringIO(content)))
    return out.getvalue()


@pytest.mark.parametrize("declared", ["", "sep=X\n", '"sep=X"\r\n', "\n SEP=X \n"])
@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
def test_another_separator_is_read_and_excel_may_declare_it(read, separator, declared):
    first = declared.replace("X", separator)
    posts, annotations = (first + separated(content, separator) for content in (POSTS, ANNOTATIONS))
    assert read(posts, annotations) == read(posts, ANNOTATIONS) == read()


def test_a_separator_that_is_declared_and_not_used_does_no_harm(read):
    assert read("sep=;\n" + POSTS, "sep=:\n" + ANNOTATIONS) == read()
    assert read("sep=:\n" + POSTS.replace("id,", "id:").replace("\na,", "\na:").replace("\nb,", "\nb:")) == read()


def test_lines_are_counted_from_the_first_line_of_the_file_though_it_declares_the_separator(read):
    bad = "sep=;\n" + separated(ANNOTATIONS + "a,a_1,Hm.,FATIGUE,2,\n", ";")
    check_refusal(lambda: read(annotations=bad), f"{ANNOTATIONS_FILE}, line 5: ", "unknown status '2'", "0")


# ---------------------------------------------------------------------------------------------------------------------
# what is refused

BAD_POSTS = {
    "missing_column": (POSTS.replace("post_id,text", "post_id,body"), 1, "column text is missing", "post_id, text"),
    "no_header": (POSTS.split("\n", 1)[1], 1, "column post_id is missing", "first line"),
    "column_twice": ("text,post_id,text\n" + "x,a,y\n", 1, "column text occurs twice", "first line"),
    "duplicate_id": (POSTS + "a,Once more.\n", 4, "post_id 'a' occurs twice, first in line 2", "Remove one"),
    "empty_text": (POSTS + 'c,"  "\n', 4, "text is empty", "Fill in text"),
    "nan_text": (POSTS + "c,NaN\n", 4, "text is a placeholder for a missing value", "Fill in text"),
    "empty_id": (POSTS + ",Some text\n", 4, "post_id is empty", "Fill in post_id"),
    "latin1": (POSTS.encode() + "c,caf\xe9\n".encode("latin-1"), 4, "byte 0xe9 is not UTF-8", "Save the file as UTF-8"),
    "nul": (POSTS + "c,nu\0l\n", 4, "a NUL byte", "Remove it: tr -d '\\000' <"),
    "too_many_fields": (POSTS + f"c,{SECRET},more\n", 4, "4 fields, the header has 2", "commas"),
    "too_few_fields": (POSTS + "c\n", 4, "1 fields, the header has 2", "commas"),
    "open_quote": (POSTS + f'c,"{SECRET}\nd,and so on\n', 4, "never closed", "quotes"),
    "text_after_quote": (POSTS + f'c,"{SECRET}" he said\n', 4, "text follows a closing quote", "double the quotes"),
    "line_after_multiline_record": ('post_id,text\na,"one\ntwo\nthree"\nb,\n', 5, "text is empty", "Fill in text"),
}


@pytest.mark.parametrize("case", BAD_POSTS)
def test_bad_posts_are_refused_by_file_line_value_and_remedy(read, case):
    posts, line, what, remedy = BAD_POSTS[case]
    check_refusal(lambda: read(posts=posts), f"{POSTS_FILE}, line {line}: ", what, remedy)


BAD_ANNOTATIONS = {
    "missing_column": (ANNOTATIONS.replace("status", "state"), 1, "column status is missing", "DSM5_symptom, status"),
    "unknown_post": (ANNOTATIONS + "z,z_1,Hm.,FATIGUE,1,\n", 4, f"post_id 'z' is not in {POSTS_FILE}", "same release"),
    "unknown_symptom": (ANNOTATIONS + "a,a_1,Hm.,FATIQUE,1,\n", 4, "DSM5_symptom 'FATIQUE'", "Did you mean FATIGUE?"),
    "empty_symptom": (ANNOTATIONS + "a,a_1,Hm.,,1,\n", 4, "DSM5_symptom is empty", "Fill in DSM5_symptom"),
    "label_from_nothing": (
        ANNOTATIONS + "a,a_1,Hm.,QQQ,1,\n",
        4,
        "3 characters, not shown",
        "Known are DEPRESSED_MOOD",
    ),
    "unknown_status": (ANNOTATIONS + "a,a_1,Hm.,FATIGUE,2,\n", 4, "unknown status '2'", "1 (symptom present) or 0"),
    "empty_status": (ANNOTATIONS + "a,a_1,Hm.,FATIGUE,,\n", 4, "unknown status ''", "1 (symptom present) or 0"),
    "empty_sentence": (ANNOTATIONS + "a,a_1,,FATIGUE,1,\n", 4, "sentence_text is empty", "Fill in sentence_text"),
    "columns_swapped": (ANNOTATIONS + f'a,a_1,FATIGUE,"{SECRET}",1,\n', 4, "37 characters, not shown", "SPECIAL_CASE"),
    "id_swapped": (ANNOTATIONS + f'"{SECRET}",a_1,Hm.,FATIGUE,1,\n', 4, "37 characters, not shown", "same release"),
    "semicolons_too_many": (
        ANNOTATIONS.replace(",", ";") + "a;a_1;Hm.;FATIGUE;1;;\n",
        4,
        "7 fields, the header has 6",
        "contain semicolons",
    ),
    "short_row": (ANNOTATIONS + "a,a_1,Hm.,FATIGUE,1\n", 4, "5 fields, the header has 6", "commas"),
    "broken_utf8": (ANNOTATIONS.encode().replace(b"says so", b"\xff"), 2, "byte 0xff is not UTF-8", "UTF-8"),
}


@pytest.mark.parametrize("case", BAD_ANNOTATIONS)
def test_bad_annotations_are_refused_by_file_line_value_and_remedy(read, case):
    annotations, line, what, remedy = BAD_ANNOTATIONS[case]
    check_refusal(lambda: read(annotations=annotations), f"{ANNOTATIONS_FILE}, line {line}: ", what, remedy)


def check_refusal(action, where, what, remedy):
    with pytest.raises(InputError) as caught:
        action()
    error = caught.value
    assert where in error.message()
    assert what in error.what
    assert remedy in error.remedy
    assert error.exit_code == 1
    # Neither the message nor the chain that a log would print may hold a post's words.
    while caught is not None and error is not None:
        assert "secret" not in str(error)
        error = error.__cause__ if error.__cause__ or error.__suppress_context__ else error.__context__


def workbook():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/sharedStrings.xml", SECRET)
    return out.getvalue()


FOREIGN = {
    "xlsx": (workbook(), "an Excel workbook", "Save it as CSV UTF-8"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + POSTS.encode(), "an Excel workbook (.xls)", "Save it as CSV UTF-8"),
    "gzip": (gzip.compress(POSTS.encode()), "compressed with gzip", "gunzip"),
    "bzip2": (bz2.compress(POSTS.encode()), "compressed with bzip2", "bunzip2"),
    "xz": (lzma.compress(POSTS.encode()), "compressed with xz", "unxz"),
    "zstd": (b"\x28\xb5\x2f\xfd" + POSTS.encode(), "compressed with zstd", "unzstd"),
    "parquet": (b"PAR1\x15\0" + POSTS.encode(), "a Parquet file", "as CSV UTF-8"),
    "pdf": (b"%PDF-1.7\n" + POSTS.encode(), "a PDF document", "CSV UTF-8"),
    "utf16": (POSTS.encode("utf-16"), "in UTF-16", "iconv -f UTF-16 -t UTF-8"),
    "utf16_be_mark": (b"\xfe\xff" + POSTS.encode("utf-16-be"), "in UTF-16", "iconv -f UTF-16 -t UTF-8"),
    "utf16_le_unmarked": (POSTS.encode("utf-16-le"), "in UTF-16LE", "iconv -f UTF-16LE -t UTF-8"),
    "utf16_be_unmarked": (POSTS.encode("utf-16-be"), "in UTF-16BE", "iconv -f UTF-16BE -t UTF-8"),
    "utf32": (POSTS.encode("utf-32"), "in UTF-32", "iconv -f UTF-32 -t UTF-8"),
    "html": (f"\n<!DOCTYPE html><html><p>{SECRET}".encode(), "an HTML or XML page", "Download the file itself"),
    "json": (b'{"error": "a secret"}', "JSON", "Download the file itself"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 9\n", "a pointer of Git LFS", "lfs pull"),
    "zeros": (b"\0" * 4096, "nothing but NUL bytes", "copy or export it again"),
}


@pytest.mark.parametrize("case", FOREIGN)
@pytest.mark.parametrize("name", ["posts", "annotations"])
def test_what_only_bears_the_name_csv_is_named_with_what_to_do(read, case, name):
    content, what, remedy = FOREIGN[case]
    file = POSTS_FILE if name == "posts" else ANNOTATIONS_FILE
    check_refusal(lambda: read(**{name: content}), f"{file}: ", f"the file is {what}", remedy)


@pytest.mark.parametrize(
    "case", ["gzip", "bzip2", "xz", "utf16", "utf16_le_unmarked", "utf16_be_unmarked", "utf32", "nul"]
)
def test_the_command_of_the_remedy_makes_the_file_readable(read, tmp_path, case):
    folder = tmp_path / "it's a folder; true"
    folder.mkdir()
    (folder / ANNOTATIONS_FILE).write_text(ANNOTATIONS)
    broken = (POSTS + "\0").encode() if case == "nul" else FOREIGN[case][0]
    (folder / POSTS_FILE).write_bytes(broken)
    with pytest.raises(InputError) as caught:
        read_corpus(folder)
    command = caught.value.remedy.partition(": ")[2]
    assert shlex.quote(str(folder / POSTS_FILE)) in command
    subprocess.run(command, shell=True, check=True)
    assert read_corpus(folder) == read()


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path):
    (tmp_path / ANNOTATIONS_FILE).write_text(ANNOTATIONS)
    os.mkfifo(tmp_path / POSTS_FILE)
    check_refusal(lambda: read_corpus(tmp_path), POSTS_FILE, "not a regular file", "Put the CSV file itself there")


# ---------------------------------------------------------------------------------------------------------------------
# ids that are almost others

IDS = "post_id,text\ns_12_3,One.\n7,Two.\n" + "t\u200b9,Three.\n" + "x_1,Four.\nX_1,Five.\n"


@pytest.mark.parametrize(
    ("given", "shown", "near"),
    [
        ("007", "'007'", "'7'"),
        ("7.0", "'7.0'", "'7'"),
        ("s_012_3", "'s_012_3'", "'s_12_3'"),
        ("s_12_3\u200b", r"'s_12_3\u200b'", "'s_12_3'"),
        ("\ufeffs_12_3", r"'\ufeffs_12_3'", "'s_12_3'"),
        ("s_12\u00a0_3", r"'s_12\xa0_3'", "'s_12_3'"),
        ("S_12_3", "'S_12_3'", "'s_12_3'"),
        ("'s_12_3'", "\"'s_12_3'\"", "'s_12_3'"),
        ('"""s_12_3"""', "'\"s_12_3\"'", "'s_12_3'"),
        ("“s_12_3”", r"'\u201cs_12_3\u201d'", "'s_12_3'"),
        ("ｓ_12_3", r"'\uff53_12_3'", "'s_12_3'"),
        ("t9", "'t9'", r"'t\u200b9'"),
    ],
)
def test_an_id_that_is_almost_another_is_shown_escaped_beside_it(read, given, shown, near):
    head = ANNOTATIONS.splitlines(keepends=True)[0]
    what = f"post_id {shown} is not in {POSTS_FILE}; nearest: {near}"
    bad = f"{head}{given},x_1,One.,FATIGUE,1,\n"
    check_refusal(lambda: read(IDS, bad), f"{ANNOTATIONS_FILE}, line 2: ", what, "the same spelling")


def test_an_id_of_the_same_form_is_shown_and_one_that_is_like_no_other_has_no_nearest(read):
    with pytest.raises(InputError) as caught:
        read(IDS, ANNOTATIONS.splitlines(keepends=True)[0] + "s_13_3,x_1,One.,FATIGUE,1,\n")
    assert caught.value.what == f"post_id 's_13_3' is not in {POSTS_FILE}"


# ---------------------------------------------------------------------------------------------------------------------
# no message holds a post's text


def test_a_label_is_never_guessed_from_nothing(read):
    wrong = [
        "RESTLESSNESS",
        "HOPELESSNESS",
        "INSOMNIA",
        "SADNESS",
        "MELANCHOLIA",
        "PSYCHOSIS",
        "WEIGHT_CHANGE",
        "Q",
        "?",
    ]
    for label in wrong:
        with pytest.raises(InputError) as caught:
            read(annotations=ANNOTATIONS + f"a,a_1,Hm.,{label},1,\n")
        assert "Did you mean" not in caught.value.message(), label
    for label, meant in {"fatigues": "FATIGUE", "SLEEP": "SLEEP_ISSUES", "DEPRESED_MOOD": "DEPRESSED_MOOD"}.items():
        with pytest.raises(InputError, match=f"Did you mean {meant}?"):
            read(annotations=ANNOTATIONS + f"a,a_1,Hm.,{label},1,\n")


# Words that stand in no message of ours.
WORDS = ("zorblax", "quimby", "wexford", "Plumbus", "9lives", "GRAV_LAX", "o'vexx", "zweißig", "x2y")
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
ID, LABEL = st.sampled_from(["s_1_1", "s_2_1", "s_3_1"]), st.sampled_from([*SYMPTOMS[:2], "fatique", "", "nan"])
CELLS = {
    "post_id": ID,
    "sentence_id": ID,
    "sentence_text": TEXTS,
    "DSM5_symptom": LABEL,
    "status": st.sampled_from("012"),
}
POST_CELLS = {"post_id": ID, "text": TEXTS}


@st.composite
def shaken(draw, cells):
    """A file whose header is missing, doubled or in another order, and some of whose rows are shifted or exchanged."""
    names = list(cells)
    header = draw(st.sampled_from([names, names, names[::-1], names[1:] + names[:1], None]))
    lines = [] if header is None else [header]
    for _ in range(draw(st.integers(1, 4))):
        row = [draw(cells[name]) for name in names]
        turn = draw(st.sampled_from([0, 0, 1, 2]))
        row = row[turn:] + row[:turn]
        lines.append(draw(st.sampled_from([row, row, row[::-1], row[1:], [*row, draw(TEXTS)]])))
    separator = draw(st.sampled_from([",", ",", ";"]))
    quote = draw(st.sampled_from(["", '"', "'", ' "']))
    return "\n".join(separator.join(f"{quote}{cell}{quote}" for cell in line) for line in lines) + "\n"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(posts=shaken(POST_CELLS), annotations=shaken(CELLS))
@example(
    "post_id,text\ns_1_1,quimby grav_lax\n",
    "post_id,sentence_id,sentence_text,DSM5_symptom,status\n" "s_1_1,s_1,FATIGUE,GRAV_LAX,1\n",
)
@example("text,post_id\ns_1_1,quimby\ns_2_1,quimby\n", ANNOTATIONS)
@example("text,post_id\ns_1_1,9lives\ns_2_1,9lives\n", ANNOTATIONS)
@example("post_id,text\ns_1_1,quimby\n", ANNOTATIONS.splitlines(keepends=True)[0] + "9lives,s_1,quimby,FATIGUE,1,\n")
@example(
    "text,post_id\ns_1_1,wexford 9lives\n",
    "sentence_text,sentence_id,post_id,DSM5_symptom,status\ns_1_1,s_1,WEXFORD 9LIVES,FATIGUE,1\n",
)
def test_no_word_of_a_post_stands_in_a_message(read, posts, annotations):
    message = ""
    try:
        read(posts, annotations)
    except InputError as error:
        message = error.message().casefold()
    assert [word for word in WORDS if word.casefold() in message] == []


@pytest.mark.parametrize(("posts", "what"), [("", "empty"), ("post_id,text\n", "no posts"), ("\n\n", "empty")])
def test_a_file_without_posts_is_refused(read, posts, what):
    check_refusal(lambda: read(posts=posts), POSTS_FILE, what, "")


def test_posts_without_any_annotation_are_read(read):
    corpus = read(annotations=ANNOTATIONS.splitlines(keepends=True)[0])
    assert corpus.counts["posts_without_symptom"] == 2


@pytest.mark.parametrize("missing", [POSTS_FILE, ANNOTATIONS_FILE])
def test_a_missing_file_is_named(read, missing):
    files = {"posts": None} if missing == POSTS_FILE else {"annotations": None}
    check_refusal(lambda: read(**files), missing, "the file is missing", "data.dir")


def test_a_missing_folder_is_named(tmp_path):
    check_refusal(lambda: read_corpus(tmp_path / "gone"), str(tmp_path / "gone"), "does not exist", POSTS_FILE)


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    (tmp_path / POSTS_FILE).mkdir(mode=stat.S_IRWXU)
    check_refusal(lambda: read_corpus(tmp_path), POSTS_FILE, "cannot be read", "permissions")


# ---------------------------------------------------------------------------------------------------------------------
# the authors' sample


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the public sample of ReDSM5 is not beside this checkout")
def test_the_authors_sample_is_read_and_nothing_is_lost_silently():
    corpus = read_corpus(SAMPLE)
    with (SAMPLE / ANNOTATIONS_FILE).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    counts = corpus.counts
    assert counts["posts"] == 17
    assert counts["annotations"] == len(rows) == counts["evidence"] + counts["hard_negatives"] == 25
    aligned = counts["aligned_exact"] + counts["aligned_normalized"] + counts["aligned_fuzzy"]
    assert aligned == sum(len(post.evidence) for post in corpus.posts)
    assert aligned + counts["unaligned"] == counts["evidence"] == sum(row["status"] == "1" for row in rows)
    present = {(row["post_id"], row["DSM5_symptom"]) for row in rows if row["status"] == "1"}
    assert {(p.post_id, s) for p in corpus.posts for s in SYMPTOMS if label(p, s)} == present


# ---------------------------------------------------------------------------------------------------------------------
# streams


def streamed(content, path=Path("posts.csv")):
    """What `stream_posts` gives for these bytes; the error's place and fault in its place."""
    found = stream_posts(io.BytesIO(content), path)
    return [(each.where, each.what) if isinstance(each, InputError) else each for each in found]


@pytest.mark.parametrize(
    "content",
    [
        b"post_id,text\na,one\nb,two\n",
        b"\xef\xbb\xbfpost_id,text\r\na,one\r\nb,two",
        b"sep=;\ntext;post_id;more\none;a;x\n\ntwo; b ;y\n",
        b"\n\npost_id\ttext\ra\tone\r\r\rb\ttwo\r",
        b'"post_id"|"text"\n"a"|"one"\n"b"|"two"\n',
    ],
)
def test_a_stream_reads_every_dialect_that_a_file_may_have(content, tmp_path):
    assert streamed(content) == [("a", "one"), ("b", "two")]
    (tmp_path / "posts.csv").write_bytes(content)
    whole = [(row["post_id"].strip(), row["text"]) for _, row in rows(tmp_path / "posts.csv", ("post_id", "text"))]
    assert whole == streamed(content)


def test_a_stream_names_malformed_rows_and_goes_on():
    content = (
        b'post_id,text\na,"x\ny"\nb\nc,"q" r\nd,\xe4\xff\ne,n\0\nf,nan\n,z\ng,"quote ""in"" it"\nh,"never closed\ni,k\n'
    )
    found = streamed(content)
    assert [each for each in found if len(each) == 2 and not each[0].startswith("posts.csv")] == [
        ("a", "x\ny"),
        ("g", 'quote "in" it'),
    ]
    faults = {int(where.rpartition(" ")[2]): what for where, what in found if where.startswith("posts.csv")}
    assert [*faults] == [4, 5, 6, 7, 8, 9, 11]
    for line, part in ((4, "1 fields"), (5, "closing quote"), (6, "0xe4"), (7, "NUL"), (8, "missing value")):
        assert part in faults[line]
    assert faults[9] == "post_id is empty"
    assert "never closed" in faults[11]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b"a post without a header\n", "column post_id is missing"),
        (b"post_id,post_id,text\na,b,c\n", "column post_id occurs twice"),
        (b"PK\x03\x04rest", "an Excel workbook"),
        ("post_id,text\na,b\n".encode("utf-16"), "in UTF-16"),
    ],
)
def test_a_stream_that_is_no_table_of_posts_is_refused(content, told):
    with pytest.raises(InputError, match=told) as caught:
        streamed(content)
    assert "without a header" not in caught.value.message()


def test_a_field_without_end_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(csvfile, "MAX_FIELD", 1000)
    content = b'post_id,text\na,"' + b"x" * 5000 + b"\n" + b"b,y\n" * 3
    found = streamed(content)
    assert "more than 1000 characters" in found[0][1]
    assert found[-1] == ("b", "y")
