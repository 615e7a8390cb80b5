"""The texts of interventions on routing: read and written alike, bad ones are told with the grammar."""

import time
from contextlib import suppress

from checks import refusal
from routing_data import EVERY_KIND

from mop.common.errors import InputError
from mop.common.intervention_grammar import GRAMMAR, Intervention, parse, parse_variants


def test_texts_are_read_and_written_alike():
    for text in EVERY_KIND:
        assert str(parse(text)) == text == str(parse(f"  {text} "))
    assert parse("clamp 1.20 =.5") == Intervention("clamp", 1, 20, value=0.5)
    assert parse("threshold 5e-2 in door unlocked") == Intervention("threshold", value=0.05, phase="door unlocked")
    assert parse("swap a in b/c d.pt").file == "a in b/c d.pt"
    joined = "argmax+lesion 1.2 + mean 0+ lesion 0.1 in a + b"
    assert str(parse(joined)) == "lesion 0.1 + lesion 1.2 + mean 0 + argmax in a + b"
    assert parse_variants("zeroed, gate-only,zeroed") == ["zeroed", "gate-only"]


def test_a_bad_text_is_told_with_the_grammar():
    bad = ["", "lesion", "lesion 1", "lesion 1.2.3", "lesion 01.2", "lesion -1.2", "lesions 1.2", "LESION 1.2"]
    bad += ["clamp 1.2", "clamp 1.2=1.5", "clamp 1.2=nan", "threshold 2", "threshold x", "argmax 1", "mean", "swap"]
    bad += ["none + argmax", "argmax + swap x", "argmax +", "+ argmax", "argmax ++ mean 0", "argmax argmax"]
    bad += ["none in carrying", "uniform 1.2", "lesion 1.2 in", "lesion 1.2 during x", "lesion 9e9.1"]
    for text in bad:
        assert GRAMMAR in refusal(parse, text), text
    for text in (
        "lesion 1.2 + clamp 1.2=0.5",
        "mean 0 + uniform 0",
        "argmax + threshold 0.1",
        "lesion 1.2 + lesion 1.2",
    ):
        refusal(parse, text)
    refusal(parse_variants, "gone")


def test_a_text_of_spaces_takes_no_time():
    start = time.process_time()
    for text in (f"lesion<{' ' * 40_000}>x", f"lesion 1.2{' ' * 40_000}in{' ' * 40_000}a", f"lesion{' ' * 40_000}1.2"):
        with suppress(InputError):
            parse(text)
    assert time.process_time() - start < 0.5
