"""Thousands of recordings on one machine or many: scores and labels, on Ray.

`plan.py` cuts recordings into segments, `queue.py` decides which comes next, `worker.py` computes one, `store.py` keeps
what came out under an address that is made of everything it depends on, `pool.py` has workers on Ray (and one without
it). `collect.py` makes the figures of recordings out of their segments, `tables.py` and `report.py` write them down.
"""
