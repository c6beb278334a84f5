"""Hostile and broken files: what reads a file of a user's ends in a result or in an error of ours.

`corpus/` holds small valid files, written by `make_corpus.py`; `formats.py` says what they are made of,
`mutate.py` damages them, `readers.py` reads them, `guard.py` watches what reading does beside. Each reader is
given a few hundred files by default, thousands with `-m slow`, and as many as `--fuzz N` says.
"""
