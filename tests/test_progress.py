import dataclasses
import math
import os
import pickle

from sklearn_charlstm._progress import progress_line


def test_silent_without_verbose(capsys):
    with progress_line(["a", "b"], 6, verbose=0) as reports:
        assert reports == [None, None]
    assert capsys.readouterr() == ("", "")


def test_one_line_over_all_models(capsys):
    with progress_line(["a", "b"], 6, verbose=1) as reports:
        # As they come back from another process.
        for report in pickle.loads(pickle.dumps(reports)):
            for _ in range(3):
                report(math.log(2) * 1.5)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\n" not in err.strip("\n")
    last = err.split("\r")[-1]
    assert "6/6" in last
    assert "b: 1.500 bits/char" in last


def test_a_label_of_any_kind_is_one_line(capsys):
    with progress_line(["two\nlines \ud800"], 1, verbose=1) as [report]:
        report(math.log(2))
    assert "two lines ?: 1.000 bits/char" in capsys.readouterr().err


def test_nothing_to_do_draws_nothing(capsys):
    with progress_line(["a"], 0, verbose=1) as reports:
        assert reports == [None]
    assert capsys.readouterr() == ("", "")


def test_a_line_that_cannot_be_drawn_stops_nothing(capsys):
    with progress_line(["a"], 1, verbose=1) as [report]:
        # A folder, as one of many things that cannot be written to.
        dataclasses.replace(report, path=os.path.dirname(report.path))(1.0)
        with open(report.path, "ab") as file:
            file.write(b"half a character: \xc3\n")
    assert "half a character: \ufffd" in capsys.readouterr().err


def test_no_file_is_left_and_a_late_report_makes_none(capsys):
    with progress_line(["a"], 1, verbose=1) as [report]:
        folder = os.path.dirname(report.path)
    report(1.0)
    assert not os.path.exists(folder)
