"""What runs beside the broker: it mirrors every record, keeps what happened, and publishes snapshots."""
