"""Rows to CSV, JSON lines or Parquet, one after another: no more than some thousands are held at a time."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import IO, Any, TypeAlias

import orjson

from telemetry.errors import TelemetryError
from telemetry.fields import Scalar, Type, Value, fits

Row: TypeAlias = dict[str, Any]

Columns: TypeAlias = Mapping[str, Type | None]
"""The columns in order with the type of their values; None: any, written as JSON text."""

_TIMES = {"_time", "_received"}
_ROWS_A_BATCH = 5_000
_ROWS_A_GROUP = 100_000

_NO_PARQUET = "Parquet needs a library that is not installed: pip install 'storage-telemetry[export]', or --format csv"


def write_csv(rows: Iterator[Row], columns: Columns, out: IO[bytes]) -> None:
    """CSV with a header; lists and objects are JSON text."""
    import csv  # noqa: PLC0415
    import io  # noqa: PLC0415

    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    while some := list(islice(rows, _ROWS_A_BATCH)):
        writer.writerows([_csv_cell(row.get(name)) for name in columns] for row in some)
    text.detach()


def _csv_cell(value: Value | None) -> str | int | float:
    """A value as the text of a cell."""
    if value is None:
        return ""
    if isinstance(value, bool | list | dict):
        return orjson.dumps(value).decode()
    return value


def write_json_lines(rows: Iterator[Row], columns: Columns, out: IO[bytes]) -> None:  # noqa: ARG001  # each row has its own
    """One flat JSON object a line; what is unknown is left out."""
    while some := list(islice(rows, _ROWS_A_BATCH)):
        out.write(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in some))


def write_parquet(rows: Iterator[Row], columns: Columns, out: IO[bytes]) -> None:
    """Parquet with typed columns, compressed."""
    try:
        from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema  # noqa: PLC0415
        from arro3.io import write_parquet as write  # noqa: PLC0415
    except ImportError:
        raise TelemetryError(_NO_PARQUET) from None
    kinds = {Scalar.INTEGER: DataType.int64(), Scalar.NUMBER: DataType.float64(), Scalar.BOOLEAN: DataType.bool()}
    moment = DataType.timestamp("ms", tz="UTC")

    def kind(name: str) -> DataType:
        declared = columns[name]
        if name in _TIMES:
            return moment
        return kinds.get(declared, DataType.string()) if isinstance(declared, Scalar) else DataType.string()

    def array(name: str, some: list[Row]) -> Array:
        values = [_typed(columns[name], row.get(name)) for row in some]
        return Array(values, DataType.int64()).cast(moment) if name in _TIMES else Array(values, kind(name))

    schema = Schema([Field(name, kind(name)) for name in columns])
    failed: list[Exception] = []

    def batches() -> Iterator[RecordBatch]:
        try:
            while some := list(islice(rows, _ROWS_A_BATCH)):
                yield RecordBatch.from_arrays([array(name, some) for name in columns], schema=schema)
        except Exception as error:
            failed.append(error)
            raise

    try:
        reader = RecordBatchReader.from_batches(schema, batches())
        write(reader, out, compression="zstd(3)", max_row_group_size=_ROWS_A_GROUP)
    except Exception:
        if failed:
            # The library has made one of its own of it.
            raise failed[0] from None
        raise


def _typed(declared: Type | None, value: Any) -> Any:  # noqa: ANN401  # a JSON value
    if value is None:
        return None
    if not isinstance(declared, Scalar):
        return orjson.dumps(value).decode()
    # What was stated before the field was declared may be of another type.
    if not fits(declared, value):
        return None
    return float(value) if declared is Scalar.NUMBER else value


WRITERS: dict[str, Callable[[Iterator[Row], Columns, IO[bytes]], None]] = {
    "csv": write_csv,
    "jsonl": write_json_lines,
    "parquet": write_parquet,
}
