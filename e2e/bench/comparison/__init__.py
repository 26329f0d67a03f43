"""Weir's proxy beside others: the same load on each, in interleaved rounds of one run."""
