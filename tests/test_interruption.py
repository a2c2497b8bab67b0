"""Ctrl-C, processes that are killed, and training that goes on after that."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import joblib
import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from sklearn_charlstm import CharLMLanguageClassifier, CharLSTMLanguageModel
from sklearn_charlstm._device import reproducibly

psutil = pytest.importorskip("psutil")

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="needs the signals of POSIX systems"
)

# Less than a second; more on machines that are busy.
SOON = 10

# Would take hours.
ENDLESS = 10**6

ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

# Ctrl-C

# Calls methods of one estimator or a new one, and says how they ended.
INTERRUPTED = """
import json, signal, sys
import joblib
from sklearn_charlstm import CharLMLanguageClassifier

# A process in the background may have been started with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
texts, labels = json.loads(sys.stdin.readline())
for line in sys.stdin:
    anew, params, method, n_times = json.loads(line)
    if anew:
        clf = CharLMLanguageClassifier()
    clf.set_params(**params)
    before = joblib.hash(vars(clf))
    try:
        getattr(clf, method)(texts * n_times, labels * n_times)
        how = "done"
    except KeyboardInterrupt:
        how = "interrupted"
    fitted = [name for name in vars(clf) if name.endswith("_")]
    same = joblib.hash(vars(clf)) == before
    print(json.dumps([how, same, len(fitted)]), flush=True)
"""


class Session:
    """A Python process in a terminal of its own."""

    def __init__(self, process, params):
        self.process = process
        self.params = params
        self.shown = b""
        self.children = set()

    def call(self, method, *, anew=True, n_times=1, **params):
        command = [anew, self.params | params, method, n_times]
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()

    def ended(self):
        return tuple(json.loads(self.process.stdout.readline()))

    def interrupt_at(self, shown):
        """Press Ctrl-C as soon as the progress line shows something."""
        seen = b""
        while shown not in seen:
            part = os.read(self.process.stderr.fileno(), 2**16)
            assert part, f"{seen.decode()} and no {shown}"
            seen += part
        self.shown += seen
        self.children |= set(psutil.Process(self.process.pid).children(recursive=True))
        os.killpg(self.process.pid, signal.SIGINT)
        start = time.perf_counter()
        ended = self.ended()
        assert time.perf_counter() - start < SOON
        return ended

    def workers(self):
        return [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if not any("resource_tracker" in part for part in child.cmdline())
        ]


@contextmanager
def session(script, params, texts, labels, tmp_path):
    """Run a script; at the end nothing of it may be left."""
    folders = [tmp_path / "here", tmp_path / "temporary"]
    for folder in folders:
        folder.mkdir()
    here, temporary = map(str, folders)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=here,
        env=ENVIRONMENT | {"TMPDIR": temporary, "JOBLIB_TEMP_FOLDER": temporary},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # As a terminal does, which sends Ctrl-C to all of a group.
        start_new_session=True,
    ) as process:
        process.stdin.write(json.dumps([texts, list(labels)]).encode() + b"\n")
        running = Session(process, params)
        try:
            yield running
            _, shown = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    running.shown += shown
    assert process.returncode == 0
    _, alive = psutil.wait_procs(running.children, timeout=SOON)
    assert not alive
    # torch makes an empty folder for itself.
    left = [path.name for folder in folders for path in folder.rglob("*")]
    assert not [name for name in left if not name.startswith("torchinductor")]


def test_control_c(tiny, texts, labels, tmp_path):
    tiny.update(verbose=1)
    with session(INTERRUPTED, tiny, texts, labels, tmp_path) as python:
        unfitted = ("interrupted", True, 0)
        python.call("fit", epochs=ENDLESS)
        assert python.interrupt_at(b"eng: ") == unfitted
        python.call("fit", discriminative_epochs=ENDLESS)
        assert python.interrupt_at(b"network 1: ") == unfitted
        # Every part takes about as long as the training itself.
        python.call("fit", epochs=100, discriminative_epochs=0, calibration_folds=50)
        assert python.interrupt_at(b"Calibration: ") == unfitted

        python.call("fit", warm_start=True, verbose=0)
        how, _, n_fitted = python.ended()
        assert how == "done"
        as_it_was = ("interrupted", True, n_fitted)
        python.call("fit", anew=False, epochs=ENDLESS)
        assert python.interrupt_at(b"eng: ") == as_it_was
        # The one pass over so many texts takes long.
        python.call("partial_fit", anew=False, n_times=5000)
        assert python.interrupt_at(b"| 0/2 [") == as_it_was
    assert b"Traceback" not in python.shown


def test_control_c_with_workers(tiny, texts, labels, tmp_path):
    tiny.update(verbose=1, n_jobs=2)
    with session(INTERRUPTED, tiny, texts, labels, tmp_path) as python:
        unfitted = ("interrupted", True, 0)
        python.call("fit", epochs=ENDLESS)
        assert python.interrupt_at(b"eng: ") == unfitted
        assert not python.workers()
        # One worker has a network, the other one a part for the calibration.
        python.call("fit", discriminative_epochs=ENDLESS)
        assert python.interrupt_at(b"network 1: ") == unfitted
        assert not python.workers()
        assert len(python.children) >= 4


class _SignalAtEndOfEpoch(Callback):
    def on_epoch_end(self, net, **kwargs):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("estimator", [CharLMLanguageClassifier, CharLSTMLanguageModel])
def test_control_c_is_no_wish_to_stop_early(estimator, tiny, texts, labels):
    clf = estimator(**tiny, net_params={"callbacks": [_SignalAtEndOfEpoch()]})
    # As above.
    handler = signal.default_int_handler
    previous = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            clf.fit(texts, labels)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, previous)
    assert not [name for name in vars(clf) if name.endswith("_")]


def test_who_handles_control_c_decides(tiny, texts):
    pressed = []
    previous = signal.signal(signal.SIGINT, lambda *args: pressed.append(args))
    try:
        model = CharLSTMLanguageModel(
            **tiny, net_params={"callbacks": [_SignalAtEndOfEpoch()]}
        ).fit(texts)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert len(pressed) == model.n_iter_ == tiny["epochs"]


def test_control_c_leaves_torch_its_threads(n_threads, monkeypatch):
    set_num_threads = torch.set_num_threads

    def interrupted(n):
        set_num_threads(n)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "set_num_threads", interrupted)
    with pytest.raises(KeyboardInterrupt), reproducibly():
        pass
    assert torch.get_num_threads() == n_threads


# A worker that is killed


class _Killed(Callback):
    """At its first batch, the others running on."""

    def __init__(self, victim, endless=()):
        self.victim = victim
        self.endless = endless

    def on_batch_end(self, net, **kwargs):
        name = dict(net.callbacks_)["epoch_report"].name
        if self.victim in name:
            os.kill(os.getpid(), signal.SIGKILL)
        while any(label in name for label in self.endless):
            time.sleep(0.1)


def test_the_error_names_what_was_running(tiny):
    tiny.update(discriminative_epochs=1, calibration_folds=2)
    texts = ["the cat and the dog", "le chat et le chien"] * 6
    labels = ["a", "b", "c", "d"] * 3
    expected = CharLMLanguageClassifier(**tiny).fit(texts, labels)

    clf = CharLMLanguageClassifier(**tiny, n_jobs=2)
    clf.set_params(net_params={"callbacks": [_Killed("'c'", ["'a'"])]})
    with pytest.raises(RuntimeError, match="killed, probably for want of") as error:
        clf.fit(texts, labels)
    # The first two that are not done yet: class b is.
    assert re.findall("the language model of class '.'", str(error.value)) == [
        "the language model of class 'a'",
        "the language model of class 'c'",
    ]
    assert "Set a smaller `n_jobs` than 2" in str(error.value)
    assert not [name for name in vars(clf) if name.endswith("_")]

    clf.set_params(net_params=None).fit(texts, labels)
    np.testing.assert_array_equal(
        clf.predict_proba(texts), expected.predict_proba(texts)
    )


def test_the_error_names_joint_training_and_calibration(tiny, texts, labels):
    tiny.update(discriminative_epochs=0, calibration_folds=0)
    clf = CharLMLanguageClassifier(**tiny, warm_start=True).fit(texts, labels)
    expected = clf.predict_proba(texts)
    # The classes are trained: the callback sees only the models of the calibration.
    clf.set_params(discriminative_epochs=ENDLESS, calibration_folds=2, n_jobs=2)
    clf.set_params(net_params={"callbacks": [_Killed("'eng'")]})
    with pytest.raises(
        RuntimeError,
        match=r"running: the joint training of network 1, the calibration\. Set",
    ):
        clf.fit(texts, labels)
    np.testing.assert_array_equal(clf.predict_proba(texts), expected)


# kill -9, and going on

CHECKPOINTS = """
import json, os, sys
import joblib
from sklearn_charlstm import CharLMLanguageClassifier

texts, labels = json.loads(sys.stdin.readline())
params, path = json.loads(sys.stdin.readline())
clf = CharLMLanguageClassifier(**params, warm_start=True)
clf.set_params(discriminative_epochs=0, calibration_folds=0)
for epochs in range(1, 10**6):
    clf.set_params(epochs=epochs).fit(texts, labels)
    joblib.dump(clf, path + ".new")
    os.replace(path + ".new", path)
"""


def test_training_goes_on_after_kill_9(tiny, texts, labels, tmp_path):
    path = tmp_path / "clf.joblib"
    tiny.update(n_networks=2, discriminative_epochs=2, calibration_folds=2)
    with subprocess.Popen(
        [sys.executable, "-c", CHECKPOINTS],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
    ) as process:
        for line in ([texts, labels.tolist()], [tiny, str(path)]):
            process.stdin.write(json.dumps(line).encode() + b"\n")
        process.stdin.flush()
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL

    clf = joblib.load(path)
    [n_done] = set(clf.n_iter_)
    assert n_done >= 1
    tiny.update(epochs=int(n_done) + 3)
    clf.set_params(epochs=tiny["epochs"] - 1).fit(texts, labels)
    clf.set_params(**tiny).fit(texts, labels)
    expected = CharLMLanguageClassifier(**tiny).fit(texts, labels)
    np.testing.assert_array_equal(
        clf.predict_proba(texts), expected.predict_proba(texts)
    )
    assert clf.evidence_weight_ == expected.evidence_weight_
    for curve, curve_expected in zip(
        clf.loss_curve_, expected.loss_curve_, strict=True
    ):
        np.testing.assert_array_equal(curve, curve_expected)
