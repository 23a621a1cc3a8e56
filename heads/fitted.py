"""Fitted heads as files and back: JSON, NumPy's arrays, and the boosters' own text; never a pickle.

What a head learned is a tree of plain values, arrays and this package's own dataclasses. The tree is `fitted.json`, the
arrays are in `fitted.npz`, a booster is a file of its own. Vectors of training rows are left out: a head that
needs them gets them from its caller (`Head.restore`).
"""

import dataclasses
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import pyarrow as pa

from heads.base import Head
from heads.features.rows import Rows
from heads.features.tfidf import VocabularyCounter
from heads.params import current_params, recorded_params
from heads.registry import head_class
from heads.trees.saved_lightgbm import SavedTrees
from store.arrays import arrays_of
from store.contracts import ListOf, parse_json, shape_problem
from store.errors import CorruptFileError, HeadError

TREE, ARRAYS = "fitted.json", "fitted.npz"
FORMAT = 1  # raised when the same head is written otherwise
KIND = "kind"  # key of a node that is no plain value
PACKAGE = "heads."
CLASS = re.compile(r"heads(\.\w+)+:\w+")  # of this package, by its module
SHAPE = {"format": int, "head": str, "code_version": int, "models": ListOf({"params": dict, "state": dict})}

TrainingRows = Callable[[pa.Array], Rows]  # ids -> those training rows, with their vectors


def write_fitted(name: str, models: Sequence[Head]) -> dict[str, bytes]:
    """Fitted heads as files, name -> content.

    Args:
        name: as the user calls the head.
        models: one, or those whose mean is the price.

    Raises:
        HeadError: something that a head learned is none of what can be written; names it.
    """
    out = _Writer(name)
    record = {
        "format": FORMAT,
        "head": name,
        "code_version": models[0].code_version,
        "models": [
            {
                "params": recorded_params(type(model), model.get_params()),
                "state": {k: out.node(v, k) for k, v in model.fitted_state().items()},
            }
            for model in models
        ],
    }
    content = io.BytesIO()
    np.savez(content, **out.arrays)  # type: ignore[arg-type]
    return {TREE: json.dumps(record).encode(), ARRAYS: content.getvalue(), **out.files}


def read_fitted(read: Callable[[str], bytes], rows: TrainingRows) -> list[Head]:
    """The heads that `write_fitted` wrote.

    Args:
        read: content of a file by its name.
        rows: training rows, for heads that compare with them.

    Raises:
        HeadError: the head is not known here, or was written by another version.
        CorruptFileError: the files don't belong together.
    """
    try:
        record = parse_json(read(TREE))
    except ValueError as error:
        raise CorruptFileError(f"{TREE} is not JSON: {error}") from error
    if problem := shape_problem(record, SHAPE):
        raise CorruptFileError(f"{TREE} is not what shelfprice wrote ({problem})")
    cls = head_class(record["head"])
    if record["format"] != FORMAT or record["code_version"] != cls.code_version:
        raise HeadError(
            f"{record['head']} was fitted by another version of shelfprice (format {record['format']}, code "
            f"{record['code_version']}; here {FORMAT}, {cls.code_version}): fit it again"
        )
    reader = _Reader(arrays_of(io.BytesIO(read(ARRAYS)), f"{ARRAYS} of {record['head']}"), read)
    try:
        return [_restored(cls, one, reader, rows) for one in record["models"]]
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError, pa.ArrowException) as error:
        raise CorruptFileError(
            f"the files of {record['head']} are incomplete ({error!r:.200}): copy the model again"
        ) from error


def _restored(cls: type[Head], record: dict[str, Any], reader: "_Reader", rows: TrainingRows) -> Head:
    """One fitted head of its record."""
    params = current_params(cls, record["params"], warn=False)
    defaults = cls().get_params()
    given: dict[str, Any] = {k: tuple(v) if isinstance(defaults[k], tuple) else v for k, v in params.items()}
    head = cls(**given)
    head.restore({name: reader.value(node) for name, node in record["state"].items()}, rows)
    return head


def predict_fitted(models: Sequence[Head], rows: Rows) -> np.ndarray:
    """Log price of each row, shape (n_rows,): the mean of the models."""
    return np.asarray(np.mean([model.predict(rows) for model in models], axis=0))


# ---- writing -------------------------------------------------------------------------------------


class _Writer:
    """Turns values into nodes of JSON, gathering arrays and files."""

    def __init__(self, head: str) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.files: dict[str, bytes] = {}
        self._head = head

    def node(self, value: Any, where: str) -> Any:
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, np.generic):
            return {KIND: "scalar", "of": self._array(np.asarray(value))}
        if isinstance(value, np.ndarray):
            if value.dtype == object:
                return {KIND: "texts", "of": [str(one) for one in value.tolist()]}
            return {KIND: "array", "of": self._array(value)}
        if isinstance(value, (list, tuple, set, frozenset)):
            of = sorted(value) if isinstance(value, (set, frozenset)) else value
            items = [self.node(item, f"{where}[{at}]") for at, item in enumerate(of)]
            return {KIND: "set" if isinstance(value, (set, frozenset)) else type(value).__name__, "of": items}
        if isinstance(value, Mapping):
            if _counts_up(value):  # such as words by number
                return {KIND: "numbered", "of": list(value)}
            pairs = [
                [self.node(key, where), self.node(item, f"{where}[{key!r:.40}]")]
                for key, item in value.items()
            ]
            return {KIND: "dict", "of": pairs}
        if isinstance(value, VocabularyCounter):
            return _counter_node(value)
        if dataclasses.is_dataclass(value) and type(value).__module__.startswith(PACKAGE):
            cls = type(value)
            state = {name: one for name, one in vars(value).items() if not name.startswith("_")}
            fields = {name: self.node(one, f"{where}.{name}") for name, one in state.items()}
            return {KIND: "object", "class": f"{cls.__module__}:{cls.__qualname__}", "of": fields}
        return self._of_library(value, where)

    def _of_library(self, value: Any, where: str) -> Any:
        kind = f"{type(value).__module__}.{type(value).__name__}"
        if isinstance(value, pa.Array):
            return {KIND: "column", "type": str(value.type), "of": value.to_pylist()}
        if kind.startswith("scipy.sparse") and getattr(value, "format", "") in ("csr", "csc"):
            parts = [value.data, value.indices, value.indptr]
            return {
                KIND: value.format,
                "shape": list(value.shape),
                "of": [self._array(part) for part in parts],
            }
        if kind in ("lightgbm.basic.Booster", f"{SavedTrees.__module__}.{SavedTrees.__name__}"):
            return {KIND: "lightgbm", "of": self._file(value.model_to_string().encode(), "lightgbm.txt")}
        if kind == "xgboost.core.Booster":
            return {KIND: "xgboost", "of": self._file(bytes(value.save_raw("json")), "xgboost.json")}
        if kind == "catboost.core.CatBoostRegressor":
            return {KIND: "catboost", "of": self._file(_catboost_bytes(value), "catboost.cbm")}
        if kind == "sklearn.feature_extraction.text.CountVectorizer":
            return _counter_node(value)
        raise HeadError(
            f"{self._head} can't be packed: {where} has the type {kind}, which can't be written without pickle: a head of "
            "your own overrides `fitted_state` and `restore`"
        )

    def _array(self, value: np.ndarray) -> str:
        name = f"a{len(self.arrays)}"
        self.arrays[name] = value
        return name

    def _file(self, content: bytes, name: str) -> str:
        full = f"{len(self.files)}-{name}"
        self.files[full] = content
        return full


def _catboost_bytes(model: Any) -> bytes:
    """The library's own format, which it writes to a file alone."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.cbm"
        model.save_model(str(file))
        return file.read_bytes()


def _counts_up(value: Mapping[Any, Any]) -> bool:
    """Whether its values are 0, 1, 2 … in order."""
    return len(value) > 16 and all(
        type(item) is int and item == at and isinstance(key, str)
        for at, (key, item) in enumerate(value.items())
    )


def _counter_node(counter: Any) -> dict[str, Any]:
    """A counter of terms, scikit-learn's or ours."""
    vocabulary = getattr(counter, "vocabulary_", None) or {}
    return {
        KIND: "counter",
        "analyzer": counter.analyzer,
        "token_pattern": counter.token_pattern,
        "ngram_range": list(counter.ngram_range),
        "of": [str(term) for term in sorted(vocabulary, key=vocabulary.__getitem__)],
    }


# ---- reading -------------------------------------------------------------------------------------


class _Reader:
    """Turns nodes back into values."""

    def __init__(self, arrays: Mapping[str, np.ndarray], read: Callable[[str], bytes]) -> None:
        self._arrays, self._read = arrays, read

    def value(self, node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        of = node["of"]
        match node[KIND]:
            case "array":
                return self._arrays[of]
            case "scalar":
                return self._arrays[of][()]
            case "texts":
                return np.array(of, dtype=object)
            case "list" | "tuple" | "set" | "frozenset" as name:
                items = (self.value(item) for item in of)
                return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[name](items)
            case "numbered":
                return {key: at for at, key in enumerate(of)}
            case "dict":
                return {self.value(key): self.value(item) for key, item in of}
            case "object":
                return self._object(node["class"], {name: self.value(one) for name, one in of.items()})
            case "column":
                return pa.array(of, pa.int64() if node["type"] == "int64" else pa.string())
            case "csr" | "csc" as name:
                import scipy.sparse as sp

                make = sp.csr_matrix if name == "csr" else sp.csc_matrix
                matrix = make(tuple(self._arrays[part] for part in of), shape=tuple(node["shape"]))
                matrix.check_format(full_check=True)  # else a wrong index reads beyond its arrays
                return matrix
            case "lightgbm":
                try:
                    return SavedTrees(self._read(of).decode())
                except ValueError as error:
                    raise CorruptFileError(f"{of} is no model of LightGBM: {error}") from error
            case "xgboost":
                import xgboost

                return xgboost.Booster(model_file=bytearray(self._read(of)))
            case "catboost":
                try:
                    from catboost import CatBoostRegressor
                except ImportError as error:
                    raise HeadError(
                        "the model holds a head of catboost, which is not installed: run 'pip install shelfprice[catboost]'"
                    ) from error
                return CatBoostRegressor().load_model(blob=self._read(of))
            case "counter":
                return VocabularyCounter(
                    node["analyzer"],
                    tuple(node["ngram_range"]),
                    node["token_pattern"],
                    {term: at for at, term in enumerate(node["of"])},
                )
        raise CorruptFileError(f"{TREE} holds a {node[KIND]!r}, which this version does not know")

    def _object(self, path: str, state: dict[str, Any]) -> Any:
        """One of this package's dataclasses with the attributes that it had; nothing of it is run."""
        module, _, name = str(path).partition(":")
        if not CLASS.fullmatch(str(path)):
            raise CorruptFileError(f"{TREE} names {path}, which is none of shelfprice's")
        try:
            cls: Any = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise CorruptFileError(f"{TREE} names {path}, which this version does not have") from error
        if not (dataclasses.is_dataclass(cls) and isinstance(cls, type)):
            raise CorruptFileError(f"{TREE} names {path}, which is no dataclass")
        made: Any = object.__new__(cast(type[Any], cls))
        vars(made).update(state)
        return made
