"""`with dg.mode(...)`: the modes that are set from outside, innermost last."""

active: list[str] = []
