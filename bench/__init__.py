"""What the telemetry costs, measured: `make bench`. Each measurement is one module with a `measure`."""
