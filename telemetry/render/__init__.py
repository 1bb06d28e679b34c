"""The declaration in other languages: SQL, JSON Schema, documentation. What is written to files is checked in."""
