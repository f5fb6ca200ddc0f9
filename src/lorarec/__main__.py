"""`python -m lorarec` is `lorarec`."""

from lorarec.cli import main

main()
