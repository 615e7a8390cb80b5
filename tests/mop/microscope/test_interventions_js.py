"""Interventions in the page against Python's: their texts, the weights that they give, an expert's memory."""

import numpy as np
import pytest
import torch
from checks import refusal
from javascript import page_with
from routing_data import EVERY_KIND

from mop.common.errors import InputError
from mop.common.intervention_grammar import SWAP, VARIANTS, Intervention, parse
from mop.evaluation.routing_gates import Gates, apply_state_policy, experts_of_units

SIZES = [[0, 16, 32], [32], [8, 0]]
HELPERS = """
const tried = (make) => { try { return make(); } catch (error) { return `Error: ${error.message}`; } };
const fields = (intervention) => ({ ...intervention, parts: intervention.parts.map(fields) });
const parsed = (text) => tried(() => ({ ...fields(parse(text)), text: textOf(parse(text)) }));
function gated({ text, sizes, mean, pool, seed, steps, layer, rows }) {
  const gates = new Gates(parse(text), sizes, mean, pool && pool.map((numbers) => Float32Array.from(numbers)), seed);
  return rows.map((row, k) => {
    const weights = Float32Array.from(row), intervene = gates.at(...steps[k]);
    return Array.from(intervene === null ? weights : intervene(layer, weights));
  });
}
const poolOf = (sizes) => sizes.map((ofLayer) => new Float32Array(ofLayer.length));
const refused = ({ text, sizes }) => tried(() => new Gates(parse(text), sizes, [], poolOf(sizes)) && "made");
"""
GOOD = [
    *(text for text in EVERY_KIND if not text.startswith(SWAP)),
    *(
        "  argmax ",
        "clamp 1.20 =.5",
        "threshold 5e-2 in door unlocked",
        "argmax+lesion 1.2 + mean 0+ lesion 0.1 in a + b",
    ),
    *(
        "threshold 0",
        "threshold 1",
        "clamp 0.1=1",
        "clamp 0.1=0.00001",
        "threshold 1e-7",
        "threshold 0.12345678901234567",
    ),
    *(
        "lesion_size 0",
        "lesion   0.1   +   argmax   in   a   b",
        "shuffle 0 in in",
        "threshold 1e-400",
        "clamp 0.0 = 0.1e1",
    ),
    *("lesion 10.2 + lesion 9.3 + lesion_size 9 + lesion_size 16", "uniform 2 + mean 1 + shuffle 0 + clamp 2.0=0.5"),
    *("threshold .0001", "threshold 0.00012", "lesion 123456789.0", "argmax in naïve ☃"),
]
BAD = [
    *("", " ", "lesion", "lesion 1", "lesion 1.2.3", "lesion 01.2", "lesion -1.2", "lesions 1.2", "LESION 1.2"),
    *("clamp 1.2", "clamp 1.2=1.5", "clamp 1.2=nan", "threshold 2", "threshold x", "argmax 1", "mean", "swap", "swap "),
    *("none + argmax", "argmax + swap x", "argmax +", "+ argmax", "argmax ++ mean 0", "argmax argmax", "several"),
    *("none in carrying", "uniform 1.2", "lesion 1.2 in", "lesion 1.2 during x", "lesion 9e9.1", "lesion 1234567890.1"),
    *("lesion 1.2 + clamp 1.2=0.5", "mean 0 + uniform 0", "argmax + threshold 0.1", "lesion 1.2 + lesion 1.2"),
    *("argmax\n", "argmax in a\tb", "threshold 1.", "threshold +1", "threshold 1e400", "toString", "constructor 1"),
]


@pytest.fixture(scope="module")
def page(browser):
    with page_with(browser, "numbers", "interventions", more=HELPERS) as page:
        yield page


def fields_of(intervention: Intervention) -> dict:
    values = intervention._asdict() | {"parts": [fields_of(part) for part in intervention.parts]}
    del values["file"]
    return values


def test_texts_have_the_same_fields_and_are_written_alike(page):
    found = page.evaluate("texts => texts.map(parsed)", GOOD)
    for text, fields in zip(GOOD, found, strict=True):
        assert fields == fields_of(parse(text)) | {"text": str(parse(text))}, text
    assert len(GOOD) == 35


def test_bad_texts_are_refused_by_both(page):
    for text, answer in zip(BAD, page.evaluate("texts => texts.map(parsed)", BAD), strict=True):
        assert str(answer).startswith("Error: "), text
        refusal(parse, text)
    assert "intervene.py" in page.evaluate("parsed('swap other.pt')")
    assert len(BAD) == 42


def random_weights(rng, size: int) -> np.ndarray:
    """Weights (200, size): some all but 0, some 0 or 1, some equal."""
    weights = rng.dirichlet(np.full(size, 0.3), 200)
    weights[:20] = np.eye(size)[rng.integers(size, size=20)]
    weights[20:30] = 1 / size
    return weights.astype(np.float32)


TEXTS = [
    *(
        "none",
        "lesion 0.0",
        "lesion 0.2",
        "lesion_size 16",
        "lesion_size 0",
        "threshold 0.25",
        "threshold 0.9",
        "argmax",
    ),
    *("threshold 0", "threshold 1", "clamp 0.2=0.75", "clamp 0.0=1", "clamp 0.0=0", "uniform 0", "mean 0", "uniform 2"),
    *("lesion 0.0 + lesion 0.1", "lesion 0.0 + clamp 0.1=0.3", "clamp 0.0=0.2 + clamp 0.1=0.3", "lesion 0.1 + argmax"),
    *("clamp 0.0=0.9 + clamp 0.1=0.9", "lesion 0.0 + clamp 0.1=0.1 + clamp 0.2=0.3", "lesion 0.0 + threshold 0.4"),
    *(
        "lesion 0.1 + uniform 0 + argmax",
        "lesion 0.0 + mean 0",
        "lesion 2.0 + lesion_size 16",
        "mean 2 + threshold 0.3",
    ),
    *("clamp 2.1=0.2", "clamp 2.0=0.25 + mean 0", "lesion 2.1 + clamp 0.1=1e-05 + threshold 0.001"),
]


def test_weights_are_those_of_python(page):
    rng = np.random.default_rng(0)
    pool = [random_weights(rng, len(sizes)) for sizes in SIZES]
    mean = [weights.mean(0, np.float64).astype(np.float32).tolist() for weights in pool]
    where = np.arange(200)
    for text in TEXTS:
        gates, changed = Gates(parse(text), SIZES, pool), 0
        for layer, weights in enumerate(pool):
            expected = gates.at(where, where)(layer, weights)
            asked = {"text": text, "sizes": SIZES, "mean": mean, "pool": None, "seed": 0, "layer": layer}
            asked |= {"steps": [[k, k] for k in range(200)], "rows": weights.tolist()}
            found = np.array(page.evaluate("asked => gated(asked)", asked), np.float32)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6, err_msg=text)
            np.testing.assert_array_equal(found == 0, expected == 0, err_msg=text)  # what is out has no memory
            changed += int((found != weights).any(1).sum())
        assert (changed > 0) == (text not in ("none", "threshold 0")), text
    assert len(TEXTS) == 30


def test_weights_are_changed_only_where_it_is_on(page):
    program = "([isOn]) => new Gates(parse('argmax'), [[0, 16]], []).at(0, 0, isOn) === null"
    assert [page.evaluate(program, [is_on]) for is_on in (True, False)] == [False, True]


def test_shuffled_weights_are_drawn_from_the_whole_pool(page):
    rng = np.random.default_rng(0)
    pool = [rng.dirichlet(np.ones(len(sizes)), 50).astype(np.float32) for sizes in SIZES]
    steps = [[episode, t_step] for episode in range(20) for t_step in range(200)]
    asked = {"text": "shuffle 0 + shuffle 2", "sizes": SIZES, "mean": [], "pool": [w.ravel().tolist() for w in pool]}
    asked |= {"steps": steps, "rows": [[1, 0, 0]] * len(steps)}

    def rows_of(layer: int, seed: int, order=slice(None)) -> np.ndarray:
        """Places in the pool of what is drawn, (steps,)."""
        rows = [[0] * len(SIZES[layer])] * len(steps[order])
        more = {"layer": layer, "seed": seed, "steps": steps[order], "rows": rows}
        drawn = np.array(page.evaluate("asked => gated(asked)", asked | more), np.float32)
        is_it = (drawn[:, None] == pool[layer]).all(-1)
        assert is_it.any(1).all()
        return is_it.argmax(1)

    rows = rows_of(0, 3)
    counts = np.bincount(rows, minlength=50)
    assert ((counts - 80) ** 2 / 80).sum() < 86  # 0.1 % of the chi-squared distribution with 49 degrees of freedom
    pairs = np.bincount(rows[:-1] % 5 * 5 + rows[1:] % 5, minlength=25)  # a step does not tell the next one
    assert ((pairs - 160) ** 2 / 160).sum() < 51
    assert np.array_equal(rows_of(2, 3), rows), "all layers take the same step"
    assert np.array_equal(rows_of(0, 3, slice(None, None, -1)), rows[::-1])
    assert np.mean(rows_of(0, 4) == rows) < 0.05
    without = page.evaluate("tried(() => new Gates(parse('shuffle 0'), [[0, 16]], []))")
    assert str(without).startswith("Error: ")


def test_what_a_policy_has_not_is_refused_by_both(page):
    refused, made = 0, 0
    cases = [
        *("lesion 3.0", "lesion 0.3", "lesion_size 5", "lesion 1.0", "lesion_size 32", "mean 7", "argmax + lesion 7.0"),
        *("lesion 0.0 + lesion 0.1 + lesion 0.2", "lesion_size 16 + clamp 0.1=0.3", "clamp 1.0=1", "argmax", "mean 1"),
        *(
            "clamp 0.0=0 + clamp 0.1=0 + clamp 0.2=0",
            "none",
            "lesion_size 8",
            "uniform 3",
            "shuffle 2",
            "threshold 0.5",
        ),
    ]
    for sizes in (SIZES, [[64]], [[16], [32, 0]]):
        for text in cases:
            answer = page.evaluate("asked => refused(asked)", {"text": text, "sizes": sizes})
            try:
                Gates(parse(text), sizes)
                assert answer == "made", (text, sizes)
                made += 1
            except InputError:
                assert answer.startswith("Error: "), (text, sizes)
                refused += 1
    assert (made, refused) == (14, 40)


def test_the_memory_of_an_expert_without_weight_is_that_of_python(page):
    layout = {"router_0": [0, 2], "expert_0_1": [2, 5], "expert_0_2": [5, 7], "router_1": [7, 9], "expert_1_0": [9, 12]}
    sizes, rng = [[0, 3, 2], [3, 0]], np.random.default_rng(0)
    experts = experts_of_units({name: slice(*units) for name, units in layout.items()}, sizes)
    before, after = rng.random((2, 12)).astype(np.float32)
    program = """([variant, layout, routing, ...states]) => {
      const [before, after, ...weights] = [...states, ...routing].map((row) => Float32Array.from(row));
      return Array.from(applyMemory(variant, { layout }, weights, before, after));
    }"""
    for variant in VARIANTS:
        for routing in ([[0.5, 0, 0.5], [0, 1]], [[0, 1, 0], [1, 0]], [[0.2, 0.3, 0.5], [0.5, 0.5]]):
            weights = [torch.tensor([row]) for row in routing]
            states = [torch.from_numpy(state)[None] for state in (before, after)]
            expected = apply_state_policy(variant, experts, weights, *states)[0]
            asked = [variant, layout, routing, before.tolist(), after.tolist()]
            assert page.evaluate(program, asked) == expected.tolist()
