"""Make docs/picture.svg: the command line at work on a simulated fleet, as it is. Run by `make picture`."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from telemetry.processes import free_port

COMMANDS = ("telemetry ls", "telemetry show f01234 seal01", "mosquitto_sub -p {port} -t 'miners/#' -v -C 4")
WIDTH = 118


def main() -> None:
    """Run a simulated fleet for a while, and draw what the commands print meanwhile."""
    port = free_port(18830)
    shown = Console(record=True, width=WIDTH, force_terminal=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    with tempfile.TemporaryDirectory() as place:
        options = ["--data", f"{place}/telemetry-data", "--port", str(port), "--hosts", "6"]
        up = subprocess.Popen([sys.executable, "-m", "telemetry", "simulate", *options], stdout=subprocess.DEVNULL)
        try:
            time.sleep(25)
            for command in COMMANDS:
                shown.print(Text(f"$ {command.format(port=1883)}", style="bold green"))
                for line in Text.from_ansi(_output(command.format(port=port), place)).split("\n"):
                    line.truncate(2 * WIDTH, overflow="ellipsis")
                    line.rstrip()
                    shown.print(line)
        finally:
            up.terminate()
            up.wait()
    Path("docs/picture.svg").write_text(shown.export_svg(title="storage-telemetry"))


def _output(command: str, place: str) -> str:
    """What a command prints on a terminal."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    terminal = f"stty cols {WIDTH} rows 50; {command}"
    done = subprocess.run(
        ["script", "-qec", terminal, "/dev/null"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.replace("\r\n", "\n").rstrip()


if __name__ == "__main__":
    main()
