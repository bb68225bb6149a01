"""k-factor files: what they multiply is stated, and every fault is said with its row."""

from __future__ import annotations

import numpy as np
import pytest

from livestem.domain.errors import UsageError
from livestem.stages.kfactors import atomic_weight
from livestem.stages.ktable import read_k_factors
from livestem.stages.lines import choose_lines

SAID = "# convention: weight line\n"
VELOX = """Line identifier,Energy level,Intensity,Chi-Rho-Tau absorption,K-factor
-,eV,counts,-,-
Si-Ka1,1.73970e+03,2.0e+01,0.0e+00,3.0e-01
Fe-Ka1,6.40390e+03,8.5e+02,0.0e+00,4.0e-01
Fe-Ka2,6.39090e+03,4.2e+02,0.0e+00,4.0e-01
Fe-Kb1,7.05800e+03,1.7e+02,0.0e+00,4.0e-01
La-La1,4.65100e+03,3.2e+02,0.0e+00,5.0e-01
La-Lb1,5.04210e+03,1.6e+02,0.0e+00,5.5e-01
Fe-Ll,6.15200e+02,0.0e+00,0.0e+00,8.0e-01
Nd-Mb,9.96500e+02,0.0e+00,0.0e+00,4.2e-01
Hf-Na1,2.06700e+02,0.0e+00,0.0e+00,4.5e+00
"""


def written(tmp_path, text: str):
    path = tmp_path / "lab.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_that_states_its_convention_is_read_as_it_stands(tmp_path):
    text = "\ufeff#  Convention: line, weight\nline,k\n# our standards\n\nFe_Ka, 1.45\nPt_La,5.08\n"
    table = read_k_factors(written(tmp_path, text))
    assert table.values == {"Fe_Ka": 1.45, "Pt_La": 5.08}
    assert table.source == "lab.csv"


def test_family_and_atomic_factors_become_those_of_weights_and_lines(tmp_path):
    lines = ("Fe_Ka", "La_La", "Ti_La")
    one = "".join(f"{line},2.0\n" for line in lines)
    family = read_k_factors(written(tmp_path, "# convention: weight family\n" + one))
    atomic = read_k_factors(written(tmp_path, "# convention: atomic line\n" + one))
    from livestem.domain.scan import EnergyAxis

    for line in lines:
        shape = choose_lines((), EnergyAxis(channels=4096, scale_kev=0.01), 300.0, (line,))[0]
        # k times intensity is the mass: the family's k times its sum, or the line's k times the line.
        assert family.of(line) == pytest.approx(2.0 * sum(shape.weights))
        assert atomic.of(line) == pytest.approx(2.0 * atomic_weight(shape.element))
    assert family.of("La_La") / 2.0 == pytest.approx(2.01, abs=0.005)  # science's number


def test_an_export_of_velox_is_known_by_its_columns(tmp_path):
    table = read_k_factors(written(tmp_path, VELOX))
    # exspy has one line where there are two (Ka1 and Ka2), and none of N shells.
    assert set(table.values) == {"Si_Ka", "Fe_Ka", "Fe_Kb", "Fe_Ll", "La_La", "La_Lb1", "Nd_Mb"}
    assert table.of("La_La") / table.of("Fe_Ka") == pytest.approx(0.5 * 2.01 / (0.4 * 1.13), rel=0.01)
    # Alpha and beta of one shell tell of the same mass: k times intensity is the same.
    assert table.of("Fe_Ka") * 1.0 == pytest.approx(table.of("Fe_Kb") * 0.13, rel=0.03)


def test_an_export_may_state_another_convention(tmp_path):
    assert read_k_factors(written(tmp_path, SAID + VELOX)).of("La_La") == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("line,k\nFe_Ka,1.45\n", "does not say what its k-factors are for; add .* weight line"),
        ("Fe_Ka,1.45\n# weight line\n", "does not say"),
        ("# convention: weight\nFe_Ka,1", "row 1: the convention is weight or atomic, and line or family"),
        ("# convention: weight lines\nFe_Ka,1", "row 1: the convention is"),
        ("# convention: weight atomic\nFe_Ka,1", "row 1: state one convention"),
        (SAID + SAID + "Fe_Ka,1", "row 2: state one convention"),
        (SAID + "Fe_Kz,1", "row 2: unknown line"),
        (SAID + "line,k\nXx_Ka,1", "row 3: unknown line"),
        (SAID + "Fe_Ka,0", "must be positive"),
        (SAID + "Fe_Ka,-1", "must be positive"),
        (SAID + "Fe_Ka,nan", "must be positive"),
        (SAID + "Fe_Ka,inf", "must be positive"),
        (SAID + "Fe_Ka,much", "'much' is not a number"),
        (SAID + "Fe_Ka,1\nFe_Ka,2", "row 3: Fe_Ka stands there twice"),
        (SAID + "Fe_Ka;1", "expected line,k"),
        (SAID + "Fe_Ka,1,2", "expected line,k"),
        (SAID + "line,k\n", "holds no k-factors"),
        ("", "holds no k-factors"),
        (VELOX.replace("Si-Ka1", "Xx-Ka1"), "row 3: unknown element 'Xx'"),
        (VELOX.replace("3.0e-01", "0"), "row 3: a k-factor must be positive, got 0 for Si_Ka"),
        (VELOX.replace(",3.0e-01", ""), "row 3: expected 5 columns"),
        (VELOX.replace("Fe-Kb1", "Fe-Ka1"), "Fe_Ka stands there twice"),
        ("\n".join(VELOX.splitlines()[:2]), "holds no k-factors"),
    ],
)
def test_a_bad_table_says_where_and_why(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read_k_factors(written(tmp_path, text))


def test_an_unreadable_table_says_so(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        read_k_factors(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UsageError, match="not a text file"):
        read_k_factors(tmp_path / "binary.csv")


def test_factors_of_any_size_stay_finite(tmp_path):
    table = read_k_factors(written(tmp_path, "# convention: atomic family\nU_Ma,1e-30\nU_La,1e30\n"))
    assert all(np.isfinite(k) and k > 0 for k in table.values.values())
