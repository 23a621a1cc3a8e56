"""What reads well and is not what was written is an error that names the file and the next step."""

import errno
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ensemble.blend import run_blend
from ensemble.model.answers import UNREADABLE_IMAGE
from ensemble.model.rows import image_contents
from ensemble.submission import submit
from heads.folds import curve
from heads.folds.search import _trials
from heads.run import run_heads
from heads.status import head_holdings
from store.config import ColumnConfig, Config, FoldConfig, HeadConfig, load_config, save_config
from store.contracts import CONTRACTS, contract_of
from store.digests import DIGEST_KEY, METADATA_KEY
from store.errors import CorruptFileError, WorkspaceError
from store.local import TEMPORARY_PREFIX
from store.vectors.sets import VectorSet
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_vectors
from tests.soak.commands import result_of

N_TRAIN, N_TEST = 60, 8


def made(root) -> tuple[Workspace, Config]:
    """A catalogue, vectors, folds, a head, a blend, a submission."""
    workspace, random = Workspace(root), np.random.default_rng(0)
    X = {"train": random.normal(size=(N_TRAIN, 4)), "test": random.normal(size=(N_TEST, 4))}
    train = [
        {"sample_id": i, "text": f"tea {i}", "price": float(np.exp(2 + x[0]))}
        for i, x in enumerate(X["train"])
    ]
    test = [{"sample_id": 100 + i, "text": f"new tea {i}"} for i in range(N_TEST)]
    publish_catalog(workspace, catalog_table(train), catalog_table(test, priced=False))
    publish_vectors(workspace, VectorSet("fake", "full"), X)
    heads = HeadConfig(run=("ridge", "neighbours"), vectors=("fake@full",))
    config = Config(folds=FoldConfig(k=3), heads=heads)
    save_config(workspace, config)
    assert run(workspace, config) == ["trained"] * 2
    return workspace, config


@pytest.fixture(scope="module", autouse=True)
def with_curves():
    """Few rows have a learning curve too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curve, "LEAST_ROWS", 20)
        yield


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """Made once."""
    root = tmp_path_factory.mktemp("made") / "w"
    return root, made(root)[1]


@pytest.fixture
def finished(pristine, tmp_path):
    """A copy of it, and its configuration."""
    root, config = pristine
    shutil.copytree(root, tmp_path / "w")
    return Workspace(tmp_path / "w"), config


def run(workspace: Workspace, config: Config) -> list[str]:
    statuses = [one.status for one in run_heads(workspace, config)]
    run_blend(workspace)
    submit(workspace, ColumnConfig())
    return statuses


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "w")


def test_every_kind_of_file_has_a_contract_that_says_how_it_is_made_again():
    assert all("shelfprice " in one.made_by for one in CONTRACTS)
    assert contract_of("predictions/ridge-0123456789abcdef/oof.parquet").columns.keys() == {
        "sample_id",
        "fold",
        "log_price",
    }
    assert "embed run" in contract_of("vectors/minilm-0123456789abcdef/part-00ff.parquet").made_by


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"[]", "not an object"),
        (b"{}", "has no 'head'"),
        (b'{"head": 3, "folder": "x"}', "head is a number"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"head": "a", "folder": ', "not JSON"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_a_record_of_another_shape_is_named_with_the_next_step(workspace, content, problem):
    workspace.publish_bytes("predictions/a.json", content)
    with pytest.raises(
        CorruptFileError, match=rf"a\.json is damaged .*{problem}.*run 'shelfprice heads run'"
    ):
        workspace.read_json("predictions/a.json")


@pytest.mark.parametrize(
    "file, next_step",
    [
        ("catalog/readings.json", "shelfprice catalog ingest"),
        ("blend/51fdf3ebd8fe5b1c/report-audit.json", "shelfprice ensemble report"),
        ("finetune/small/run.json", "shelfprice embed finetune"),
    ],
)
def test_a_record_of_a_reader_that_can_make_it_again_is_not_sound_where_it_has_another_shape(
    workspace, file, next_step
):
    workspace.publish_bytes(file, b'{"found": {}, "text": [], "columns": {}}')
    assert not workspace.is_sound(file)
    with pytest.raises(CorruptFileError, match=f"is damaged .* has no .*run '{next_step}'"):
        workspace.read_json(file)


def test_a_list_of_metadata_that_a_bit_made_shorter_is_found(workspace):
    table = pa.table({"sample_id": [1, 2], "fold": pa.array([0, 1], pa.int16()), "log_price": [1.0, 2.0]})
    file = "predictions/ridge-0123456789abcdef/oof.parquet"
    workspace.publish_table(file, table, {"folds_hash": "6bd0"})
    path = Path(workspace.path(file))
    content = bytearray(path.read_bytes())
    at = content.rindex(b"\x18\nshelfprice\x18") - 1
    assert content[at] == 0x3C  # in Thrift: three entries, each a struct
    content[at] = 0x1C  # one alone: the digest is not among them
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match="its metadata are gone"):
        workspace.read_table(file)


def test_a_history_of_fine_tuning_with_other_columns_is_named_with_the_next_step(workspace):
    workspace.publish_table("finetune/small/fold-0/history.parquet", pa.table({"loss": [0.5]}))
    with pytest.raises(CorruptFileError, match=r"no column 'fold'.*delete its folder and run"):
        workspace.read_table("finetune/small/fold-0/history.parquet")


def test_a_record_carries_a_digest_and_any_digit_changed_in_it_is_found(workspace):
    record = {
        "weights": {"ridge": 0.99, "knn": 0.01},
        "rows": {2: "a", 10: "b"},
        "deep": [1, [2.5, None, "é"]],
    }
    workspace.publish_json("x/record.json", record)
    assert workspace.read_json("x/record.json") == json.loads(json.dumps(record))
    path = workspace.path("x/record.json")
    with open(path) as file:
        changed = file.read().replace("0.99", "0.19")
    with open(path, "w") as file:
        file.write(changed)
    with pytest.raises(CorruptFileError, match="not what its own digest says"):
        workspace.read_json("x/record.json")


def rewritten(workspace, relative, **changes):
    """The table with other columns, and everything else about the file as it was."""
    table = pq.read_table(workspace.path(relative))
    for name, column in changes.items():
        at = table.schema.get_field_index(name)
        table = table.drop_columns([name]) if column is None else table.set_column(at, name, column)
    pq.write_table(table, workspace.path(relative))


@pytest.mark.parametrize("is_told", [True, False], ids=["with its digest", "as of version 0.1.0"])
def test_a_table_of_other_columns_types_or_rows_is_refused(finished, tmp_path, is_told):
    workspace, _ = finished
    predictions = next((tmp_path / "w/predictions").glob("ridge-*"))
    relative = f"predictions/{predictions.name}/oof.parquet"
    whole = pq.read_table(workspace.path(relative))
    kept = whole if is_told else whole.replace_schema_metadata(None)
    for name, column in (
        ("log_price", None),
        ("log_price", pa.array(["x"] * N_TRAIN)),
        ("log_price", pa.array([1.0, None] * (N_TRAIN // 2))),
        ("sample_id", pa.array([1.5] * N_TRAIN)),
    ):
        pq.write_table(kept, workspace.path(relative))
        rewritten(workspace, relative, **{name: column})
        with pytest.raises(CorruptFileError, match=r"oof\.parquet is damaged .*run 'shelfprice heads run'"):
            workspace.read_table(relative)
    if is_told:
        pq.write_table(whole.slice(1), workspace.path(relative))
        with pytest.raises(
            CorruptFileError, match="rows, metadata or place are not what its own digest says"
        ):
            workspace.read_table(relative)


DERIVED = (
    "folds.parquet",
    "predictions/ridge-*/oof.parquet",
    "predictions/ridge-*/test.parquet",
    "predictions/ridge-*/curve.parquet",
    "predictions/neighbours-*/evidence.parquet",
    "predictions/ridge-*/head.json",
    "predictions/ridge.json",
    "blend/*/blend.json",
    "blend/*/oof.parquet",
    "blend/current.json",
)


@pytest.mark.parametrize("pattern", DERIVED)
@pytest.mark.parametrize("damage", ["other", "cut", "flipped", "gone"])
def test_what_can_be_made_again_is_made_again_by_the_command_that_makes_it(
    finished, tmp_path, pattern, damage
):
    workspace, config = finished
    before = workspace.read_bytes("submission.csv")
    (path,) = (tmp_path / "w").glob(pattern)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 8
    other = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1]}), other)
    replaced = b'{"x": 1}' if path.suffix == ".json" else other.getvalue().to_pybytes()
    path.write_bytes({"other": replaced, "cut": content[: len(content) // 2]}.get(damage, content))
    if damage == "gone":
        path.unlink()
    if path.match("predictions/*/*.parquet") and damage != "flipped":  # of which some have no effect
        told = [reason for one in head_holdings(workspace, config) for reason in one.stale]
        assert told == ["one of its tables is damaged or gone"]
    run(workspace, config)
    assert workspace.read_bytes("submission.csv") == before
    assert path.exists()
    assert run(workspace, config) == ["present"] * 2


def test_what_killed_runs_left_half_written_goes_with_the_next_run_of_the_room(finished, tmp_path):
    workspace, config = finished
    ridge = next((tmp_path / "w/predictions").glob("ridge-*"))
    folders = [tmp_path / "w", ridge, ridge.parent, *(tmp_path / "w/blend").glob("*/"), tmp_path / "w/blend"]
    left = [folder / f"{TEMPORARY_PREFIX}x-1" for folder in folders]
    for path in left:
        path.write_bytes(b"half")
        os.utime(path, (time.time() - 7200,) * 2)
    (ridge / "head.json").unlink()
    run(workspace, config)
    assert len(left) == 5
    assert not [path for path in left if path.exists()]


def test_a_sound_file_of_another_place_is_no_stand_in(finished, tmp_path):
    workspace, config = finished
    before = workspace.read_bytes("submission.csv")
    ridge, neighbours = (
        next((tmp_path / "w/predictions").glob(f"{head}-*")) for head in ("ridge", "neighbours")
    )
    for file in ("test.parquet", "oof.parquet", "head.json"):
        shutil.copyfile(neighbours / file, ridge / file)
        with pytest.raises(CorruptFileError, match=rf"{file} is damaged .*or place"):
            (workspace.read_json if file == "head.json" else workspace.read_table)(
                f"predictions/{ridge.name}/{file}"
            )
    run(workspace, config)
    assert workspace.read_bytes("submission.csv") == before


def test_what_may_not_be_read_is_not_taken_for_damage(workspace, monkeypatch):
    workspace.publish_table("folds.parquet", pa.table({"x": [1]}))
    workspace.publish_json("predictions/a.json", {"head": "a", "folder": "f"})

    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.open", refused)
    for relative in ("folds.parquet", "predictions/a.json"):
        with pytest.raises(WorkspaceError, match=r"can't read .*: Permission denied") as caught:
            workspace.is_sound(relative)
        assert not isinstance(caught.value, CorruptFileError)


def test_metadata_that_a_bit_made_unreadable_are_missed_and_the_copy_of_them_is_not_taken(workspace):
    workspace.publish_table(
        "folds.parquet", pa.table({"sample_id": [1, 2], "fold": [0, 1], "group": [0, 1]}), {"k": 2}
    )
    path = Path(workspace.path("folds.parquet"))
    whole = path.read_bytes()
    told = []
    for bit in range(8 * (len(whole) - 1200), 8 * (len(whole) - 8), 7):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            assert workspace.read_metadata("folds.parquet") == {"k": 2}, bit
            assert workspace.read_table("folds.parquet").num_rows == 2
        except CorruptFileError:
            told.append(bit)
    assert len(told) > 100


@pytest.mark.parametrize(
    "kept", [{"{key}\x18@{digest}": ""}, {"shelfprhce.sha256": "{digest}"}, {"x": "y{digest}"}]
)
def test_a_digest_that_lost_its_name_or_its_value_is_missed(workspace, kept):
    table = pa.table({"sample_id": [1, 2], "fold": [0, 1], "group": [0, 1]})
    workspace.publish_table("folds.parquet", table, {"k": 2})
    found = workspace.read_table("folds.parquet")
    names = {"key": DIGEST_KEY.decode(), "digest": found.schema.metadata[DIGEST_KEY].decode()}
    odd = {name.format(**names): value.format(**names) for name, value in kept.items()}
    told = {METADATA_KEY: found.schema.metadata[METADATA_KEY]}
    pq.write_table(found.replace_schema_metadata(told | odd), workspace.path("folds.parquet"))
    with pytest.raises(CorruptFileError, match="are not what its own digest says"):
        workspace.read_table("folds.parquet")


def _number(value: int) -> bytes:
    """As Parquet's footer writes it."""
    value, encoded = 2 * value, b""
    while value > 127:
        value, encoded = value >> 7, encoded + bytes([value & 127 | 128])
    return encoded + bytes([value])


@pytest.mark.parametrize("stated, other", [(5000, 5001), (5000, 4999), (4000, 3999), (1000, 1001)])
def test_a_table_that_states_other_rows_than_its_parts_is_damage(workspace, stated, other):
    ids = pa.array(range(5000))
    table = pa.table({"sample_id": ids, "fold": ids, "group": ids})
    workspace.publish_table("folds.parquet", table, {"k": 2}, row_group_size=4000)
    path = Path(workspace.path("folds.parquet"))
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    places = [at for at in range(footer, len(whole)) if whole.startswith(_number(stated), at)]
    told = []
    for at in places:
        path.write_bytes(whole[:at] + _number(other) + whole[at + len(_number(other)) :])
        for read in (
            lambda: workspace.read_table("folds.parquet").replace_schema_metadata(None),
            lambda: pa.Table.from_batches(workspace.batches("folds.parquet")),
        ):
            try:
                # How many values a column states of itself is not read; pyarrow 17 reports it as well.
                assert read().equals(table)
            except CorruptFileError as error:
                told.append(str(error))
    of_parts = [error for error in told if "its parts do not have the rows that it states" in error]
    assert len(of_parts) == 2
    others = [error for error in told if error not in of_parts]
    assert all("damaged or not what shelfprice wrote" in error for error in others), others


def test_a_column_whose_name_is_no_text_is_damage(workspace):
    workspace.publish_table("cleaning.parquet", pa.table({"some_text": ["a"]}))
    path = Path(workspace.path("cleaning.parquet"))
    path.write_bytes(path.read_bytes().replace(b"some_text", b"some\xf4text"))
    with pytest.raises(
        CorruptFileError, match=r"cleaning\.parquet is damaged .*run 'shelfprice catalog clean'"
    ):
        workspace.read_table("cleaning.parquet")


def test_a_folder_or_a_link_to_nothing_in_a_files_place_is_one_line_that_says_what_to_do(workspace):
    os.makedirs(workspace.path("predictions/a.json"))
    os.makedirs(workspace.path("folds.parquet"))
    os.symlink("b.json", workspace.path("predictions/b.json"))
    os.symlink("nowhere", workspace.path("predictions/c.json"))
    for read, relative in (
        (workspace.read_json, "predictions/a.json"),
        (workspace.read_json, "predictions/b.json"),
        (workspace.read_json, "predictions/c.json"),
        (workspace.read_table, "folds.parquet"),
    ):
        with pytest.raises(
            WorkspaceError, match=rf"can't read .*{relative}: .*: delete it, then run 'shelfprice"
        ):
            read(relative)


@pytest.fixture
def alarm():
    """Ends a test that waits for a pipe."""

    def ring(*_):
        raise AssertionError("it waits for ever")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_a_pipe_or_a_device_in_a_files_place_is_damage_and_nothing_waits_for_it(finished, pristine):
    workspace, config = finished
    root = Path(workspace.root)
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    for path in files:
        relative = path.relative_to(root).as_posix()
        path.unlink()
        os.mkfifo(path)
        told = rf"can't read {re.escape(str(path))}: it is a pipe, a socket or a device, not a file: .*(delete|run) "
        for read in (
            workspace.read_bytes,
            workspace.read_json,
            workspace.read_table,
            workspace.read_metadata,
        ):
            with pytest.raises(CorruptFileError, match=told):
                read(relative)
        assert not workspace.is_sound(relative)
    with pytest.raises(CorruptFileError, match=r"shelfprice\.toml: it is a pipe.* delete it, then run"):
        load_config(workspace)
    for path in files:
        path.unlink()
        shutil.copyfile(Path(pristine[0]) / path.relative_to(root), path)
    for name in ("predictions/ridge.json", "blend/current.json"):
        (root / name).unlink()
        os.mkfifo(root / name)
        run(workspace, config)
        run_blend(workspace)
        assert workspace.is_sound(name)
    (root / "predictions/ridge.json").unlink()
    (root / "predictions/ridge.json").symlink_to("/dev/zero")
    with pytest.raises(CorruptFileError, match="it is a pipe, a socket or a device"):
        workspace.read_json("predictions/ridge.json")


def test_settings_and_records_of_gigabytes_are_not_read(workspace):
    for name, most in (("shelfprice.toml", 2**20), ("blend/current.json", 2**26)):
        path = Path(workspace.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(2**33)
        with pytest.raises(
            CorruptFileError, match=rf"{name}: it is larger than {most} bytes: delete it, then run"
        ):
            workspace.read_bytes(name)


@pytest.mark.usefixtures("alarm")
def test_trials_are_added_to_no_pipe_and_a_cell_that_names_one_is_an_image_that_can_not_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WorkspaceError, match=r"can't write .*pipe: .*: delete what is there in its place"):
        Workspace(tmp_path).append("pipe", b"{}")
    said: set[str] = set()
    assert image_contents([str(tmp_path / "pipe"), "/dev/zero"], said) == []
    assert said == {UNREADABLE_IMAGE}


def test_a_record_that_names_a_folder_elsewhere_is_damaged(workspace):
    for file, folder in (
        ("blend/current.json", "../A/blend/h"),
        ("blend/current.json", "blend/.."),
        ("predictions/ridge.json", "vectors/a"),
        ("predictions/ridge.json", "predictions/../../a"),
    ):
        workspace.publish_json(file, {"head": "ridge", "folder": folder})
        with pytest.raises(CorruptFileError, match=r"folder is another text.*: run 'shelfprice "):
            workspace.read_json(file)


def test_nothing_is_added_to_a_file_behind_a_link(workspace, tmp_path):
    (tmp_path / "diary").write_text("dear")
    for relative in ("images/journal/1.jsonl", "tuning/trials.journal"):
        place = Path(workspace.path(relative))
        place.parent.mkdir(parents=True)
        place.symlink_to(tmp_path / "diary")
        with pytest.raises(WorkspaceError, match=r"can't write .*: delete what is there in its place"):
            workspace.append(relative, b" line")
    with pytest.raises(WorkspaceError, match=r"trials\.journal is a link"):
        _trials(workspace)
    assert (tmp_path / "diary").read_text() == "dear"


def test_what_may_not_be_looked_into_is_an_error_and_never_an_empty_folder(tmp_path):
    workspace = Workspace(tmp_path / "w")
    workspace.publish_bytes("blend/a/b", b"")
    os.symlink("loop", workspace.path("loop"))

    def told():
        Path(workspace.path("blend")).chmod(0)
        found = []
        for call in (workspace.names, workspace.file_names, workspace.exists, workspace.size):
            try:
                call("blend" if call in (workspace.names, workspace.file_names) else "blend/a")
            except WorkspaceError as error:
                found.append(str(error))
        Path(workspace.path("blend")).chmod(0o755)
        return found

    path = workspace.path("blend")
    assert result_of(told) == [
        f"can't read {one}: Permission denied" for one in (path, path, f"{path}/a", f"{path}/a")
    ]
    assert not workspace.exists("loop")
    with pytest.raises(WorkspaceError, match=r"can't read .*/loop: Too many levels.*: delete it"):
        workspace.names("loop")


def test_a_file_in_a_folders_place_is_named(workspace):
    workspace.publish_bytes("catalog", b"")
    blocked = re.escape(workspace.path("catalog"))
    with pytest.raises(WorkspaceError, match=f"can't write .*: {blocked} is no folder: delete what is there"):
        workspace.publish_bytes("catalog/a/b", b"")
    with (
        pytest.raises(WorkspaceError, match=f"can't write .*: {blocked} is no folder: delete what is there"),
        workspace.lock("catalog/.ingest.lock"),
    ):
        pass


def test_a_lock_follows_no_link_and_truncates_nothing(workspace, tmp_path):
    (tmp_path / "precious").write_text("keep me")
    os.makedirs(workspace.path("catalog"))
    os.symlink(tmp_path / "precious", workspace.path("catalog/.lock"))
    told = r"can't write .*\.lock: .*: delete what is there in its place"
    with pytest.raises(WorkspaceError, match=told), workspace.lock("catalog/.lock"):
        pass
    assert (tmp_path / "precious").read_text() == "keep me"


@pytest.mark.parametrize(
    "address, secret",
    [
        ("s3://KEY:Q9x/R7z@bucket/run", "Q9x"),
        ("s3://KEY:Q9xR7z@bucket", "Q9x"),
        ("simplecache::s3://K:S3CRET@b", "S3CRET"),
        ("filecache::https://user:pass@host/x", "pass"),
        ("gs://user@bucket", "user"),
    ],
)
def test_an_address_with_credentials_is_refused_without_repeating_them(address, secret):
    with pytest.raises(WorkspaceError, match="holds credentials") as caught:
        Workspace(address)
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["a::b", "a\0b", "simplecache::s3://b", "zip://x.zip", "tar://x", "reference://x", "data:,x"]
)
def test_an_address_that_can_hold_no_workspace_is_refused(address):
    with pytest.raises(WorkspaceError, match=r"can't hold one|'::' chains addresses|holds a NUL"):
        Workspace(address)


def test_an_at_sign_or_a_port_is_no_credential():
    assert Workspace("memory://host:9000/run@2").root == "memory://host:9000/run@2"
