"""`python -m lorarec`, which `accelerate launch -m lorarec train ...` needs."""

from lorarec.cli import main

main()
