"""Hostile and broken files: what reads a file of a user's ends in a result or in an error of ours.

`corpus/` holds small valid files, written by `make_corpus.py`; `formats.py` says what they are made of,
`mutate.py` damages them, `readers.py` reads them, `guard.py` watches what reading does beside. Each reader is
given a few hundred files by default and thousands with `-m slow`, the same in every run, so that a change is
judged by what it changed; and as many as `--fuzz N` says, others in every run, to find what nobody has met.
"""
