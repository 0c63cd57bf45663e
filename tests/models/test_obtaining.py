"""Obtaining models: packages (installed, as wheels, by pip), paths, a hub, and everything that can go wrong."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("ctranslate2")

from tiny_whisper import make_ctranslate2, make_transformers
from typer.testing import CliRunner

from speechtune.core.errors import InputError
from speechtune.core.files import read_json
from speechtune.models import obtaining, packaged
from speechtune.models.checking import MARK
from speechtune.models.obtaining import get_model, list_models, resolve_model
from speechtune.models.packages import HUB_ALIASES, PACKAGED, PackagedFile, PackagedModel, PackagePin

MEMBERS = {"model.bin": ("part_one/a", "part_two/b"), "tokenizer.json": ("part_one/t",), "config.json": ("part_one/c",)}


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one tiny model as ``hf`` (Transformers) and ``ct2`` (CTranslate2, float16)."""
    folder = tmp_path_factory.mktemp("sources")
    make_transformers(folder / "hf")
    make_ctranslate2(folder / "hf", folder / "ct2", "float16")
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``SPEECHTUNE_HOME`` on a machine where pip reaches nothing."""
    monkeypatch.setenv("SPEECHTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv(packaged.WHEELS_VARIABLE, raising=False)
    return tmp_path / "home" / "models"


@pytest.fixture
def members(sources: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The package members of a catalogue entry ``pocket``: two packages, ``model.bin`` in two parts."""
    whole = (sources / "ct2" / "model.bin").read_bytes()
    parts = {"part_one/a": whole[:1000], "part_two/b": whole[1000:]}
    parts["part_one/t"] = (sources / "ct2" / "tokenizer.json").read_bytes()
    parts["part_one/c"] = (sources / "ct2" / "config.json").read_bytes()
    files = tuple(
        PackagedFile(
            target,
            tuple((f"pocket-{part.split('/')[0].replace('_', '-')}", part) for part in names),
            hashlib.sha256(b"".join(parts[name] for name in names)).hexdigest(),
        )
        for target, names in MEMBERS.items()
    )
    pins = tuple(PackagePin(f"pocket-part-{name}", "1.2", _wheel_sha(name, parts)) for name in ("one", "two"))
    model = PackagedModel("pocket", "someone/pocket", "whisper", "English", "MIT", 1, pins, files)
    monkeypatch.setitem(PACKAGED, "pocket", model)
    return parts


def _write_wheel(path: Path, name: str, parts: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in parts.items():
            if member.startswith(f"part_{name}/"):
                archive.writestr(zipfile.ZipInfo(member), content)
        info = f"pocket_part_{name}-1.2.dist-info"
        archive.writestr(
            zipfile.ZipInfo(f"{info}/METADATA"), f"Metadata-Version: 2.1\nName: pocket-part-{name}\nVersion: 1.2\n"
        )
        archive.writestr(
            zipfile.ZipInfo(f"{info}/WHEEL"), "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "")
    return path


def _wheel_sha(name: str, parts: dict[str, bytes]) -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return hashlib.sha256(_write_wheel(Path(folder) / "w.whl", name, parts).read_bytes()).hexdigest()


@pytest.fixture
def wheels(members: dict[str, bytes], tmp_path: Path) -> Path:
    """A folder with the two wheels of ``pocket``."""
    for name in ("one", "two"):
        _write_wheel(tmp_path / "wheels" / f"pocket_part_{name}-1.2-py3-none-any.whl", name, members)
    return tmp_path / "wheels"


def test_get_from_wheels_makes_a_marked_model_that_resolves(
    home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(packaged.WHEELS_VARIABLE, str(wheels))
    first = get_model("pocket")
    assert not first.already_there
    assert "bit-identical" in first.verified
    mark = read_json(home / "pocket" / MARK)
    assert mark["verified"] is True
    assert mark["packages"]["pocket-part-one==1.2"]["had_from"] == "wheel"
    assert {path.name for path in (home / "pocket").iterdir()} == {*mark["files"], MARK}
    monkeypatch.delenv(packaged.WHEELS_VARIABLE)
    assert get_model("pocket").already_there
    assert resolve_model("pocket") == home / "pocket"
    assert [row["path"] for row in list_models() if row["name"] == "pocket"] == [str(home / "pocket")]
    assert sorted(path.name for path in home.iterdir()) == ["pocket"]  # no drafts are left


def test_resolve_converts_on_first_use_what_is_at_hand(
    home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="run speechtune models get pocket"):
        resolve_model("pocket")
    assert not home.exists()
    monkeypatch.setenv(packaged.WHEELS_VARIABLE, str(wheels))
    assert (resolve_model("pocket") / "model.safetensors").is_file()


def test_installed_packages_are_used(
    home: Path, members: dict[str, bytes], wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wheel in wheels.iterdir():
        zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    get_model("pocket")
    assert read_json(home / "pocket" / MARK)["packages"]["pocket-part-two==1.2"]["had_from"] == "installed"
    (tmp_path / "site" / "part_two" / "b").write_bytes(b"altered")
    with pytest.raises(InputError, match=r"model\.bin of pocket .* wrong checksum"):
        get_model("pocket", overwrite=True)
    assert get_model("pocket").already_there  # the good copy stayed


def test_pip_downloads_the_pinned_wheels(home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    get_model("pocket")
    assert read_json(home / "pocket" / MARK)["packages"]["pocket-part-one==1.2"]["had_from"] == "downloaded"


def test_no_network_is_one_sentence_and_leaves_nothing(home: Path, members: dict[str, bytes]) -> None:
    with pytest.raises(InputError, match=r"pip could not download pocket-part-one==1\.2 .*SPEECHTUNE_WHEELS") as caught:
        get_model("pocket")
    assert "\n" not in str(caught.value)
    assert list(home.iterdir()) == []


def test_a_wrong_wheel_is_refused(home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(packaged.WHEELS_VARIABLE, str(wheels))
    wheel = wheels / "pocket_part_two-1.2-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"pocket_part_two.* wrong checksum"):
        get_model("pocket")
    assert list(home.iterdir()) == []


def test_a_damaged_model_is_noticed_and_made_again(home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(packaged.WHEELS_VARIABLE, str(wheels))
    path = get_model("pocket").path / "model.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert not get_model("pocket").already_there
    assert path.read_bytes() == good
    path.write_bytes(good[:100])
    assert (resolve_model("pocket") / "model.safetensors").read_bytes() == good


def test_a_full_disk_is_one_sentence(home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(packaged.WHEELS_VARIABLE, str(wheels))

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packaged.shutil, "copyfileobj", full)
    with pytest.raises(InputError, match="the disk is full"):
        get_model("pocket")
    assert list(home.iterdir()) == []


def test_an_interruption_leaves_nothing(home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(packaged.WHEELS_VARIABLE, str(wheels))

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(obtaining, "check_exact", interrupt)
    with pytest.raises(KeyboardInterrupt):
        get_model("pocket")
    assert list(home.iterdir()) == []


def test_unknown_names_offer_the_nearest(home: Path) -> None:
    with pytest.raises(InputError, match=r"did you mean whisper-tiny\.en"):
        get_model("whisper-tiny-en")
    with pytest.raises(InputError, match="speechtune models list"):
        resolve_model("zzzzz")
    with pytest.raises(InputError, match="write hf:owner/name"):
        resolve_model("hf:whisper")


def test_paths(home: Path, sources: Path, tmp_path: Path) -> None:
    assert resolve_model(sources / "hf") == sources / "hf"
    with pytest.raises(InputError, match="convert it with speechtune models get"):
        resolve_model(sources / "ct2")
    with pytest.raises(InputError, match="say with --out"):
        get_model(str(sources / "ct2"))
    made = get_model(str(sources / "ct2"), out=tmp_path / "made")
    assert resolve_model(tmp_path / "made") == made.path
    with pytest.raises(InputError, match="--overwrite"):
        get_model(str(sources / "ct2"), out=tmp_path / "made")
    with pytest.raises(InputError, match="is not a model directory"):
        resolve_model(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "made").rename(run / "model")
    assert resolve_model(run) == run / "model"


def test_an_unusable_directory_is_one_sentence(home: Path, sources: Path, tmp_path: Path) -> None:
    made = get_model(str(sources / "ct2"), out=tmp_path / "made").path
    assert get_model(str(made)).verified == "loads with Transformers"
    whole = (made / "model.safetensors").read_bytes()
    (made / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="Transformers cannot load") as caught:
        get_model(str(made))
    assert "\n" not in str(caught.value)
    from safetensors.numpy import load, save_file

    tensors = load(whole)
    del tensors["model.encoder.layers.0.fc1.weight"]
    save_file(tensors, made / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 tensors .*layers\.0\.fc1\.weight"):
        get_model(str(made))


def test_catalogue_is_consistent() -> None:
    assert not set(PACKAGED) & set(HUB_ALIASES)
    for model in PACKAGED.values():
        assert {file.target for file in model.files} == {"model.bin", "tokenizer.json", "vocabulary.txt", "config.json"}
        carriers = {package for file in model.files for package, _ in file.parts}
        assert carriers == {package.name for package in model.packages}
        digests = [file.sha256 for file in model.files] + [package.sha256 for package in model.packages]
        assert all(len(digest) == 64 and int(digest, 16) for digest in digests)


def test_command_line(home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from speechtune.cli.models import app

    monkeypatch.setenv(packaged.WHEELS_VARIABLE, str(wheels))
    done = CliRunner().invoke(app, ["get", "pocket", "--json", "--quiet"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["path"] == str(home / "pocket")
    listed = CliRunner().invoke(app, ["list", "--json"])
    assert {row["name"] for row in json.loads(listed.stdout)["models"]} >= {"pocket", "whisper-base", "whisper-small"}
    wrong = CliRunner().invoke(app, ["get", "pockt", "--json"])
    assert wrong.exit_code == 2
    assert "did you mean pocket" in json.loads(wrong.stdout)["error"]


class _Hub(http.server.BaseHTTPRequestHandler):
    """The three requests a download needs, for one repository ``someone/pocket``."""

    folder: Path
    commit = "a" * 40

    def log_message(self, *args: object) -> None:
        pass

    def _send(self, content: bytes, body: bool = True, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def do_GET(self, body: bool = True) -> None:
        route = self.path.split("?")[0]
        files = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        if "/someone/pocket" not in route:
            self._send(b'{"error": "Repository not found"}', body, 404, X_Error_Code="RepoNotFound")
        elif "/tree/" in route:
            rows = [{"type": "file", "path": n, "size": len(c), "oid": "b" * 40} for n, c in files.items()]
            self._send(json.dumps(rows).encode(), body, Content_Type="application/json")
        elif route.startswith("/api/"):
            facts = {"id": "someone/pocket", "sha": self.commit, "siblings": [{"rfilename": name} for name in files]}
            self._send(json.dumps(facts).encode(), body, Content_Type="application/json")
        else:
            content = files[route.rsplit("/", 1)[1]]
            digest = hashlib.sha256(content).hexdigest()
            self._send(content, body, ETag=f'"{digest}"', X_Repo_Commit=self.commit)

    def do_HEAD(self) -> None:
        self.do_GET(body=False)


@pytest.fixture
def hub(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment in which ``hf:someone/pocket`` is served by a local server."""
    pytest.importorskip("huggingface_hub")
    folder = tmp_path / "served"
    made = get_model(str(sources / "ct2"), out=folder).path
    (made / "README.md").write_text("never asked for")
    (made / MARK).unlink()
    handler = type("Handler", (_Hub,), {"folder": folder})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hf_home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",  # the server is on this machine
        "SPEECHTUNE_HOME": str(tmp_path / "home"),
    }
    server.shutdown()


def _models(environment: dict[str, str], *arguments: str) -> tuple[int, dict[str, object]]:
    """Run ``speechtune models …`` in a process of its own: the hub library reads its environment once."""
    code = "from speechtune.cli.models import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--json"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_hub_download_is_cached_and_then_works_offline(hub: dict[str, str], tmp_path: Path) -> None:
    offline = {**hub, "HF_HUB_OFFLINE": "1"}
    code, answer = _models(offline, "get", "hf:someone/pocket")
    assert code == 2
    assert "no connection to the Hugging Face hub" in str(answer["error"])
    code, answer = _models(hub, "get", "hf:someone/pocket")
    assert (code, answer.get("already_there")) == (0, False), answer
    assert not (Path(str(answer["path"])) / "README.md").exists()
    code, again = _models(offline, "get", "hf:someone/pocket")
    assert (code, again["already_there"], again["path"]) == (0, True, answer["path"])
    code, copy = _models(hub, "get", "hf:someone/pocket", "--out", str(tmp_path / "copy"))
    assert code == 0, copy
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (
        tmp_path / "served" / "model.safetensors"
    ).read_bytes()
    assert not [path.name for path in (tmp_path / "copy").iterdir() if path.is_dir()]


def test_a_ctranslate2_repository_is_converted(hub: dict[str, str], sources: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "served").iterdir():
        path.unlink()
    for path in (sources / "ct2").iterdir():
        (tmp_path / "served" / path.name).write_bytes(path.read_bytes())
    code, answer = _models(hub, "get", "hf:someone/pocket")
    assert code == 0, answer
    assert answer["path"] == str(tmp_path / "home" / "models" / "someone--pocket")
    assert "bit-identical" in str(answer["verified"])
    code, again = _models({**hub, "HF_HUB_OFFLINE": "1"}, "get", "hf:someone/pocket")
    assert (code, again["already_there"]) == (0, True)


def test_hub_errors_are_one_sentence(hub: dict[str, str]) -> None:
    code, answer = _models(hub, "get", "hf:nobody/nothing")
    assert code == 2
    assert "does not exist on the hub" in str(answer["error"])
    code, answer = _models({**hub, "HF_ENDPOINT": "http://127.0.0.1:9"}, "get", "whisper-small")
    assert code == 2
    assert "no connection to the Hugging Face hub" in str(answer["error"])
