import functools
import hashlib
import threading
import unicodedata
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from sklearn_charlstm.datasets import _udhr, fetch_udhr, load_languages

LANGUAGES = ["dan", "deu", "eng", "fra", "ita", "nld", "nob", "por", "spa", "swe"]


def test_load_languages():
    corpus = load_languages()
    assert corpus.languages == LANGUAGES
    assert len(corpus.data) == len(corpus.target)
    assert "CC0" in corpus.DESCR
    for language in LANGUAGES:
        texts = [corpus.data[row] for row in np.flatnonzero(corpus.target == language)]
        assert len(texts) > 90
        assert len(set(texts)) == len(texts)
        assert 8_500 < sum(map(len, texts)) < 11_000
        for text in texts:
            assert unicodedata.is_normalized("NFC", text)
            assert text == " ".join(text.split())
            assert text


def test_load_some_languages():
    X, y = load_languages(["fra", "eng"], return_X_y=True)
    assert isinstance(X, list)
    assert y[0] == "fra"
    assert y[-1] == "eng"
    assert X[-1] in load_languages(["eng"]).data


@pytest.mark.parametrize("load", [load_languages, fetch_udhr])
def test_languages_must_be_a_list(load):
    with pytest.raises(ValueError, match=r"got one str; use \['eng'\]"):
        load("eng")


def test_a_language_that_is_not_there():
    with pytest.raises(ValueError, match=r"no text for 'xyz'; available are dan, deu"):
        load_languages(["eng", "xyz"])


def test_a_folder_of_files_serves(tmp_path):
    (tmp_path / "eng.txt").write_text(
        "Title\n\n   All  human beings\n", encoding="utf-8"
    )
    (tmp_path / "fra.txt").write_text("Déclaration\n", encoding="utf-8")
    X, y = fetch_udhr(["fra", "eng"], data_home=tmp_path, return_X_y=True)
    assert X == ["Déclaration", "Title", "All human beings"]
    assert y.tolist() == ["fra", "eng", "eng"]


def test_the_folder_of_the_declaration(udhr_folder):
    corpus = fetch_udhr(
        ["eng", "fra"], data_home=udhr_folder, download_if_missing=False
    )
    assert corpus.data[0] == "Universal Declaration of Human Rights"
    assert set(corpus.target) == set(corpus.languages) == {"eng", "fra"}
    assert "Public domain" in corpus.DESCR


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.n_requests += 1
        if self.server.n_requests <= self.server.n_failures:
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve an archive like the real one; the first requests may fail."""
    folder = tmp_path / "served"
    folder.mkdir()
    with zipfile.ZipFile(folder / "udhr2.zip", "w") as archive:
        archive.writestr("udhr2/eng.txt", "Declaration\n")
        archive.writestr("udhr2/fra.txt", "Déclaration\n")
        archive.writestr("udhr2/README", "-")
    handler = functools.partial(_Handler, directory=folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.n_requests = server.n_failures = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/udhr2.zip"
    digest = hashlib.sha256((folder / "udhr2.zip").read_bytes()).hexdigest()
    monkeypatch.setattr(_udhr, "_URL", url)
    monkeypatch.setattr(_udhr, "_SHA256", digest)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    yield server
    server.shutdown()
    server.server_close()


def test_download_once(server, tmp_path):
    home = tmp_path / "home"
    for _ in range(2):
        X, y = fetch_udhr(["eng", "fra"], data_home=home, return_X_y=True)
        assert X == ["Declaration", "Déclaration"]
        assert y.tolist() == ["eng", "fra"]
    assert server.n_requests == 1
    fetch_udhr(["eng"], data_home=home, download_if_missing=False)
    with pytest.raises(ValueError, match="no text for 'xyz'; available are eng, fra"):
        fetch_udhr(["xyz"], data_home=home)


def test_an_archive_of_more_texts_than_files_may_be_open(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    path = tmp_path / "udhr2.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(300):
            archive.writestr(f"udhr2/x{number}.txt", "Declaration\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(_udhr, "_SHA256", digest)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with path.open("rb") as file:
        # As many more as macOS allows at first, or hardly less.
        n_open = file.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_open + 250, limits[1]))
    try:
        assert fetch_udhr(["x7"], data_home=tmp_path).data == ["Declaration"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_default_folder_is_that_of_scikit_learn(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "sk"))
    fetch_udhr(["eng"])
    assert (tmp_path / "sk" / "udhr" / "udhr2.zip").is_file()


def test_download_is_tried_again(server, tmp_path):
    server.n_failures = 2
    assert fetch_udhr(["eng"], data_home=tmp_path).data == ["Declaration"]
    assert server.n_requests == 3


def test_wrong_hash_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(_udhr, "_SHA256", "0" * 64)
    with pytest.raises(OSError, match=r"could not be downloaded.*[Hh]ash.*By hand"):
        fetch_udhr(["eng"], data_home=tmp_path)
    assert not (tmp_path / "udhr2.zip").exists()


def test_without_network_the_error_says_where_to_put_the_files(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match="could not be downloaded") as caught:
        fetch_udhr(["eng"], data_home=tmp_path / "home")
    assert _udhr._URL in str(caught.value)
    assert str(tmp_path / "home") in str(caught.value)


def test_no_download_if_not_wanted(server, tmp_path):
    with pytest.raises(OSError, match=r"download_if_missing=False\. By hand: get http"):
        fetch_udhr(["eng"], data_home=tmp_path, download_if_missing=False)
    assert server.n_requests == 0


def test_nothing_is_downloaded_in_place_of_a_damaged_file(server, tmp_path):
    (tmp_path / "udhr2.zip").write_bytes(b"cut")
    with pytest.raises(OSError, match=r"udhr2.zip is damaged, and download_if_missing"):
        fetch_udhr(["eng"], data_home=tmp_path, download_if_missing=False)
    assert server.n_requests == 0
    assert fetch_udhr(["eng"], data_home=tmp_path).data == ["Declaration"]
