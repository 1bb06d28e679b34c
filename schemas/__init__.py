"""The JSON Schemas of every message; inside the package they are `telemetry.schemas`."""
