"""The one exception type that lorarec raises for input it cannot use."""


class LorarecError(ValueError):
    """Bad input, told in one line that names the culprit and the fix.

    The command line prints the message and exits with code 2; code that calls lorarec as a library catches
    this type (or `ValueError`).
    """
