"""``python -m speechtune.cli``."""

from speechtune.cli.app import main

main()
