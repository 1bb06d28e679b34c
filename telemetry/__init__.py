"""MQTT telemetry for Filecoin storage providers."""

__version__ = "0.1.0"
