"""``python -m mmiln`` is the ``mmiln`` command."""

from .cli import main

main()
