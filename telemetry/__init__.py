"""MQTT telemetry for Filecoin storage providers."""
