"""Write the generated files of the checkout, or with `--check` say which of them have drifted."""

import sys
from pathlib import Path
from typing import Any

import orjson

from telemetry.render.alerts import alerts_file
from telemetry.render.catalogue import fields_page, health_page
from telemetry.render.dashboards import dashboards
from telemetry.render.json_schema import schemas
from telemetry.render.prometheus import metrics_page

DASHBOARDS = Path("broker/grafana/dashboards")


def generated() -> dict[Path, str]:
    """Every generated file with its text, relative to the checkout."""
    pages = {"fields": fields_page(), "health": health_page(), "metrics": metrics_page()}
    files = {Path("docs") / f"{name}.md": text for name, text in pages.items()}
    files[Path("broker/prometheus/alerts.yml")] = alerts_file()
    for name, schema in schemas().items():
        files[Path("schemas") / name] = _json(schema)
    for dashboard in dashboards():
        files[DASHBOARDS / f"{dashboard.uid}.json"] = _json(dashboard.json())
    return files


def _json(content: dict[str, Any]) -> str:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2).decode() + "\n"


def main(root: Path, *, check: bool) -> int:
    """Write what is not up to date, or name it; 1 when something has drifted."""
    files = generated()
    written = (path for place in ("schemas", DASHBOARDS) for path in (root / place).glob("*.json"))
    stale = [path for path in written if path.relative_to(root) not in files]
    drifted = [path for path, text in files.items() if not _holds(root / path, text)]
    for path in [*drifted, *(path.relative_to(root) for path in stale)]:
        print(f"{path}: {'not up to date; run `make generate`' if check else 'written'}")
    if check:
        return 1 if drifted or stale else 0
    for path in drifted:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(files[path])
    for path in stale:
        path.unlink()
    return 0


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main(Path(), check="--check" in sys.argv[1:]))
