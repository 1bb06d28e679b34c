"""What runs on each host: sources are sampled, changes flagged, and the flagged fields published."""
