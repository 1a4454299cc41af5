"""Adapters in other forms: which files are looked at, what archives may not do, and which hosts are never asked."""

from __future__ import annotations

import io
import shutil
import socket
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import numpy as np
import pytest

from lora_core import LoRACard, LoRAFormat
from lora_core.base_model import linear_shapes
from lora_core.interop import from_mlx, from_peft, to_gguf, to_peft
from lora_core.layer_shapes import LayerShapes
from services.registry.checkpoint import CannotServe
from services.registry.imports.adoption import BaseFolder
from services.registry.imports.guard import GuardedTransport, Hosts, allowance
from services.registry.imports.source import CannotFetch, HubSource, ObjectSource, parse
from tests.unit.registry.test_inspection import inspector

pytestmark = pytest.mark.unit
MLX = Path(__file__).parents[2] / "fixtures/mlx"
MODEL = MLX / "model"
BASE = BaseFolder(MODEL, linear_shapes(MODEL))
MOST = 1 << 24


@pytest.fixture(scope="module")
def card() -> LoRACard:
    return from_mlx(MLX / "lora", MODEL)


def as_peft(card: LoRACard, folder: Path) -> None:
    to_peft(card, folder)
    (folder / "README.md").write_text("not read")
    to_peft(card, folder / "checkpoint-5")


def as_mlx(_: LoRACard, folder: Path) -> None:
    shutil.copytree(MLX / "lora", folder)


def as_arrow(card: LoRACard, folder: Path) -> None:
    LoRAFormat.save(card, folder / "any.arrow")


def as_gguf(card: LoRACard, folder: Path) -> None:
    to_gguf(card, folder / "any.gguf", MODEL)


@pytest.mark.requirement("AS-2.1")
@pytest.mark.parametrize("write", [as_peft, as_mlx, as_arrow, as_gguf])
async def test_every_form_becomes_the_same_artifact_and_peft_checkpoint(
    card: LoRACard, tmp_path: Path, write: Callable[[LoRACard, Path], None]
) -> None:
    write(card, tmp_path / "given")
    adopted = await inspector().adopt(tmp_path / "given", "shop", tmp_path / "artifact", tmp_path / "peft", BASE)
    assert adopted.form == write.__name__.removeprefix("as_")
    assert (adopted.contents.rank, adopted.contents.alpha) == (card.rank, card.alpha)
    assert adopted.files[0].sha256 != ""
    assert {path.name for path in (tmp_path / "peft").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    for made in (LoRAFormat.load(tmp_path / "artifact"), from_peft(tmp_path / "peft")):
        assert made.weights.keys() == card.weights.keys()
        for module, own in card.weights.items():
            assert made.scaling(module) == pytest.approx(card.scaling(module))
            np.testing.assert_array_equal(made.weights[module].a, own.a)
            np.testing.assert_array_equal(made.weights[module].b, own.b)
    # The artifact is what registering the checkpoint again would give: the link of the digest chain.
    again = await inspector().convert(tmp_path / "peft", "shop", tmp_path / "again", BASE.shapes)
    assert again == adopted.contents
    assert (tmp_path / "again").read_bytes() == (tmp_path / "artifact").read_bytes()


def tar(folder: Path, to: Path) -> None:
    with tarfile.open(to, f"w:{'' if to.suffix == '.tar' else to.suffix.removeprefix('.')}") as opened:
        opened.add(folder, "adapter")


def zipped(folder: Path, to: Path) -> None:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as opened:
        for path in folder.rglob("*"):
            opened.write(path, Path("adapter") / path.relative_to(folder))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz", "a.zip"])
async def test_an_archive_of_a_folder_is_unpacked_and_its_other_files_are_left_out(
    card: LoRACard, tmp_path: Path, name: str
) -> None:
    as_peft(card, tmp_path / "given")
    (zipped if name.endswith("zip") else tar)(tmp_path / "given", tmp_path / name)
    written = await inspector().unpack(tmp_path / name, tmp_path / "to", MOST)
    files = {path.relative_to(tmp_path / "to").as_posix() for path in (tmp_path / "to").rglob("*") if path.is_file()}
    own = {"adapter_config.json", "adapter_model.safetensors"}
    assert files == {f"adapter/{place}{one}" for place in ("", "checkpoint-5/") for one in own}
    assert written == sum(path.stat().st_size for path in (tmp_path / "to").rglob("*") if path.is_file())
    adopted = await inspector().adopt(tmp_path / "to", "shop", tmp_path / "artifact", tmp_path / "peft", BASE)
    assert [one.name for one in adopted.files] == [f"adapter/{one}" for one in sorted(own)]


def tar_of(to: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    with tarfile.open(to, "w:gz") as opened:
        for member, content in members:
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([(member("../adapter_config.json"), b"{}")], "leads out of its folder"),
        ([(member("/etc/adapter_config.json"), b"{}")], "leads out of its folder"),
        ([(member("a/b/c/d/x.gguf"), b"x")], "more than 3 folders deep"),
        ([(member("x.gguf"), bytes(2 << 20))], "its contents exceed 1048576 bytes"),
        ([(member("x.gguf"), b"x"), (member("x.gguf"), b"y")], "occurs twice"),
        ([(member("adapter_model.bin"), b"x")], "pickled code"),
    ],
)
async def test_an_archive_that_would_do_harm_is_refused(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], reason: str
) -> None:
    tar_of(tmp_path / "a.tgz", *members)
    with pytest.raises(CannotServe, match=reason) as refused:
        await inspector().unpack(tmp_path / "a.tgz", tmp_path / "to", 1 << 20)
    assert refused.value.field == "files"
    assert not (tmp_path / "adapter_config.json").exists()


async def test_links_in_archives_are_never_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("planted")
    tar_of(tmp_path / "a.tgz", (member("adapter_config.json", tarfile.SYMTYPE, str(tmp_path / "secret")), b""))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        link = zipfile.ZipInfo("adapter_config.json")
        link.external_attr = 0o120777 << 16
        opened.writestr(link, str(tmp_path / "secret"))
    for name in ("a.tgz", "a.zip"):
        assert await inspector().unpack(tmp_path / name, tmp_path / "to", MOST) == 0
    with pytest.raises(CannotServe, match="no adapter in what was given"):
        await inspector().adopt(tmp_path / "to", "shop", tmp_path / "artifact", tmp_path / "peft", BASE)


async def test_an_encrypted_member_is_refused_by_its_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("adapter_config.json", "{}")
    packed = bytearray((tmp_path / "a.zip").read_bytes())
    for header, flags in (
        (b"PK\x03\x04", 6),
        (b"PK\x01\x02", 8),
    ):  # offsets of the flags: APPNOTE.TXT, 4.3.7 and 4.3.12
        packed[packed.index(header) + flags] |= 0x1
    (tmp_path / "a.zip").write_bytes(packed)
    with pytest.raises(CannotServe, match=r"not a readable archive .*'adapter_config.json' is encrypted"):
        await inspector().unpack(tmp_path / "a.zip", tmp_path / "to", MOST)


async def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    for name, content in {"a.zip": b"PK\x03\x04 cut", "a.tar.gz": b"\x1f\x8b\x08 cut", "a.tar": b"text" * 500}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CannotServe, match=f"^{name}: not a readable archive"):
            await inspector().unpack(tmp_path / name, tmp_path / "to", MOST)


async def test_a_folder_with_several_adapters_or_none_is_refused_with_what_is_in_it(
    card: LoRACard, tmp_path: Path
) -> None:
    as_gguf(card, tmp_path / "two/one")
    as_arrow(card, tmp_path / "two/other")
    (tmp_path / "none").mkdir()
    (tmp_path / "none/adapter_config.json").write_text("{}")
    for name, reason in {
        "two": r"several adapters: one/any\.gguf, other/any\.arrow",
        "none": "given .adapter_config",
    }.items():
        with pytest.raises(CannotServe, match=reason):
            await inspector().adopt(tmp_path / name, "shop", tmp_path / "artifact", tmp_path / name / "peft", BASE)


async def test_an_adapter_of_another_base_model_is_refused_by_the_layer_that_it_lacks(
    card: LoRACard, tmp_path: Path
) -> None:
    as_arrow(card, tmp_path / "given")
    first = next(iter(card.weights))
    other = BaseFolder(MODEL, LayerShapes({name: shape for name, shape in BASE.shapes.items() if name != first}))
    with pytest.raises(CannotServe, match=first.replace(".", r"\.")):
        await inspector().adopt(tmp_path / "given", "shop", tmp_path / "artifact", tmp_path / "peft", other)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("owner/name", HubSource("owner/name")),
        ("hf://owner/na.me@v1.0:sub/adapter.gguf", HubSource("owner/na.me", "v1.0", "sub/adapter.gguf")),
        ("owner/name@refs/pr/1", HubSource("owner/name", "refs/pr/1")),
        ("s3://lorafleet/registry/imports/a/b/", ObjectSource("lorafleet", "registry/imports/a/b/")),
    ],
)
def test_a_source_is_read_as_it_is_written(text: str, source: HubSource | ObjectSource) -> None:
    assert parse(text) == source


@pytest.mark.parametrize(
    "text", ["", "name", "https://host/x", "file:///etc/passwd", "o/n:../x", "o/n@a/../../b", "../n", "s3://b", "o/n@"]
)
def test_what_is_no_source_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(CannotFetch, match="expected") as refused:
        parse(text)
    assert refused.value.status == 422


@contextmanager
def answering(status: int = 200, body: bytes = b"hello", location: str = "") -> Iterator[int]:
    """A web server on loopback: its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def get(url: str, *, public: tuple[str, ...] = (), private: tuple[str, ...] = (), most: int = 1000) -> bytes:
    with (
        allowance(most, 10),
        httpx2.Client(transport=GuardedTransport(Hosts(public, private)), follow_redirects=True) as client,
    ):
        return client.get(url).content


def test_a_host_that_is_not_named_is_never_asked_not_even_by_a_redirect() -> None:
    with answering() as inner, answering(302, location=f"http://127.0.0.1:{inner}/meta-data") as outer:
        assert get(f"http://127.0.0.1:{inner}/", private=(f"127.0.0.1:{inner}",)) == b"hello"
        for private in ((), (f"127.0.0.1:{outer}",)):
            with pytest.raises(CannotFetch, match=r"host '127\.0\.0\.1' is not allowed"):
                get(f"http://127.0.0.1:{outer}/", private=private)


def test_a_named_host_with_a_private_address_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("10.0.0.7", "127.0.0.1", "169.254.169.254", "::1", "fd00::1"):
        entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry])  # noqa: B023
        with pytest.raises(CannotFetch, match=f"host 'hub.example' has the private address {address}"):
            get("https://hub.example/x", public=("hub.example",))
        with pytest.raises(CannotFetch, match=f"has the private address {address}"):
            get("https://cdn.hub.example/x", public=(".hub.example",))


def test_a_public_host_is_asked_by_https_alone() -> None:
    with pytest.raises(CannotFetch, match="over https only, not http"):
        get("http://hub.example/x", public=("hub.example",))


def test_an_answer_over_what_an_import_may_take_is_cut_off() -> None:
    with answering(body=bytes(4096)) as port:
        with pytest.raises(CannotFetch, match="exceeds the size limit of an import") as refused:
            get(f"http://127.0.0.1:{port}/", private=("127.0.0.1",))
        assert refused.value.status == 413
