"""A stand-in Lotus: a miner and a full node that answer as the real ones do, to test and to show against."""
