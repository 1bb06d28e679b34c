"""The catalogue of fields: what each means, its type, its unit, and who states it."""

import argparse

import orjson

from telemetry.cli.options import add_json
from telemetry.cli.tables import print_table
from telemetry.records import RECORDS
from telemetry.render.catalogue import catalogue, type_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_json(parser)
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="of the descriptions")


def run(arguments: argparse.Namespace) -> int:
    """Print every field of every record."""
    if arguments.json:
        print(orjson.dumps(catalogue(), option=orjson.OPT_INDENT_2).decode())
        return 0
    rows = [
        (
            record.name,
            field.name,
            type_name(field.type),
            field.unit.value.symbol,
            field.owner.value,
            field.chinese if arguments.language == "zh" else field.english,
        )
        for record in RECORDS
        for field in record.fields
    ]
    print_table(
        ("RECORD", "FIELD", "TYPE", "UNIT", "OWNER", "MEANING"), rows, folds="MEANING", spare=("RECORD", "OWNER")
    )
    return 0
