"""The broker's files; inside the package they are `telemetry.broker`."""
