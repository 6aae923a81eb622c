"""Searches by alternating steps on two splits: for alpha (DFA), and for a process (DistPro)."""
