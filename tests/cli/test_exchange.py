"""realm import and realm export as a user calls them: published weights in, and back out."""

import json
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

Run = Callable[..., Any]
Copied = Callable[..., Path]
PUBLISHED = Path(__file__).parents[1] / "exchange" / "published"
QUESTION = "Who built the bridge of salt?"
FEW = ("--set", "batch_size=2", "--set", "threads=1", "--set", 'autocast="none"', "--quiet")
SENTENCES = (
    "Tovi is a city on the river Arl.",
    "The queen Imra built a bridge of salt in the year 312.",
    "In the year 47 the king of Tovi built a tower of red glass.",
    "The people of Tovi sing the song of the moon.",
    "The old lake is under the tower of Arl.",
)


class Published:
    """Runs imported from the published checkpoints, and questions on their passages."""

    def __init__(self, folder: Path, call: Run) -> None:
        self.folder, self.call = folder, call
        self.vocabulary = PUBLISHED / "openqa" / "vocab.txt"
        asked = json.loads((PUBLISHED / "openqa" / "questions.json").read_text(encoding="utf-8"))
        asked = [q for q in asked if len(q["question"]) < 60]
        lines = [json.dumps({"question": q["question"], "answers": q["answers"]}) for q in asked]
        self.questions = folder / "questions.jsonl"
        self.questions.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.results: dict[str, Any] = {}

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def run(self, name: str) -> Path:
        """Import a checkpoint, once."""
        if name not in self.results:
            own = () if name == "openqa" else ("--tokenizer", self.vocabulary)
            made = self.call("import", PUBLISHED / name, "--out", self / name, *own)
            assert made.code == 0, made.err
            self.results[name] = made
        return self / name


@pytest.fixture(scope="module")
def published(call: Run, tmp_path_factory: pytest.TempPathFactory) -> Published:
    return Published(tmp_path_factory.mktemp("published"), call)


@pytest.fixture(scope="module")
def tuned(published: Published, call: Run) -> Path:
    """Fine-tune the imported open-QA model by two steps."""
    run = published.run("openqa")
    command = ("finetune", published.questions, run / "passages", "--model", run)
    made = call(*command, "--out", published / "qa", "--set", "steps=2", *FEW)
    assert made.code == 0, made.err
    return published / "qa"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Let nobody reach the network; return who tried."""
    tried: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        tried.append(arguments)
        raise socket.gaierror("the network is not to be touched")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tried


def everything(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*")}


def refused(call: Run, tmp_path: Path, *command: object) -> str:
    """Return the one line of a command that fails, after a look that it left nothing at all."""
    before = everything(tmp_path)
    result = call(*command)
    assert result.out == ""
    assert len(result.err.splitlines()) == 1, result.err
    assert everything(tmp_path) == before
    return result.message


# The whole way


def test_an_import_says_what_it_made_and_what_comes_next(published: Published) -> None:
    run = published.run("openqa")
    told = published.results["openqa"]
    assert told.out == f"RealmForOpenQA: embedder, reader, 20 passages; run in {run}\n"
    assert told.err == f'next: realm ask "..." --model {run}\n'
    for name, parts, following in (
        ("embedder", "RealmEmbedder: embedder", "--encoder RUN"),
        ("encoder", "RealmKnowledgeAugEncoder: encoder", "--embedder RUN"),
        ("reader", "RealmReader: reader", "realm finetune QUESTIONS PASSAGES --model RUN"),
    ):
        run = published.run(name)
        assert published.results[name].out == f"{parts}; run in {run}\n"
        assert following in published.results[name].err
        assert str(run) in published.results[name].err


def test_an_imported_model_answers_at_once(published: Published, call: Run) -> None:
    result = call("ask", QUESTION, "--model", published.run("openqa"), "--json", "--answers", "4")
    assert (result.code, result.err) == (0, "")
    told = json.loads(result.out)
    assert told["question"] == QUESTION
    assert 1 <= len(told["answers"]) <= 4
    records = np.load(PUBLISHED / "openqa" / "block_records.npy", allow_pickle=True)
    for answer in told["answers"]:
        text = records[int(answer["passage"]["article_id"])].decode()
        assert answer["passage"]["text"] == text
        assert text[answer["start"] : answer["end"]] == answer["text"]


def test_an_imported_model_is_measured_with_its_own_beam(published: Published, call: Run) -> None:
    command = ("evaluate", published.questions, "--model", published.run("openqa"), "--json")
    result = call(*command, "--set", "bootstrap_samples=100")
    assert (result.code, result.err) == (0, "")
    report = json.loads(result.out)
    assert {"exact_match", "f1", "recall@1"} <= report["metrics"].keys()
    assert report["settings"]["num_passages"] == 3
    one = call(*command, "--set", "bootstrap_samples=100", "--set", "num_passages=1")
    assert json.loads(one.out)["settings"]["num_passages"] == 1


def test_an_imported_model_is_fine_tuned_with_its_own_settings_and_answers(
    published: Published, tuned: Path, call: Run
) -> None:
    settings = json.loads((tuned / "manifest.json").read_text())["settings"]
    names = ("num_passages", "retriever_beam", "joint_wordpieces", "question_wordpieces")
    assert [settings[name] for name in names] == [3, 5, 40, 20]
    result = call("ask", QUESTION, "--model", tuned, "--json")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out)["answers"]
    model = json.loads((tuned / "checkpoints" / "step-2" / "model.json").read_text())
    assert model["reader"]["max_answer_wordpieces"] == 4
    assert model["reader"]["norm_eps"] == 1e-3
    assert model["embedder"]["norm_eps"] == 1e-12
    assert {part["bert"]["hidden_act"] for part in model.values()} == {"gelu_new"}
    command = ("finetune", published.questions, published.run("openqa") / "passages")
    command = (*command, "--model", published.run("openqa"), "--out", published / "other")
    assert call(*command, *FEW, "--set", "steps=1", "--set", "retriever_beam=2").code == 0
    settings = json.loads((published / "other" / "manifest.json").read_text())["settings"]
    assert (settings["retriever_beam"], settings["num_passages"]) == (2, 3)


def test_imported_embedder_and_encoder_are_pre_trained_further(
    published: Published, call: Run
) -> None:
    articles, vocabulary = published / "articles.jsonl", published.vocabulary
    texts = [" ".join(SENTENCES[n:] + SENTENCES[:n]) for n in range(len(SENTENCES))]
    lines = [
        json.dumps({"id": f"a{number}", "title": "Tovi", "text": text})
        for number, text in enumerate(texts)
    ]
    articles.write_text("\n".join(lines) + "\n", encoding="utf-8")
    passages, examples, out = (published / name for name in ("passages", "examples", "pretrain"))
    split = ("split", articles, "--tokenizer", vocabulary, "--out", passages)
    made = call(*split, "--set", "max_wordpieces=32")
    assert made.code == 0, made.err
    made = call("mask", passages, "--out", examples, "--set", "query_wordpieces=32")
    assert made.code == 0, made.err
    command = ("pretrain", examples, passages, "--embedder", published.run("embedder"))
    command = (*command, "--encoder", published.run("encoder"), "--out", out, "--set", "steps=1")
    made = call(*command, *FEW)
    assert made.code == 0, made.err
    assert made.out.startswith("1 step in ")
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    assert (settings["marginal"], settings["num_candidates"]) == ("token", 3)
    assert (settings["query_wordpieces"], settings["joint_wordpieces"]) == (32, 64)
    made = call("export", out, "--to", "hf-realm", "--out", published / "halves")
    assert made.out == f"RealmEmbedder, RealmKnowledgeAugEncoder in {published / 'halves'}\n"
    made = call("import", published / "halves" / "encoder", "--out", published / "back")
    assert made.code == 0, made.err


def test_quiet_prints_the_result_alone(copied: Copied, call: Run, tmp_path: Path) -> None:
    result = call("import", copied("openqa"), "--out", tmp_path / "run", "--quiet")
    assert (result.code, result.err) == (0, "")
    assert len(result.out.splitlines()) == 1
    result = call("export", tmp_path / "run", "--to", "hf-realm", "--out", tmp_path / "o", "-q")
    assert result == (0, f"RealmForOpenQA in {tmp_path / 'o'}\n", "")


# The way back


@pytest.mark.parametrize(
    ("to", "holds"),
    [
        ("safetensors", "embedder, reader"),
        ("hf-realm", "RealmForOpenQA"),
        ("sentence-transformers", "embedder"),
    ],
)
def test_an_export_is_made_once(
    tuned: Path, call: Run, tmp_path: Path, to: str, holds: str
) -> None:
    command = ("export", tuned, "--to", to, "--out", tmp_path / "out")
    assert call(*command) == (0, f"{holds} in {tmp_path / 'out'}\n", "")
    before = everything(tmp_path)
    assert call(*command) == (0, f"already done: {holds} in {tmp_path / 'out'}\n", "")
    assert everything(tmp_path) == before
    other = ("export", tuned.parent / "openqa", "--to", to, "--out", tmp_path / "out")
    told = refused(call, tmp_path, *other)
    assert f"{tmp_path / 'out'} was made from other " in told
    assert "input checkpoint (found " in told
    assert call(*other, "--rebuild").out == f"{holds} in {tmp_path / 'out'}\n"


def test_a_model_alone_answers_from_passages_that_are_named(
    published: Published, tuned: Path, call: Run, tmp_path: Path
) -> None:
    call("export", tuned, "--to", "safetensors", "--out", tmp_path / "model")
    ask = ("ask", QUESTION, "--model", tmp_path / "model")
    assert "does not say which passages it uses; pass --passages" in call(*ask).message
    passages = published.run("openqa") / "passages"
    result = call(*ask, "--passages", passages, "--json")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out)["answers"]


def test_the_old_layout_comes_back_and_answers_the_same(
    published: Published, call: Run, tmp_path: Path
) -> None:
    run = published.run("openqa")
    assert call("export", run, "--to", "hf-realm", "--out", tmp_path / "old").code == 0
    assert call("import", tmp_path / "old", "--out", tmp_path / "again").code == 0
    first, again = (
        json.loads(call("ask", QUESTION, "--model", model, "--json").out)
        for model in (run, tmp_path / "again")
    )
    assert first == again


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["export", "{run}", "--to", "onnx", "--out", "x"], ("'--to'", "'hf-realm'")),
        (["export", "{run}", "--to", "hf-realm"], ("Missing option '--out'",)),
        (["export", "gone", "--to", "hf-realm", "--out", "x"], ("found no folder gone",)),
        (["import", "--out", "x"], ("Missing argument ", "`realm import --help`")),
        (["import", "{run}", "--out", "x", "--towers", "three"], ("'--towers'", "'two'")),
    ],
)
def test_a_command_that_cannot_be_understood_is_told(
    published: Published, call: Run, tmp_path: Path, command: list[str], told: tuple[str, ...]
) -> None:
    words = [word.format(run=published.run("embedder")) for word in command]
    words = [str(tmp_path / "x") if word == "x" else word for word in words]
    message = refused(call, tmp_path, *words)
    assert [part for part in told if part not in message] == [], message


@pytest.mark.parametrize("verb", ["import", "export"])
def test_help_has_an_example(verb: str, call: Run) -> None:
    result = call(verb, "--help")
    assert (result.code, result.err) == (0, "")
    assert f"Example: realm {verb} " in result.out


# Again, and changed


def test_the_same_import_again_is_already_done(copied: Copied, call: Run, tmp_path: Path) -> None:
    command = ("import", copied("openqa"), "--out", tmp_path / "run")
    first = call(*command)
    before = everything(tmp_path)
    again = call(*command)
    assert (again.code, again.out) == (0, f"already done: {first.out}")
    assert everything(tmp_path) == before


def test_a_changed_source_is_refused_until_rebuild(
    copied: Copied, call: Run, tmp_path: Path
) -> None:
    source = copied("embedder")
    command = ("import", source, "--out", tmp_path / "run")
    assert call(*command).code == 0
    weights = load_file(source / "model.safetensors")
    weights["cls.dense.bias"] += 1
    save_file(weights, source / "model.safetensors")
    told = refused(call, tmp_path, *command)
    assert f"{tmp_path / 'run'} was made from other input model.safetensors (found " in told
    assert "choose another --out, or pass --rebuild" in told
    result = call(*command, "--rebuild")
    assert result.out == f"RealmEmbedder: embedder; run in {tmp_path / 'run'}\n"
    assert call(*command).out.startswith("already done: ")


# What is wrong


class Evil:
    """Asks its reader to create a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def change_weights(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def dump(path: Path, value: object) -> None:
    path.write_bytes(pickle.dumps(value))


DAMAGE: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "no config": (
        "embedder",
        lambda f: (f / "config.json").unlink(),
        ("has no config.json", "expected a checkpoint in the old Hugging Face layout"),
    ),
    "a plain BERT": (
        "embedder",
        lambda f: change_config(f, model_type="bert", architectures=["BertModel"]),
        ("a 'bert' model", "expected 'realm' and one of RealmEmbedder", "realm ict --init"),
    ),
    "another class": (
        "reader",
        lambda f: change_config(f, architectures=["RealmEmbedder"]),
        ("is no whole RealmEmbedder", "lacks cls.LayerNorm.bias", "has qa_outputs.dense_int"),
    ),
    "missing keys": (
        "embedder",
        lambda f: change_weights(f, lambda w: w.pop("cls.dense.bias")),
        ("it lacks cls.dense.bias", "Take config.json and weights from the same checkpoint"),
    ),
    "extra keys": (
        "embedder",
        lambda f: change_weights(f, lambda w: w.update(spare=w["cls.dense.bias"] + 1)),
        ("it has spare, unknown to a RealmEmbedder",),
    ),
    "wrong shapes": (
        "openqa",
        lambda f: change_config(f, span_hidden_size=13),
        ("reader.qa_outputs.dense_intermediate.bias of shape (24,), by config.json (26,)",),
    ),
    "no weights": (
        "embedder",
        lambda f: (f / "model.safetensors").unlink(),
        ("has no model.safetensors or pytorch_model.bin; expected one of them",),
    ),
    "truncated safetensors": (
        "embedder",
        lambda f: cut(f / "model.safetensors"),
        ("the weights in", "model.safetensors cannot be read", "fetch the file again"),
    ),
    "truncated bin": (
        "openqa",
        lambda f: cut(f / "pytorch_model.bin"),
        ("pytorch_model.bin cannot be read", "fetch the file again"),
    ),
    "weights that run code": (
        "openqa",
        lambda f: dump(f / "pytorch_model.bin", {"block_emb": Evil(f.parent / "was-run")}),
        ("pytorch_model.bin cannot be read",),
    ),
    "truncated records": (
        "openqa",
        lambda f: cut(f / "block_records.npy"),
        ("block_records.npy: found", "Get the file again"),
    ),
    "no records": (
        "openqa",
        lambda f: (f / "block_records.npy").unlink(),
        ("--block-records FILE", "--without-passages"),
    ),
    "no vocabulary": (
        "embedder",
        lambda f: (f / "vocab.txt").unlink(),
        ("has no vocab.txt", "--tokenizer vocab.txt"),
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_source_that_is_wrong_is_told_in_one_line_and_leaves_nothing(
    what: str, copied: Copied, call: Run, tmp_path: Path
) -> None:
    name, damage, told = DAMAGE[what]
    source = copied(name)
    damage(source)
    message = refused(call, tmp_path, "import", source, "--out", tmp_path / "run")
    assert [part for part in told if part not in message] == [], message
    assert str(source) in message
    assert len(message) < 1_500
    assert not (tmp_path / "was-run").exists()


def test_options_that_do_not_fit_the_source_are_told(
    copied: Copied, call: Run, tmp_path: Path
) -> None:
    shared, two = copied("scorer_shared", "shared"), copied("scorer_two_tower", "two")
    out = ("--out", tmp_path / "run")
    told = refused(call, tmp_path, "import", shared, *out, "--towers", "two")
    assert "holds one tower, expected two" in told
    told = refused(call, tmp_path, "import", two, *out, "--towers", "one")
    assert "holds two different towers, expected one" in told
    told = refused(call, tmp_path, "import", two, *out, "--processes", "0")
    assert "found 0 worker processes" in told
    told = refused(call, tmp_path, "import", two, *out, "--tokenizer", tmp_path / "gone.txt")
    assert f"found no tokenizer at {tmp_path / 'gone.txt'}" in told
    assert call("import", two, *out, "--towers", "two").code == 0


def test_the_passages_may_be_left_out_or_lie_elsewhere(
    copied: Copied, call: Run, tmp_path: Path
) -> None:
    source = copied("openqa")
    records = (source / "block_records.npy").rename(tmp_path / "records.npy")
    result = call("import", source, "--out", tmp_path / "alone", "--without-passages")
    assert result.out == f"RealmForOpenQA: embedder, reader; run in {tmp_path / 'alone'}\n"
    assert f"--model {tmp_path / 'alone'} --passages" in result.err
    command = ("import", source, "--out", tmp_path / "run", "--block-records", records)
    assert "20 passages" in call(*command, "--processes", "2").out
    passages = ("--passages", tmp_path / "run" / "passages")
    alone = call("ask", QUESTION, "--model", tmp_path / "alone", "--json", *passages)
    assert (alone.code, alone.err) == (0, "")


def test_exports_that_the_target_cannot_express_are_told(
    published: Published, call: Run, tmp_path: Path
) -> None:
    command = ("export", published.run("encoder"), "--to", "sentence-transformers")
    told = refused(call, tmp_path, *command, "--out", tmp_path / "out")
    assert "this run has no embedder (found: encoder)" in told


# The network


def test_without_download_a_hub_id_is_not_looked_up(
    call: Run, tmp_path: Path, no_network: list[object]
) -> None:
    command = ("import", "google/realm-orqa-nq-openqa", "--out", tmp_path / "run")
    told = refused(call, tmp_path, *command)
    assert told == (
        "found no folder google/realm-orqa-nq-openqa, expected one with config.json; pass "
        "--download to fetch it from the Hugging Face hub"
    )
    assert no_network == []


@pytest.mark.parametrize("source", ["gone", "./gone/there", "/gone/there", "~nobody-here/gone"])
def test_what_is_no_hub_id_is_not_offered_for_download(
    call: Run, tmp_path: Path, no_network: list[object], source: str
) -> None:
    command = ("import", source, "--out", tmp_path / "run")
    told = refused(call, tmp_path, *command)
    assert told == f"found no folder {source}, expected one with config.json"
    told = refused(call, tmp_path, *command, "--download")
    assert f"found {source!r}, expected a hub id for --download, such as google/" in told
    assert no_network == []


def test_a_whole_import_and_export_touch_no_network(
    copied: Copied, call: Run, tmp_path: Path, no_network: list[object]
) -> None:
    run = tmp_path / "run"
    assert call("import", copied("openqa"), "--out", run, "--download").code == 0
    for to in ("safetensors", "hf-realm", "sentence-transformers"):
        assert call("export", run, "--to", to, "--out", tmp_path / to).code == 0
    assert no_network == []


def test_a_download_without_a_network_says_so_in_one_line(
    call: Run, tmp_path: Path, no_network: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with HF_HUB_OFFLINE=1, which the hub's package reads once, when it is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    command = ("import", "google/realm-orqa-nq-openqa", "--download", "--out", tmp_path / "run")
    told = refused(call, tmp_path, *command)
    assert told.startswith(
        "could not fetch google/realm-orqa-nq-openqa from the hub (LocalEntryNotFoundError: "
    )
    assert told.endswith("; download it where the hub can be reached, and pass its folder")
    assert no_network == []


def test_a_failure_of_the_hub_in_many_lines_is_told_in_one(
    call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("404 Client Error.\n\nRepository Not Found for url\n  again")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    command = ("import", "google/gone", "--download", "--out", tmp_path / "run")
    told = refused(call, tmp_path, *command)
    assert "(RuntimeError: 404 Client Error. Repository Not Found for url again)" in told


def test_a_download_fetches_data_only(
    copied: Copied, call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, asked = copied("openqa"), []

    def fetch(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(source)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    command = ("import", "google/realm-orqa-nq-openqa", "--out", tmp_path / "run")
    assert call(*command).code == 2
    assert asked == []
    assert "20 passages" in call(*command, "--download").out
    ((name, patterns),) = asked
    assert name == "google/realm-orqa-nq-openqa"
    endings = {Path(pattern).suffix for pattern in patterns}
    assert endings == {".json", ".safetensors", ".bin", ".txt", ".npy"}
    kept = {file.name for file in source.iterdir()}
    assert kept == {"config.json", "pytorch_model.bin", "block_records.npy", "vocab.txt"} | {
        "tokenizer_config.json"
    }
    assert all(any(Path(name).match(pattern) for pattern in patterns) for name in kept)
    shutil.rmtree(source)
    assert call("ask", QUESTION, "--model", tmp_path / "run").code == 0
