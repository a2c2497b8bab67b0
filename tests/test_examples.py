"""The README and the examples as a user runs them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Other defaults, in a tenth of the time.
SHORT = """
import sklearn_charlstm
from sklearn_charlstm import _discriminative
_discriminative.MAX_AUTO_EPOCHS = 2
sklearn_charlstm.CharLMLanguageClassifier.__init__.__kwdefaults__.update(
    n_networks=1, epochs=10, calibration_folds=0
)
"""


def run(*command, cwd):
    environment = os.environ | {
        "MPLBACKEND": "agg",
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
    ).stdout


def test_english_french(udhr_folder, tmp_path):
    script = str(ROOT / "examples" / "plot_english_french.py")
    arguments = [script, "--udhr", str(udhr_folder), "--picture", "roc.png"]
    code = f"import runpy, sys; sys.argv = {arguments}; runpy.run_path({script!r})"
    output = run("-c", f"{SHORT}\n{code}", cwd=tmp_path)
    assert (tmp_path / "roc.png").stat().st_size > 10_000

    rows = re.findall(r"^ +(\d+) +([\d.]+) +([\d.]+)$", output, flags=re.MULTILINE)
    auc = {int(length): float(value) for length, value, _ in rows}
    control = [float(value) for _, _, value in rows]
    assert list(auc) == [1, 2, 3, 5, 10, 20, 50]
    assert auc[5] >= 0.93
    assert auc[10] >= 0.985
    assert auc[20] >= 0.999
    assert control == pytest.approx([0.5] * len(control), abs=0.03)

    # The printed steps multiply to the printed probability of the string.
    steps = re.findall(
        r"^P\((.)\|(.+?)\) +([\d.e-]+) +([\d.e-]+)$", output, re.MULTILINE
    )
    products = re.findall(
        r"^P\(([^|]{5})\) +([\d.e-]+) +([\d.e-]+)$", output, re.MULTILINE
    )
    assert len(steps) == 5 * len(products) == 20
    for number, (string, *printed) in enumerate(products):
        of_string = steps[5 * number : 5 * number + 5]
        assert "".join(character for character, *_ in of_string) == string
        for column, probability in enumerate(printed):
            product = 1.0
            for step in of_string:
                product *= float(step[2 + column])
            assert float(probability) == pytest.approx(product, rel=0.05)


def test_readme(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    [printed] = re.findall(r"prints\n\n```text\n(.*?)```", readme, flags=re.DOTALL)
    assert run("-c", f"{SHORT}\n{code}", cwd=tmp_path).split() == printed.split()
