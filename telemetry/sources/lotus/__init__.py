"""What a lotus-miner and its full node tell of themselves, their sectors and their workers."""
