"""A page, a read API and a WebSocket, for people and programs that look; nothing here writes to the fleet.

What is now comes from one subscriber's copy of the broker; what was comes from the database, read-only.
"""
