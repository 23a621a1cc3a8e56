"""Inputs of users, changed along their structure: tables, images, settings, addresses, links. Read or refused in words."""

import base64
import gzip
import io
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.soak.commands import result_of
from tests.soak.verdict import Verdict
from tests.soak.world import SETTINGS, World

N_INPUTS = 50  # of one case
SLOW_SECONDS = 20.0
MOST_BYTES = 12 * 2**30  # of address space
SUBJECTS = ("csv", "parquet", "image", "toml", "address", "link", "text")

ODD_CELLS = (
    *(
        "",
        " ",
        "NA",
        "nan",
        "0",
        "-1",
        "1e309",
        "1,299.00",
        "$5",
        "10-12",
        "1.23E+12",
        "\ufeff",
        "\x00",
        "\x1b[2J",
    ),
    *("=1+1", "@x", '"', "'", "a\nb", "\u202e", "é" * 300, "x" * 70_000, "(" * 5_000, "1 pack " * 3_000),
    *(
        "[1, 2]",
        "['a.jpg']",
        "https://[fe80::1%é]/a.jpg",
        "data:image/png;base64,xx",
        "..\\..\\x",
        "𝟙𝟚",
        "٣",
        "½",
    ),
)
TOKENS = {
    "toml": (
        "[",
        "]",
        "=",
        '"',
        "'",
        "{}",
        "#",
        "\n",
        "run",
        "heads",
        "params",
        "1e999",
        "nan",
        "true",
        "-1",
        "[[a]]",
        "𝟙",
    ),
    "address": (
        ":",
        "@",
        "?",
        "&",
        "=",
        "/",
        "..",
        "~",
        "%2e",
        ".image",
        "hf",
        "timm",
        "minilm",
        "\x00",
        "s3://",
        "::",
        "\\",
    ),
    "link": (
        "http://",
        "https://",
        "[",
        "]",
        "::1",
        "%é",
        "@",
        ":",
        "//",
        "\\",
        "?",
        "#",
        " ",
        "\n",
        ",",
        "127.1",
        "xn--",
        "。",
    ),
    "text": (
        "Value:",
        "Unit:",
        "pack",
        " of ",
        "12",
        "x",
        "/",
        "oz",
        "(",
        ")",
        ",",
        ".",
        "\n",
        "-",
        "½",
        "dozen",
        "<b>",
        "&amp;",
    ),
}


def cases(world: World, draw: random.Random) -> Iterator[dict[str, Any]]:
    while True:
        for subject in SUBJECTS:
            yield {"subject": subject, "seed": draw.randrange(2**32), "n": N_INPUTS}


def run(world: World, case: dict[str, Any]) -> Verdict:
    try:
        counts, said = result_of(lambda: tried(world, case), SLOW_SECONDS * 4 + 60)
    except RuntimeError as error:
        return Verdict("hang" if "with None" in str(error)[:20] else "crash", [str(error)[-3000:]])
    return Verdict(next((one for one in ("traceback", "hang") if one in counts), "told"), said, counts)


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each input alone, then ever shorter."""
    if "input" not in case:
        draw = random.Random(case["seed"])
        for _ in range(case["n"]):
            yield {
                "subject": case["subject"],
                "input": base64.b64encode(MAKERS[case["subject"]](draw)).decode(),
            }
        return
    content = base64.b64decode(case["input"])
    size = len(content) // 2
    while size:
        for at in range(0, len(content), size):
            yield {**case, "input": base64.b64encode(content[:at] + content[at + size :]).decode()}
        size = size // 2 if size > 64 or len(content) < 400 else 0


def tried(world: World, case: dict[str, Any]) -> tuple[Counter[str], list[str]]:
    """Make the inputs and read each."""
    from store.errors import ShelfpriceError

    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    draw = random.Random(case.get("seed"))
    if "input" in case:
        inputs = [base64.b64decode(case["input"])]
    else:
        inputs = [MAKERS[case["subject"]](draw) for _ in range(case["n"])]
    counts: Counter[str] = Counter()
    said = []
    with world.copy() as root:
        for content in inputs:
            started = time.process_time()
            try:
                outcome = READERS[case["subject"]](root, content) or "unchanged"
            except ShelfpriceError as error:
                outcome = "told" if str(error).strip() else "traceback"
            except Exception as error:  # noqa: BLE001 - it is what is looked for
                import traceback

                outcome = "traceback"
                said.append("".join(traceback.format_exception(error))[-3000:])
            if time.process_time() - started > SLOW_SECONDS:
                outcome = "hang"
                said.append(f"{time.process_time() - started:.0f} s for {content[:200]!r}")
            counts[outcome] += 1
    return counts, said


# ---- inputs --------------------------------------------------------------------------------------


def csv_bytes(draw: random.Random) -> bytes:
    """A table with some cells, lines, marks and bytes changed."""
    delimiter = draw.choice(",,,;\t|")
    names = ["sample_id", "catalog_content", "image_link", "price", "weight", "made"]
    rows = [
        [
            str(n),
            f"tea {n} pack of 2",
            f"https://x.example/{n}.jpg",
            f"{n + 0.5}",
            f"{n} kg",
            f"2024-01-{n % 28 + 1:02d}",
        ]
        for n in range(draw.choice((1, 3, 25)))
    ]
    for _ in range(draw.choice((0, 1, 3, 8))):
        row = draw.choice([names, *rows])
        row[draw.randrange(len(row))] = draw.choice(ODD_CELLS)
    for _ in range(draw.choice((0, 0, 1, 2))):
        row = draw.choice(rows)
        draw.choice(
            (
                row.clear,
                row.reverse,
                lambda row=row: row.extend(row),
                lambda row=row, rows=rows: rows.append(list(row)),
            )
        )()
        rows = [one for one in rows if one] or [["x"]]
    quote = draw.random() < 0.7
    lines = [
        delimiter.join(
            '"' + cell.replace('"', '""') + '"' if quote and set(cell) & {delimiter, '"', "\n"} else cell
            for cell in row
        )
        for row in [names, *rows]
    ]
    content = (
        draw.choice(("\n", "\r\n", "\r"))
        .join(lines)
        .encode(draw.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1")), "replace")
    )
    content = bytes_changed(content, draw, draw.choice((0, 0, 0, 1, 4)))
    return gzip.compress(content) if draw.random() < 0.05 else content


def parquet_bytes(draw: random.Random) -> bytes:
    """A table of odd types, or one with bytes changed."""
    import datetime
    import decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    n = 12
    kinds: dict[str, Callable[[], pa.Array]] = {
        "int": lambda: pa.array(range(n)),
        "text": lambda: pa.array([f"tea {i}" for i in range(n)]),
        "large": lambda: pa.array([f"tea {i}" for i in range(n)], pa.large_string()),
        "view": lambda: pa.array([f"tea {i}" for i in range(n)], pa.string_view()),
        "float": lambda: pa.array([i + 0.5 for i in range(n)]),
        "wild": lambda: pa.array([float("nan"), float("inf"), 1e308, *([2.0] * (n - 3))]),
        "null": lambda: pa.nulls(n),
        "bool": lambda: pa.array([i % 2 == 0 for i in range(n)]),
        "list": lambda: pa.array([["a", None]] * n),
        "struct": lambda: pa.array([{"bytes": b"x", "path": "a"}] * n),
        "map": lambda: pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64())),
        "binary": lambda: pa.array([b"\xff\xfe"] * n),
        "dictionary": lambda: pa.array(["a", "b"] * (n // 2)).dictionary_encode(),
        "decimal": lambda: pa.array([decimal.Decimal("9" * 30 + ".5")] * n),
        "date": lambda: pa.array([datetime.date(2024, 1, 1)] * n),
        "stamp": lambda: pa.array([2**62] * n, pa.timestamp("ns", "UTC")),
        "duration": lambda: pa.array([5] * n, pa.duration("s")),
        "unsigned": lambda: pa.array([2**64 - 1] * n, pa.uint64()),
        "half": lambda: pa.array([1.5] * n, pa.float16()),
    }
    names = ["sample_id", "catalog_content", "image_link", "price", "extra"]
    usual = ("int", "text", "text", "float", "float")
    chosen = [kind if draw.random() < 0.6 else draw.choice(list(kinds)) for kind in usual]
    buffer = io.BytesIO()
    table = pa.table([kinds[kind]() for kind in chosen], names=names)
    try:
        pq.write_table(table, buffer)
    except pa.ArrowException:
        pq.write_table(table.select([0]), buffer)
    return bytes_changed(buffer.getvalue(), draw, draw.choice((0, 0, 1, 2, 8)))


def image_bytes(draw: random.Random) -> bytes:
    """An image of any format and mode with bytes changed, most of them in its head."""
    from PIL import Image

    kind = draw.choice(("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "ICO", "PPM", "EPS"))
    mode = draw.choice(("RGB", "L", "P", "RGBA", "CMYK", "1", "LA", "I;16"))
    buffer = io.BytesIO()
    size = (draw.randrange(1, 60), draw.randrange(1, 60))
    options = {"exif": b"Exif\x00\x00" + draw.randbytes(40)} if draw.random() < 0.2 else {}
    try:
        Image.new(mode, size).save(buffer, kind, **options)
    except (OSError, ValueError, KeyError, TypeError, SystemError, IndexError, SyntaxError):
        buffer = io.BytesIO()
        Image.new("RGB", size).save(buffer, "PNG")
    return bytes_changed(buffer.getvalue(), draw, draw.choice((0, 1, 2, 6)), head=draw.choice((40, 10**9)))


def text_of(subject: str, whole: tuple[str, ...]) -> Callable[[random.Random], bytes]:
    """Texts of a few whole ones, tokens and repeats."""

    def make(draw: random.Random) -> bytes:
        text = draw.choice(whole)
        for _ in range(draw.choice((0, 1, 2, 5))):
            at, token = draw.randrange(len(text) + 1), draw.choice(TOKENS[subject])
            if draw.random() < 0.1:
                token *= draw.choice((50, 5_000))
            end = at + draw.choice((0, 0, 1, 4))
            text = text[:at] + token + text[end:]
        return bytes_changed(text.encode(), draw, draw.choice((0, 0, 0, 1)))

    return make


def bytes_changed(content: bytes, draw: random.Random, n: int, head: int = 10**9) -> bytes:
    """Bits turned, bytes set, cut, doubled."""
    changed = bytearray(content)
    for _ in range(n):
        if not changed:
            break
        at = draw.randrange(min(len(changed), head))
        match draw.randrange(5):
            case 0:
                changed[at] ^= 1 << draw.randrange(8)
            case 1:
                changed[at] = draw.choice((0, 1, 127, 128, 255))
            case 2:
                del changed[at : at + draw.choice((1, 4, 1000))]
            case 3:
                changed[at:at] = changed[at : at + draw.choice((1, 4, 300))]
            case 4:
                changed[at : at + 4] = draw.randbytes(4)
    return bytes(changed)


MAKERS: dict[str, Callable[[random.Random], bytes]] = {
    "csv": csv_bytes,
    "parquet": parquet_bytes,
    "image": image_bytes,
    "toml": text_of(
        "toml",
        (
            *(SETTINGS, 'seed = 1\n[columns]\ntext = "a"\n', '[heads.params."ridge:x"]\nlow = 1\n'),
            "seed = 9\n[columns]\nmax_rejected = 0.1\n[embed]\nmax_failures = 0.1\nmax_coverage_gap = 0.1\n",
        ),
    ),
    "address": text_of(
        "address",
        ("minilm@name", "timm:resnet18?size=224", "clip-vit-l14.image", "./a", "s3://b/run", "file:///x"),
    ),
    "link": text_of(
        "link",
        (
            "https://x.example/a.jpg",
            "http://[::1]:80/a?b#c",
            '["https://x/a.jpg", "b"]',
            "http://192.168.1.1/",
        ),
    ),
    "text": text_of(
        "text",
        (
            "Item Name: Tea, 12 pack of 2 oz\nBullet Point 1: good\nValue: 24.0\nUnit: Ounce\n",
            "1 pack x 3 / 4 lb",
        ),
    ),
}


# ---- readers -------------------------------------------------------------------------------------


def read_file(root: Path, content: bytes, suffix: str) -> None:
    from store.catalog.ingest.run import ingest

    path = root / f"fuzzed{suffix}"
    path.write_bytes(content)
    ingest(str(root / "fresh"), str(path))


def read_image(root: Path, content: bytes) -> str | None:
    from store.catalog.images.open import UndecodableError, flattened, open_image, room_for

    try:
        with open_image(content) as image, room_for(image):
            flattened(image).load()
    except UndecodableError:
        return "told"
    return None


def read_toml(root: Path, content: bytes) -> None:
    import numpy as np

    from embed.job.limits import FailureLimits
    from heads.params import run_params
    from heads.registry import make_head
    from store.config import CONFIG_FILE, load_config, save_config
    from store.workspace import Workspace

    workspace = Workspace(root / "settings")
    workspace.publish_bytes(CONFIG_FILE, content)
    config = load_config(workspace)
    np.random.RandomState(config.seed)
    FailureLimits(config.embed.max_failures, config.embed.max_coverage_gap)
    if not 0 <= config.columns.max_rejected <= 1:
        raise AssertionError(f"{config.columns.max_rejected} is no share")
    for name in config.heads.run:
        params, _, _ = run_params(name, config.heads.params.get(name, {}))
        make_head(name, params, config.seed)
    save_config(workspace, config)
    if load_config(workspace) != config:
        raise AssertionError(f"{config} was saved and is {load_config(workspace)}")


def read_address(root: Path, content: bytes) -> None:
    from embed.encoders.base import Sources
    from embed.encoders.resolve import resolve
    from store.errors import ShelfpriceError
    from store.names import file_name
    from store.vectors.sets import VectorSet
    from store.workspace import Workspace

    text = content.decode("utf-8", "replace")
    errors: list[ShelfpriceError] = []
    for action in (
        lambda: resolve(Workspace(root), text.partition("@")[0], Sources(offline=True)),
        lambda: VectorSet.parse(text, "text"),
        lambda: file_name(text, "a head"),
        lambda: Workspace(text) if not text.startswith(("s3:", "gs:", "http")) else None,
    ):
        try:
            action()
        except ShelfpriceError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def read_cell(root: Path, content: bytes) -> str | None:
    from store.catalog.download.addresses import read_link
    from store.catalog.images.folder import link_file_names

    text = content.decode("utf-8", "replace")
    link_file_names(text)
    return "told" if read_link(text).problem else None


def read_text(root: Path, content: bytes) -> None:
    from store.catalog.parse.fields import parse_fields
    from store.catalog.parse.html import without_html

    parse_fields(without_html(content.decode("utf-8", "replace")))


READERS: dict[str, Callable[[Path, bytes], str | None]] = {
    "csv": lambda root, content: read_file(
        root, content, ".csv.gz" if content[:2] == b"\x1f\x8b" else ".csv"
    ),
    "parquet": lambda root, content: read_file(root, content, ".parquet"),
    "image": read_image,
    "toml": read_toml,
    "address": read_address,
    "link": read_cell,
    "text": read_text,
}
