# SPDX-License-Identifier: GPL-2.0-only
"""Annotations: what is read, and what is refused with file and line."""

from pathlib import Path

import pytest
from packaging.version import Version

from harness.provision.build import PROGRAMS
from harness.scenarios import annotation, declarations, scenario, versions
from harness.scenarios.programs import Programs

FILE = Path("bpf_progs/x.bpf.c")
LEGAL = 'SEC("tc") __rule("r") __success __retval(0)\nint legal(struct __sk_buff *skb)\n{\n}\n'


def read(text):
    return annotation.read(text, FILE)


def only(text):
    return read(text).scenarios[0]


def test_a_success():
    case = only("/* Why,\n * in two lines. */\n" + LEGAL)
    assert (case.name, case.section, case.line, case.unit) == ("legal", "tc", 3, "")
    assert case.comment == "Why, in two lines."
    assert case.loaders == ("bcc", "libbpf")
    assert case.expectations == (scenario.Expectation("", True, retval=0),)


def test_clauses_inherit_what_stands_before_them():
    case = only(
        'SEC("tc") __rule("r") __twin(legal) __failure __errno(EINVAL)\n'
        '__kernel("<6.13") __msg("old text")\n'
        '__kernel(">=6.13") __msg("new {{(very )?}}text")\n'
        "int bad(struct __sk_buff *skb) {}\n"
    )
    old, new = case.expectation(Version("6.12.117")), case.expectation(Version("7.3.4"))
    assert (old.errno, old.messages) == ("EINVAL", ("old text",))
    assert (new.errno, new.messages) == ("EINVAL", ("new {{(very )?}}text",))


def test_a_kernel_without_a_clause_has_no_expectation():
    case = only('SEC("tc") __rule("r") __kernel(">=6.2") __success\nint late(void *c) {}\n')
    assert case.expectation(Version("6.1.176")) is None


def test_a_rule_is_declared_by_a_comment():
    (rule,) = read(
        "/*\n * Rule: Unlock before return\n * What it is,\n * and why.\n"
        ' * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)\n'
        ' * commit d402755ced2e ("bpf: Unify\n * resource leak checks") (in v6.13)\n */\n' + LEGAL
    ).rules
    assert (rule.name, rule.text) == ("Unlock before return", "What it is, and why.")
    assert rule.commits == (
        'd83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)',
        'd402755ced2e ("bpf: Unify resource leak checks") (in v6.13)',
    )


def test_a_rule_without_a_commit_is_refused():
    with pytest.raises(annotation.AnnotationError, match="bpf.c:1: the rule names no commit"):
        read("/*\n * Rule: Unlock before return\n */\n" + LEGAL)


def test_needs():
    case = only('SEC("tc") __rule("r") __needs(bpf_loop, "5.17") __success\nint f(void *c) {}\n')
    assert case.needs == (scenario.Need("bpf_loop", "5.17"),)


def test_users():
    case = only(LEGAL.replace("__success", "__user(cap_bpf+cap_net_admin) __success"))
    assert (case.user, case.user_stage) == ("cap_bpf+cap_net_admin", "prog_load")
    case = only(LEGAL.replace("__success", "__loader(libbpf) __user(nobody, map_create) __success"))
    assert (case.user, case.user_stage) == ("nobody", "map_create")


def test_units_comments_and_plain_programs():
    file = read(
        "#if UNIT(alone)\n"
        'SEC("xdp") /* not __failure */ __rule("r") __success\nint a(struct xdp_md *x) {}\n'
        "#endif\n"
        "#ifndef LOADER_BCC\n"
        'SEC("tc") __attribute__((__noinline__)) int b(struct __sk_buff *skb) {}\n'
        "#endif\n"
    )
    assert [(p.name, p.unit) for p in file.programs] == [("a", "alone"), ("b", "")]
    assert [s.name for s in file.scenarios] == ["a"]


@pytest.mark.parametrize(
    "annotations, complaint",
    [
        ('__rule("r") __faliure', "2: unknown annotation __faliure (did you mean '__failure'?)"),
        ('__rule("r")', "2: says neither __success nor __failure"),
        ("__success", '2: bad names no rule; write __rule("...")'),
        ('__rule("r") __success __failure', "2: __failure contradicts an outcome given before"),
        ('__rule("r") __failure', "2: __failure without __msg or __errno"),
        ('__rule("r") __failure __msg("  ")', "2: __msg is empty"),
        ('__rule("r") __failure __msg(text)', "2: __msg needs text in double quotes"),
        ('__rule("r") __failure __msg("{{(}}")', "2: __msg holds a bad regular expression"),
        ('__rule("r") __failure __errno(EINVAL)', "2: bad can be refused but has no __twin"),
        ('__rule("r") __failure __errno(22)', "2: __errno needs an errno by name"),
        ('__rule("r") __failure __errno(EINVAL) __retval(0)', "2: __failure contradicts __retval"),
        ('__rule("r") __success __msg("x")', "2: __success contradicts __msg"),
        ('__rule("r") __success __retval(one)', "2: __retval needs a number, not 'one'"),
        ('__rule("r") __success __retval(1) __retval(1)', "2: __retval is given twice"),
        (
            '__rule("r") __success __loader(bbc)',
            "2: __loader knows bcc, libbpf, not 'bbc' (did you mean 'bcc'?)",
        ),
        ('__rule("r") __success __loader', "2: __loader needs an argument"),
        ('__rule("r") __success()', "2: __success takes no argument"),
        ('__rule("r") __kernel("6.9+") __success', '2: __kernel needs a range such as ("<6.9")'),
        ('__rule("r") __kernel("<6.x") __success', "2: __kernel needs a range"),
        ('__rule("r") __kernel(">=7 <6") __success', "2: __kernel needs a range"),
        ('__rule("r") __kernel(">=7,<6") __success', "2: __kernel needs a range"),
        ('__rule("r") __kernel(",,") __success', "2: __kernel needs a range"),
        ('__rule("r") __kernel("===x") __success', "2: __kernel needs a range"),
        (
            '__rule("r") __failure __errno(EINVALL) __twin(good)',
            "2: __errno needs an errno by name, as in (EINVAL), not 'EINVALL' (did you mean 'EINVAL'",
        ),
        ('__rule("r") __success __retval(0x80000000)', "2: __retval needs what an int can hold"),
        ('__rule("r" __success', "2: a parenthesis that is never closed"),
        ('__rule("r") __stage(load) __failure', "2: __stage knows btf_load"),
        (
            '__rule("r") __kernel(">=6.9") __success\n__kernel(">6.8") __success',
            "3: two clauses speak about kernel 6.9",
        ),
        ('__rule("r") __success __user(root)', "2: __user knows nobody, cap_bpf"),
        ('__rule("r") __success __user(nobody+cap_bpf)', "2: __user knows cap_bpf"),
        (
            '__rule("r") __success __loader(libbpf) __user(nobody, attach)',
            "2: __user knows btf_load, map_create, prog_load, not 'attach'",
        ),
        (
            '__rule("r") __success __user(nobody, btf_load)',
            "2: only a case of libbpf can leave maps and BTF to a user",
        ),
        ('__rule("r") __success __known_bug("abc")', "2: __known_bug needs a commit and a range"),
    ],
)
def test_bad_annotations_are_named_with_file_and_line(annotations, complaint):
    with pytest.raises(annotation.AnnotationError) as error:
        read(f'\nSEC("tc") {annotations}\nint bad(struct __sk_buff *skb)\n{{\n}}\n')
    assert str(error.value).startswith(f"{FILE}:{complaint}"), error.value


def test_a_file_without_programs():
    with pytest.raises(annotation.AnnotationError, match="no program in this file"):
        read("int x;\n")


def test_names_and_twins_are_checked_across_files():
    bad = LEGAL.replace("legal", "bad").replace(
        "__success __retval(0)", '__twin(TWIN) __failure __msg("x")'
    )
    with pytest.raises(annotation.AnnotationError, match="names no scenario .did you mean 'legal'"):
        annotation.check_together([read(LEGAL), read(bad.replace("TWIN", "leagl"))])
    with pytest.raises(annotation.AnnotationError, match="must be refused itself"):
        annotation.check_together([read(bad.replace("TWIN", "bad"))])
    with pytest.raises(annotation.AnnotationError, match="is taken"):
        annotation.check_together([read(LEGAL), read(LEGAL)])


@pytest.mark.parametrize(
    "release, version",
    [("6.12.117+deb13-cloud-amd64", "6.12.117"), ("7.3-rc2", "7.3"), ("5.10.0-46-amd64", "5.10.0")],
)
def test_kernel_versions(release, version):
    assert versions.kernel_version(release) == Version(version)


def test_debian_tells_the_version_of_a_stable_kernel_in_its_banner():
    banner = (
        "Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) (gcc"
        "-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40)"
        " #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)"
    )
    assert versions.kernel_version("6.1.0-56-cloud-amd64", banner) == Version("6.1.192")


def test_the_project_s_own_files_are_sound():
    files = Programs.read(PROGRAMS).files
    assert sum(len(file.scenarios) for file in files) > 50


# -- topics ------------------------------------------------------------------------------------------


def test_a_rule_may_name_its_topic_and_has_the_version_of_its_first_commit():
    header = declarations.read("/* Topic: Lock and unlock\n * In words. */\n", Path("topics.h"))
    (topic,) = header.topics
    assert (topic.name, topic.text, topic.where) == ("Lock and unlock", "In words.", "topics.h:1")
    rule = (
        "/*\n * Rule: A rule\n * Topic: Lock and unlock\n * What it is.\n"
        ' * commit 0123456789ab ("one\n * subject") (in v6.2)\n'
        ' * commit 0123456789ac ("another") (in v5.1)\n */\n'
    )
    file = read(rule + LEGAL)
    (declared,) = file.rules
    assert (declared.topic, declared.text) == ("Lock and unlock", "What it is.")
    assert declared.since == "6.2"
    assert file.scenarios[0].comment == ""
    annotation.check_together([file], [header])
    with pytest.raises(
        annotation.AnnotationError, match="x.bpf.c:1: there is no topic 'Lock and u"
    ):
        annotation.check_together([file])
    with pytest.raises(annotation.AnnotationError, match="the topic 'Lock and unlock' is declared"):
        annotation.check_together([file], [header, header])


# -- refusals that cases share -----------------------------------------------------------------------

MISSING = """/*
 * Refusal: missing_unlock
 * EINVAL "old text"
 * since v6.13: map_create EPERM "new {{(very )?}}text"
 *     "and more"
 * Why,
 * in two lines.
 * commit d402755ced2e ("bpf: Unify resource leak checks") (in v6.13)
 */
"""
REFUSED = """SEC("tc") __rule("r") __twin(legal) ANNOTATIONS
int refused(struct __sk_buff *skb) {}
"""


def refused(annotations, declared=MISSING, **more):
    return annotation.read(declared + REFUSED.replace("ANNOTATIONS", annotations), FILE, **more)


def test_a_refusal_is_declared_once_and_used_by_name():
    file = refused("__refused(missing_unlock)")
    (case,), (refusal,) = file.scenarios, file.declared.refusals
    assert case.refusals == ("missing_unlock",) and refusal.where == f"{FILE}:1"
    assert refusal.text == "Why, in two lines."
    assert refusal.commits == ('d402755ced2e ("bpf: Unify resource leak checks") (in v6.13)',)
    assert case.expectations == (
        scenario.Expectation("<6.13", False, "prog_load", "EINVAL", ("old text",)),
        scenario.Expectation(
            ">=6.13", False, "map_create", "EPERM", ("new {{(very )?}}text", "and more")
        ),
    )


def test_a_clause_takes_the_texts_of_its_kernels():
    case = refused(
        '__kernel("<6.2") __success __kernel(">=6.2,<6.14") __refused(missing_unlock)'
        ' __kernel(">=6.14") __failure __errno(EACCES)'
    ).scenarios[0]
    said = [(e.kernels, e.accepted, e.errno) for e in case.expectations]
    assert said == [
        ("<6.2", True, None),
        (">=6.2,<6.13", False, "EINVAL"),
        (">=6.13,<6.14", False, "EPERM"),
        (">=6.14", False, "EACCES"),
    ]
    case = refused('__kernel(">=6.14") __refused(missing_unlock)').scenarios[0]
    assert [e.kernels for e in case.expectations] == [">=6.14"]


def test_a_new_text_is_one_new_line():
    changed = MISSING.replace(" * Why,", ' * since v7.4: EINVAL "newest text"\n * Why,')
    case = refused("__refused(missing_unlock)", changed).scenarios[0]
    assert case.expectation(Version("7.3.4")).messages == ("new {{(very )?}}text", "and more")
    assert case.expectation(Version("7.4")).messages == ("newest text",)


def test_a_stable_kernel_may_have_a_text_of_its_own():
    texts = "/* Refusal: x\n * E2BIG\n * since v6.12.108: EINVAL\n * since v6.13: EPERM */\n"
    case = refused("__refused(x)", texts).scenarios[0]
    said = [case.expectation(Version(v)).errno for v in ("6.12.107", "6.12.108", "6.12.999", "7.3")]
    assert said == ["E2BIG", "EINVAL", "EINVAL", "EPERM"]


@pytest.mark.parametrize(
    "annotations, complaint",
    [
        (
            "__refused(mising_unlock)",
            "10: __refused needs a refusal that this file or a header declares, which"
            " 'mising_unlock' is not (did you mean 'missing_unlock'?)",
        ),
        ("__refused", "10: __refused needs an argument"),
        ('__refused("x y")', "10: __refused needs one word"),
        ("__success __refused(missing_unlock)", "10: __refused contradicts an outcome"),
        ("__refused(missing_unlock) __failure", "10: __failure contradicts an outcome"),
        (
            "__refused(missing_unlock) __errno(EINVAL)",
            "10: __refused(missing_unlock) says all of the refusal: leave out __stage",
        ),
        (
            '__refused(missing_unlock) __kernel("<6.2") __success',
            "10: __refused(missing_unlock) contradicts __success",
        ),
        (
            '__kernel("<6.2") __success __kernel("<6.9") __refused(missing_unlock)',
            "10: two clauses speak about kernel 5.0",
        ),
    ],
)
def test_a_bad_use_of_a_refusal_is_named_with_file_and_line(annotations, complaint):
    with pytest.raises(annotation.AnnotationError) as error:
        refused(annotations)
    assert str(error.value).startswith(f"{FILE}:{complaint}"), error.value


@pytest.mark.parametrize(
    "texts, complaint",
    [
        ("", "what is said of the refusal x comes first"),
        ("Why.\n * EINVAL", "what is said of the refusal x comes first"),
        ("EINVAL\n * Why.\n * since v6.2: EPERM", "what is said of the refusal x comes first"),
        ("EINVAL\n * since 6.2: EPERM", "'since 6.2: EPERM' is no text of a refusal; write one as"),
        ('EINVAL "a" b', "what is said of the refusal x comes first"),
        ("EINVALL", "there is no EINVALL (did you mean 'EINVAL'?)"),
        ("map_creat EINVAL", "there is no map_creat (did you mean 'map_create'?)"),
        ('EINVAL ""', "a text of the refusal is empty"),
        ('EINVAL "{{(}}"', "a text of the refusal holds a bad regular expression"),
        # a gap, and three overlaps
        ("since v6.2: EINVAL", "the refusal x has no text for kernels before v6.2"),
        ("EINVAL\n * EPERM", "the refusal x has two texts for the first kernels"),
        (
            "EINVAL\n * since v6.2: EPERM\n * since v6.2: E2BIG",
            "the refusal x has two texts for kernels since v6.2",
        ),
        (
            "EINVAL\n * since v6.13: EPERM\n * since v6.2: E2BIG",
            "the refusal x has two texts for kernels since v6.2",
        ),
    ],
)
def test_a_bad_declaration_of_a_refusal_is_named_with_file_and_line(texts, complaint):
    with pytest.raises(annotation.AnnotationError) as error:
        refused("__refused(x)", f"\n/*\n * Refusal: x\n * {texts}\n */\n")
    assert str(error.value).startswith(f"{FILE}:2: {complaint}"), error.value


def test_a_refusal_has_one_word_for_a_name():
    with pytest.raises(
        annotation.AnnotationError, match="one word for a name, not .missing unlock"
    ):
        refused("__refused(x)", "/* Refusal: missing unlock\n * EINVAL */\n")


def test_a_refusal_is_declared_once_and_not_in_vain():
    used = refused("__refused(missing_unlock)")
    legal, header = read(LEGAL), declarations.read(MISSING, Path("bpf_progs/include/refusals.h"))
    annotation.check_together([legal, used])
    with pytest.raises(annotation.AnnotationError, match="'missing_unlock' is declared at"):
        annotation.check_together([legal, used], [header])
    with pytest.raises(
        annotation.AnnotationError, match="^bpf_progs/include/refusals.h:1: no case is ref"
    ):
        annotation.check_together([legal], [header])


def test_a_header_declares_refusals_for_all_files(tmp_path):
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "refusals.h").write_text(MISSING)
    case = REFUSED.replace("ANNOTATIONS", "__refused(missing_unlock)")
    (tmp_path / "one.bpf.c").write_text(LEGAL + case)
    assert Programs.read(tmp_path).scenarios()[1].refusals == ("missing_unlock",)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "two.bpf.c").write_text(LEGAL + case)
    with pytest.raises(annotation.AnnotationError, match="needs a refusal that this file or a h"):
        Programs.read(elsewhere)
    read_too = Programs.read(elsewhere, tmp_path)
    assert read_too.scenarios()[1].refusals == ("missing_unlock",)


def test_a_refusal_may_be_asked_of_no_case_where_it_is_not_of_this_directory(tmp_path):
    (tmp_path / "one.bpf.c").write_text(LEGAL)
    assert len(Programs.read(tmp_path, PROGRAMS).scenarios()) == 1


@pytest.mark.parametrize(
    "one, other, both",
    [
        ("", "", ""),
        ("<6.13", "", "<6.13"),
        ("<6.13", "<6.9", "<6.9"),
        (">=6.2,<6.13", ">=5.15", ">=6.2,<6.13"),
        (">=6.2,<6.13", ">=6.4,<7.0", ">=6.4,<6.13"),
        ("<6.2", ">=6.9", "<6.2,>=6.9"),  # none is in both
    ],
)
def test_ranges_meet(one, other, both):
    assert sorted(versions.meet(one, other).split(",")) == sorted(both.split(","))
    assert versions.is_range(versions.meet(one, other)) == (">=6.9" not in both)
