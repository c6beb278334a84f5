"""Readers of data files, a module a format, and the writer of converted data sets."""
