"""Group-sequential boundaries against published ones, SciPy's multivariate normal, and simulated studies."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from llm4seg.config.schema import Spread
from llm4seg.study import power
from llm4seg.study.mixed_model import Mixed, fit_mixed
from llm4seg.study.sequential import adjusted_p, boundaries, nominal_level, spent
from tests.study_factory import as_cells

FAR = 4  # a p so many times a level is not below it by any method
SPREAD = Spread(fold=0.01, run=0.02, case=0.03, rest=0.04)

# of O'Brien-Fleming type, two-sided 0.05, at equal times: Reboussin, DeMets, Kim & Lan, Controlled Clinical Trials 21,
# 2000; as gsDesign's sfLDOF gives them
PUBLISHED = {
    1: (1.960,),
    2: (2.963, 1.969),
    3: (3.710, 2.511, 1.993),
    5: (4.877, 3.357, 2.680, 2.290, 2.031),
}


@pytest.mark.parametrize("looks", PUBLISHED)
def test_boundaries_are_the_published_ones(looks: int) -> None:
    times = [number / looks for number in range(1, looks + 1)]
    assert boundaries(times, 0.05) == pytest.approx(PUBLISHED[looks], abs=6e-4)


@pytest.mark.parametrize("times", [(0.6, 0.8, 1.0), (0.3, 0.35, 0.9, 1.0), (0.5,)], ids=str)
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_they_spend_what_the_function_says(times: Sequence[float], alpha: float) -> None:
    """By SciPy's multivariate normal: z at two times correlates by the square root of their ratio."""
    early, late = np.minimum.outer(times, times), np.maximum.outer(times, times)
    joint = stats.multivariate_normal(np.zeros(len(times)), np.sqrt(early / late), seed=0)
    found = boundaries(times, alpha)
    crossed = 1 - joint.cdf(found, lower_limit=-found)
    assert crossed == pytest.approx(4 * stats.norm.sf(stats.norm.isf(alpha / 4) / times[-1] ** 0.5), abs=2e-5)
    assert spent(1.0, alpha) == pytest.approx(alpha)


@pytest.mark.parametrize("p", [1e-9, 0.004, 0.03, 0.4])
@pytest.mark.parametrize("time", [0.4, 0.8])
def test_the_first_looks_p_is_adjusted_in_closed_form(p: float, time: float) -> None:
    """What is spent at the first look is its level: p = 4 sf(z / sqrt(t)), solved for alpha = 4 sf(z)."""
    alpha = 4 * stats.norm.sf(time**0.5 * stats.norm.isf(p / 4))
    assert adjusted_p(p, [time]) == pytest.approx(min(alpha, 1.0), rel=1e-6)


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 6, 0.2])
def test_an_adjusted_p_is_below_alpha_where_p_is_below_the_looks_level(alpha: float) -> None:
    times = (0.6, 0.8, 1.0)
    level = nominal_level(times, alpha)
    assert adjusted_p(level, times) == pytest.approx(alpha, rel=1e-6)
    assert adjusted_p(0.999 * level, times) < alpha < adjusted_p(1.001 * level, times)


def test_without_a_look_before_the_last_nothing_is_adjusted() -> None:
    for p in (1e-30, 0.01, 0.5, 1.0):
        assert adjusted_p(p, [1.0]) == pytest.approx(max(p, 1e-12))


def test_adjusted_p_rises_with_p_and_is_never_below_it() -> None:
    several = np.linspace(0.001, 0.999, 40)
    adjusted = np.array([adjusted_p(p, (0.5, 0.75)) for p in several])
    assert (np.diff(adjusted) >= 0).all()
    assert (adjusted >= several).all()
    assert adjusted[-1] == 1


def levels(ends: Sequence[int], alpha: float) -> list[tuple[int, float]]:
    times = [end / ends[-1] for end in ends]
    return [(end, nominal_level(times[:number], alpha)) for number, end in enumerate(ends, start=1)]


@pytest.mark.parametrize(
    ("ends", "folds", "units", "spread"),
    [
        ((3, 4, 5), 1, 36, SPREAD),
        ((4, 8, 12), 1, 20, SPREAD),
        ((5, 10), 1, 200, Spread(fold=0, run=0.02, case=0, rest=0.01)),  # nothing but runs differ
        ((3, 4, 5), 1, 6, Spread(fold=0, run=0.005, case=0.06, rest=0.01)),  # hardly anything but cases does
        ((3, 4, 5), 1, 36, Spread(fold=0, run=0.04, case=0.03, rest=0.02)),  # where Satterthwaite's would find 8 %
        ((1, 2, 4), 5, 8, SPREAD),
    ],
    ids=["few", "many", "runs", "cases", "estimated", "folds"],
)
def test_looks_find_nothing_where_there_is_nothing(ends: Sequence[int], folds: int, units: int, spread: Spread) -> None:
    tables = power.simulate(spread, ends[-1], folds, units, 4000, 0)
    found, repeats = power.power_of_looks(tables, levels(ends, 0.05), 0.0)
    assert found < 0.065
    assert repeats > 0.97 * ends[-1]


def test_looks_cost_little_power_and_save_repeats() -> None:
    tables = power.simulate(SPREAD, 12, 1, 40, 3000, 0)
    fixed = power.power(power.test(tables), 0.03, 0.05)
    found, repeats = power.power_of_looks(tables, levels((4, 8, 12), 0.05), 0.03)
    assert fixed - 0.04 < found < fixed + 0.01
    assert repeats < 10.5


def test_a_looks_power_counts_first_crossings_by_hand() -> None:
    """Of two tables, one crosses at the first look, one never."""
    random = np.random.default_rng(0)
    sure, never = 0.5 + random.normal(0, 0.01, (1, 1, 6, 30)), random.normal(0, 0.3, (1, 1, 6, 30))
    never -= never.mean()
    never[0, 0, :3] -= never[0, 0, :3].mean()
    assert power.power_of_looks(np.concatenate([sure, never]), [(3, 0.01), (6, 0.04)], 0.0) == (0.5, (3 + 6) / 2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("ends", "arms"), [((3, 4, 5), 1), ((4, 8, 12), 1), ((3, 4, 5), 3)], ids=str)
def test_the_type_i_error_of_2000_studies_is_5_percent(ends: Sequence[int], arms: int) -> None:
    """By the mixed model that studies are compared with; of several arms, any by Holm's procedure at any look.

    Holm's is below 5 % for arms that share a reference, and so are looks before which cases differ more than runs.
    """
    assert 0.03 < type_i_error(ends, arms, 2000) < 0.065


def type_i_error(ends: Sequence[int], arms: int, studies: int, units: int = 36) -> float:
    """The share of studies without any difference that call one at a look; arms share their reference.

    The mixed model is fitted where the closed form, which takes no time, is not far from calling one.
    """
    random = np.random.default_rng(0)
    scores = [scores_of_an_arm(random, studies, ends[-1], units) for _ in range(arms + 1)]
    tables = [arm - scores[0] for arm in scores[1:]]
    holms_first = levels(ends, 0.05 / arms)
    wrong = np.zeros(studies, dtype=bool)
    for repeats, level in holms_first:
        for arm in tables:
            mean, error, df = power.test(arm[:, :, :repeats])
            df = df if repeats == ends[-1] else np.minimum(df, min(repeats, units) - 1)
            closed = 2 * stats.t.sf(np.abs(mean) / error, df)
            for study in np.flatnonzero((closed < FAR * level) & ~wrong):
                wrong[study] = p_of_mixed_model(arm[study, :, :repeats], repeats == ends[-1]) < level
    return float(wrong.mean())


def scores_of_an_arm(random: np.random.Generator, studies: int, repeats: int, units: int) -> np.ndarray:
    """(studies, 1, repeats, units): the differences of two arms have SPREAD."""
    run = random.normal(0, SPREAD.run, (studies, 1, repeats, 1))
    case = random.normal(0, SPREAD.case, (studies, 1, 1, units))
    return np.asarray((run + case + random.normal(0, SPREAD.rest, (studies, 1, repeats, units))) / 2**0.5)


def p_of_mixed_model(table_FRU: np.ndarray, last: bool) -> float:
    """As `compare` tests at a look."""
    fitted = fit_mixed(as_cells(table_FRU))
    assert isinstance(fitted, Mixed)
    return fitted.p if last else fitted.with_fewest_degrees(*table_FRU.shape[1:]).p


def test_the_closed_form_is_never_far_from_the_mixed_model() -> None:
    """So that `type_i_error` misses none."""
    random = np.random.default_rng(3)
    tables = scores_of_an_arm(random, 25, 4, 12) - scores_of_an_arm(random, 25, 4, 12)
    mean, error, _ = power.test(tables)
    closed = 2 * stats.t.sf(np.abs(mean) / error, 3)
    fitted = np.array([p_of_mixed_model(table, False) for table in tables])
    assert (closed / fitted < FAR / 2).all()
    assert (closed / fitted > 2 / FAR).all()
