"""What the codec says of bytes that it cannot understand."""


class BadPacket(Exception):
    """Bytes that came are no message; theirs, not ours. Nothing changed, and asking again brings the same.

    The text names what, what was expected and what was found, never what the bytes carry.
    """
